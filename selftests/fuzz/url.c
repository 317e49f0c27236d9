/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a URL: refused with a sentence, or each part is in its bounds and means the same
 * again. */
#include "rdma/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool yes)
{
	if (!yes)
		abort();
}

static void check_strings(const struct pst_url *u)
{
	must(memchr(u->scheme, 0, sizeof(u->scheme)) && memchr(u->name, 0, sizeof(u->name)));
	must(memchr(u->set.io, 0, sizeof(u->set.io)) && memchr(u->set.dev, 0, sizeof(u->set.dev)));
	must(memchr(u->set.key, 0, sizeof(u->set.key)) != NULL);
	must(u->hosts <= PST_RAILS_MAX);
	for (unsigned int i = 0; i < u->hosts; i++)
		must(u->host[i][0] && memchr(u->host[i], 0, sizeof(u->host[i])));
}

static void check_settings(const struct pst_settings *s)
{
	must(s->timeout_ms >= 100 && s->timeout_ms <= 600000);
	must(s->links >= 1 && s->links <= 65535 && s->conns >= 1 && s->conns <= PST_RAILS_MAX);
	must(s->chunk >= 4096 && s->chunk <= 1ull << 40 && !(s->chunk % 4096));
	must(!strcmp(s->io, "auto") || !strcmp(s->io, "uring") || !strcmp(s->io, "epoll"));
}

/* The hosts written out in full are parsed to the same ones. */
static void check_again(const struct pst_url *u)
{
	char text[PST_RAILS_MAX * 70 + 32];
	size_t at = (size_t)snprintf(text, sizeof(text), "%s://", u->scheme);
	struct pst_url again;

	if (!u->hosts)
		return;
	for (unsigned int i = 0; i < u->hosts; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       strchr(u->host[i], ':') ? "%s[%s]" : "%s%s", i ? "," : "",
				       u->host[i]);
	snprintf(text + at, sizeof(text) - at, ":%u", u->port);
	if (strlen(text) >= PST_URL_MAX)
		return;
	must(!pst_url_parse(text, &again, NULL));
	must(again.hosts == u->hosts && again.port == u->port);
	must(!memcmp(again.host, u->host, sizeof(u->host)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct pst_error err = {0};
	struct pst_url url;
	int rc;

	must(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	rc = pst_url_parse(text, &url, &err);
	must(rc == err.code && (!rc || rc == -22) && !rc == !err.text[0]);
	for (const char *c = err.text; *c; c++)
		must((unsigned char)*c >= 0x20 && *c != 0x7f);
	if (!rc) {
		check_strings(&url);
		check_settings(&url.set);
		check_again(&url);
	}
	free(text);
	return 0;
}
