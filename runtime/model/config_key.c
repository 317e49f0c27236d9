/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model/config_key.h"

#include "rdma/fail.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One key with its value, and how to speak of them. */
struct entry {
	const struct pst_key *key;
	const json_t *value;
	const char *where;
	struct pst_error *err;
};

/*
 * A file may hold anything, and a sentence goes to a terminal: so in ASCII, with
 * JSON's escapes.
 */
const char *pst_key_show(const json_t *value, char *buf, size_t size)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

	snprintf(buf, size, "%s", text ? text : "?");
	if (text && strlen(text) >= size)
		strcpy(buf + size - 4, "...");
	free(text);
	return buf;
}

/* The name of a key, quoted, with what stands before it. */
static const char *show_name(const char *where, const char *name, char *buf, size_t size)
{
	char full[128];
	json_t *text;

	snprintf(full, sizeof(full), "%s%s", where, name);
	/* a name cut within a character is no string; a byte or two less then is one */
	for (size_t n = strlen(full); !(text = json_stringn(full, n)) && n; n--)
		;
	pst_key_show(text, buf, size);
	json_decref(text);
	return buf;
}

__attribute__((format(printf, 2, 3))) static int refuse(const struct entry *e, const char *fmt, ...)
{
	char value[64], why[192];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return pst_fail(e->err, -EINVAL, "config: \"%s%s\" is %s; %s", e->where, e->key->name,
			pst_key_show(e->value, value, sizeof(value)), why);
}

static int read_count(const struct entry *e, uint32_t *out)
{
	json_int_t n = json_integer_value(e->value);

	if (e->key->kind == PST_KEY_RANK && json_is_null(e->value)) {
		*out = 0;
		return 0;
	}
	if (!json_is_integer(e->value) || (double)n < e->key->min || (double)n > e->key->max)
		return refuse(e, "it must be an integer from %.0f to %.0f", e->key->min,
			      e->key->max);
	*out = (uint32_t)n;
	return 0;
}

static int read_real(const struct entry *e, double *out)
{
	const struct pst_key *k = e->key;
	double x = json_number_value(e->value);
	bool small = x < k->min || (k->kind == PST_KEY_REAL && x <= 0);

	if (!json_is_number(e->value) || !isfinite(x) || small || x > k->max)
		return refuse(e, "it must be a number %s %g and at most %g",
			      k->kind == PST_KEY_REAL && k->min <= 0 ? "above" : "of at least",
			      k->min, k->max);
	*out = x;
	return 0;
}

static int read_flag(const struct entry *e, bool *out)
{
	if (!json_is_boolean(e->value))
		return refuse(e, "it must be true or false");
	*out = json_is_true(e->value);
	return 0;
}

static bool same(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal(a, b);
}

static int check_fixed(const struct entry *e)
{
	json_t *want;
	bool ok;

	if (e->key->null && json_is_null(e->value))
		return 0;
	want = json_loads(e->key->want, JSON_DECODE_ANY, NULL);
	if (!want)
		return pst_fail(e->err, -ENOMEM, "config: no memory");
	ok = same(want, e->value);
	json_decref(want);
	return ok ? 0 : refuse(e, "only %s is supported", e->key->want);
}

static int read_entry(const struct entry *e, void *out)
{
	void *field = (char *)out + e->key->offset;

	switch (e->key->kind) {
	case PST_KEY_COUNT:
	case PST_KEY_RANK:
		return read_count(e, field);
	case PST_KEY_REAL:
	case PST_KEY_ZREAL:
		return read_real(e, field);
	case PST_KEY_FLAG:
		return read_flag(e, field);
	case PST_KEY_FIXED:
		return check_fixed(e);
	case PST_KEY_SKIP:
	case PST_KEY_OTHER:
		break;
	}
	return 0;
}

#define MAX_NAME 64

/* Levenshtein's distance; names longer than MAX_NAME are far from all. */
static size_t distance(const char *a, const char *b)
{
	size_t row[MAX_NAME + 1], la = strlen(a), lb = strlen(b);

	if (la > MAX_NAME || lb > MAX_NAME)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = corner + (a[i - 1] != b[j - 1]);

			corner = row[j];
			if (corner + 1 < best)
				best = corner + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[lb];
}

static const struct pst_key *nearest(const char *name, const struct pst_key *keys, size_t count)
{
	const struct pst_key *best = NULL;
	size_t least = strlen(name) / 2 + 1;

	for (size_t i = 0; i < count; i++) {
		size_t d = distance(name, keys[i].name);

		if (d < least) {
			least = d;
			best = &keys[i];
		}
	}
	return best;
}

static int refuse_unknown(const char *name, const struct pst_key *keys, size_t count,
			  const char *where, struct pst_error *err)
{
	const struct pst_key *near = nearest(name, keys, count);
	char shown[96];

	show_name(where, name, shown, sizeof(shown));
	if (near)
		return pst_fail(err, -EINVAL,
				"config: %s is not a key that this library knows, and it could "
				"change the numbers; is \"%s%s\" meant?",
				shown, where, near->name);
	return pst_fail(err, -EINVAL,
			"config: %s is not a key that this library knows, and it could change the "
			"numbers; remove it if it does not",
			shown);
}

static const struct pst_key *find(const char *name, const struct pst_key *keys, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(name, keys[i].name))
			return &keys[i];
	return NULL;
}

int pst_keys_read(const json_t *object, const struct pst_key *keys, size_t count, const char *where,
		  void *out, struct pst_error *err)
{
	struct entry e = {.where = where, .err = err};
	const char *name;
	json_t *value;
	int rc;

	json_object_foreach((json_t *)object, name, value)
	{
		e.key = find(name, keys, count);
		e.value = value;
		rc = e.key ? read_entry(&e, out) : refuse_unknown(name, keys, count, where, err);
		if (rc)
			return rc;
	}
	for (size_t i = 0; i < count; i++)
		if (keys[i].required && !json_object_get(object, keys[i].name))
			return pst_fail(err, -EINVAL, "config: \"%s%s\" is missing", where,
					keys[i].name);
	return 0;
}
