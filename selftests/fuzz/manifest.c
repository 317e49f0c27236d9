/* SPDX-License-Identifier: Apache-2.0 */
/* A manifest is refused with a sentence, or says the same when it is written and read again. */
#include "daemon/kernels/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void rebuild(const struct manifest *m, char *json, size_t room)
{
	int n = snprintf(json, room,
			 "{\"op\":\"%s\",\"name\":\"%s\",\"device\":\"%s\",\"formats\":[", m->op,
			 m->name, m->kind == PST_DEVICE_CPU ? "cpu" : "cuda");

	for (uint32_t i = 0; i < m->nformats; i++)
		n += snprintf(json + n, room - (size_t)n, "%s\"%s\"", i ? "," : "", m->format[i]);
	n += snprintf(json + n, room - (size_t)n, "],\"abi\":\"%016llx\",\"sha256\":\"",
		      (unsigned long long)m->abi);
	for (size_t i = 0; i < sizeof(m->sha256); i++)
		n += snprintf(json + n, room - (size_t)n, "%02x", m->sha256[i]);
	snprintf(json + n, room - (size_t)n, "\"}");
}

/* What is signed must not be the same for two that differ. */
static void check(const struct manifest *m)
{
	char json[1024], text[MANIFEST_TEXT_MAX], again_text[MANIFEST_TEXT_MAX];
	struct manifest again;
	size_t len = manifest_text(m, text);

	if (!len || len >= sizeof(text) || len != strlen(text) || text[len - 1] != '\n')
		abort();
	rebuild(m, json, sizeof(json));
	if (manifest_parse(json, strlen(json), &again, NULL) ||
	    manifest_text(&again, again_text) != len || strcmp(text, again_text) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct config nobody;
	struct pst_error err = {0}, why = {0};
	struct manifest m;
	int rc = manifest_parse((const char *)data, size, &m, &err);

	if (rc != err.code || (rc && rc != -74 && rc != -12))
		abort();
	if (rc && (!err.text[0] || !memchr(err.text, 0, sizeof(err.text))))
		abort();
	if (rc)
		return 0;
	check(&m);
	if (!manifest_verify(&m, &nobody, &why) || !why.text[0])
		abort();
	why.code = 0;
	if (manifest_fits(&m, &why) != why.code)
		abort();
	return 0;
}
