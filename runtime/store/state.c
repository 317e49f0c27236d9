/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/state.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1

enum kind { U32, U64, REAL };

/* 64-bit numbers go as hex strings: JSON integers are signed. */
static const struct field {
	const char *name;
	enum kind kind;
	size_t offset;
	double min, max; /* of U32 and REAL: those of the options */
} fields[] = {
	{"step", U32, offsetof(struct pst_state, step), 0, UINT32_MAX},
	{"loss_digest", U64, offsetof(struct pst_state, digest), 0, 0},
	{"corpus", U64, offsetof(struct pst_state, corpus), 0, 0},
	{"seed", U64, offsetof(struct pst_state, seed), 0, 0},
	{"steps", U32, offsetof(struct pst_state, steps), 1, UINT32_MAX},
	{"horizon", U32, offsetof(struct pst_state, horizon), 1, UINT32_MAX},
	{"batch", U32, offsetof(struct pst_state, batch), 1, 65536},
	{"seq", U32, offsetof(struct pst_state, seq), 2, 1 << 20},
	{"warmup", U32, offsetof(struct pst_state, warmup), 0, UINT32_MAX},
	{"lr", REAL, offsetof(struct pst_state, lr), 0, 100},
	{"lr_min", REAL, offsetof(struct pst_state, lr_min), 0, 100},
	{"beta1", REAL, offsetof(struct pst_state, beta1), 0, 0.999999},
	{"beta2", REAL, offsetof(struct pst_state, beta2), 0, 0.999999},
	{"eps", REAL, offsetof(struct pst_state, eps), 1e-30, 1},
	{"weight_decay", REAL, offsetof(struct pst_state, weight_decay), 0, 100},
	{"clip", REAL, offsetof(struct pst_state, clip), 0, 1e30},
	{"balance_alpha", REAL, offsetof(struct pst_state, balance_alpha), 0, 1e6},
	{"bias_rate", REAL, offsetof(struct pst_state, bias_rate), 0, 1},
};

#define NFIELDS (sizeof(fields) / sizeof(*fields))

static json_t *put(const struct pst_state *s, const struct field *f)
{
	const char *at = (const char *)s + f->offset;
	char hex[20];

	switch (f->kind) {
	case U32:
		return json_integer(*(const uint32_t *)at);
	case U64:
		snprintf(hex, sizeof(hex), "%016llx", *(const unsigned long long *)at);
		return json_string(hex);
	default:
		return json_real(*(const double *)at);
	}
}

int pst_state_write(const char *dir, const struct pst_state *s, struct pst_error *err)
{
	json_t *root = json_pack("{s:i}", "format", FORMAT);
	char path[PATH_MAX], *text = NULL;
	int rc = 0;

	for (size_t i = 0; i < NFIELDS && root; i++)
		rc |= json_object_set_new(root, fields[i].name, put(s, &fields[i]));
	if (root && !rc)
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (!text)
		return pst_fail(err, -ENOMEM, "no memory for trainer.json");
	snprintf(path, sizeof(path), "%s/trainer.json", dir);
	rc = pst_file_replace(path, text, strlen(text), err);
	free(text);
	return rc;
}

static bool get(struct pst_state *s, const struct field *f, const json_t *v)
{
	char *at = (char *)s + f->offset, *end;
	json_int_t n = json_integer_value(v);
	double x;

	switch (f->kind) {
	case U32:
		*(uint32_t *)at = (uint32_t)n;
		return json_is_integer(v) && (double)n >= f->min && (double)n <= f->max;
	case U64:
		if (!json_is_string(v) || json_string_length(v) != 16)
			return false;
		*(uint64_t *)at = strtoull(json_string_value(v), &end, 16);
		return !*end;
	default:
		x = json_number_value(v);
		*(double *)at = x;
		return json_is_number(v) && isfinite(x) && x >= f->min && x <= f->max;
	}
}

int pst_state_read(const char *dir, struct pst_state *out, struct pst_error *err)
{
	char path[PATH_MAX], *text;
	struct pst_state s = {0};
	json_error_t why;
	json_t *root;
	size_t len;
	int rc;

	snprintf(path, sizeof(path), "%s/trainer.json", dir);
	rc = pst_file_read(path, 1 << 20, &text, &len, err);
	if (rc < 0)
		return rc;
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	free(text);
	if (!root)
		return pst_fail(err, -EINVAL, "%s: line %d: %s", path, why.line, why.text);
	if (json_integer_value(json_object_get(root, "format")) != FORMAT)
		rc = pst_fail(err, -EINVAL, "%s: format is not %d", path, FORMAT);
	for (size_t i = 0; i < NFIELDS && !rc; i++)
		if (!get(&s, &fields[i], json_object_get(root, fields[i].name)))
			rc = pst_fail(err, -EINVAL, "%s: %s is missing or makes no sense", path,
				      fields[i].name);
	json_decref(root);
	if (!rc)
		*out = s;
	return rc;
}
