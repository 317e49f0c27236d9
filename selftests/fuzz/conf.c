/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as penstockd.conf: refused with a sentence that names the line, or all in its bounds. */
#include "daemon/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool yes)
{
	if (!yes)
		abort();
}

#define ENDS(text) must(memchr(text, 0, sizeof(text)) != NULL)

static void check(const struct config *c)
{
	ENDS(c->socket);
	ENDS(c->group);
	ENDS(c->metrics);
	ENDS(c->key);
	must(c->ntrusted <= CONFIG_MAX && c->nworkers <= CONFIG_MAX && c->nservers <= CONFIG_MAX);
	must(c->silence_ms >= 1 && c->silence_ms <= 86400000 && c->trial_ms >= 1);
	for (uint32_t i = 0; i < c->ntrusted; i++)
		ENDS(c->trusted[i]);
	for (uint32_t i = 0; i < c->nworkers; i++) {
		ENDS(c->worker[i].name);
		ENDS(c->worker[i].device);
		ENDS(c->worker[i].url);
		must(c->worker[i].name[0] && c->worker[i].threads <= 4096);
	}
	for (uint32_t i = 0; i < c->nservers; i++) {
		ENDS(c->server[i].name);
		ENDS(c->server[i].url);
		must(c->server[i].name[0] && c->server[i].node >= -1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct pst_error err = {0};
	struct config config;
	unsigned int line;
	int rc;

	must(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	rc = config_parse("c", text, &config, &err);
	must(rc == err.code && (!rc || rc == -22) && !rc == !err.text[0]);
	if (rc)
		must(sscanf(err.text, "c:%u: ", &line) == 1 && line > 0);
	else
		check(&config);
	free(text);
	return 0;
}
