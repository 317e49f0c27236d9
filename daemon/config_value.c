/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_parser.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool config_wrong(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	if (p->failed)
		return false;
	p->failed = p->line;
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof(p->why), fmt, ap);
	va_end(ap);
	return false;
}

bool config_set_text(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	if (strlen(value) >= bytes)
		return config_wrong(p, "%s: longer than %zu bytes", key, bytes - 1);
	memset(at, 0, bytes);
	memcpy(at, value, strlen(value));
	return true;
}

bool config_set_path(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	if (value[0] != '/')
		return config_wrong(p, "%s: '%s' is no path that begins with /", key, value);
	return config_set_text(p, key, value, at, bytes);
}

/* A whole number at the beginning; what is behind it is @rest. */
static bool number(const char *value, uint64_t *out, const char **rest)
{
	char *end;

	if (!isdigit((unsigned char)value[0]))
		return false;
	errno = 0;
	*out = strtoull(value, &end, 10);
	*rest = end;
	return !errno;
}

bool config_set_size(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	static const char unit[] = "KMGT";
	const char *rest, *u;
	unsigned int shift;
	uint64_t n;

	(void)bytes;
	if (!number(value, &n, &rest))
		return config_wrong(p,
				    "%s: '%s' is no size; say 0, or bytes as in 64G (K, M, G, T)",
				    key, value);
	u = *rest ? strchr(unit, *rest) : NULL;
	shift = u ? 10 * (unsigned int)(u - unit + 1) : 0;
	if ((u ? rest[1] : rest[0]) || n > UINT64_MAX >> shift)
		return config_wrong(p,
				    "%s: '%s' is no size; say 0, or bytes as in 64G (K, M, G, T)",
				    key, value);
	*(uint64_t *)at = n << shift;
	return true;
}

/* Milliseconds, between 1 and a day. */
bool config_set_ms(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	static const struct {
		const char *name;
		uint32_t ms;
	} unit[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}};
	uint64_t n, ms = 0;
	const char *rest;

	(void)bytes;
	if (number(value, &n, &rest))
		for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++)
			if (!strcmp(rest, unit[i].name) && n <= 86400000 / unit[i].ms)
				ms = n * unit[i].ms;
	if (!ms)
		return config_wrong(p,
				    "%s: '%s' is no time; say one from 1ms to 24h (ms, s, min, h)",
				    key, value);
	*(uint32_t *)at = (uint32_t)ms;
	return true;
}

bool config_set_seconds(struct parser *p, const char *key, const char *value, void *at,
			size_t bytes)
{
	uint32_t ms;

	if (!strcmp(value, "never")) {
		*(uint32_t *)at = 0;
		return true;
	}
	if (!config_set_ms(p, key, value, &ms, bytes))
		return false;
	if (ms % 1000)
		return config_wrong(p, "%s: '%s' is not in whole seconds", key, value);
	*(uint32_t *)at = ms / 1000;
	return true;
}

bool config_set_bool(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	(void)bytes;
	if (strcmp(value, "yes") && strcmp(value, "no"))
		return config_wrong(p, "%s: '%s' is neither yes nor no", key, value);
	*(bool *)at = !strcmp(value, "yes");
	return true;
}

bool config_set_threads(struct parser *p, const char *key, const char *value, void *at,
			size_t bytes)
{
	const char *rest;
	uint64_t n;

	(void)bytes;
	if (!number(value, &n, &rest) || *rest || n > 4096)
		return config_wrong(p, "%s: '%s' is no number from 0 (all cores) to 4096", key,
				    value);
	*(uint32_t *)at = (uint32_t)n;
	return true;
}

bool config_set_node(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	const char *rest;
	uint64_t n;

	(void)bytes;
	if (!strcmp(value, "any")) {
		*(int32_t *)at = -1;
		return true;
	}
	if (!number(value, &n, &rest) || *rest || n > 4096)
		return config_wrong(p, "%s: '%s' is no NUMA node; say its number, or any", key,
				    value);
	*(int32_t *)at = (int32_t)n;
	return true;
}

bool config_set_device(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	const char *rest = "x";
	uint64_t n;

	if ((strncmp(value, "cpu:", 4) && strncmp(value, "gpu:", 4)) ||
	    !number(value + 4, &n, &rest) || *rest || n > 4096)
		return config_wrong(p, "%s: '%s' is no device; say cpu:N or gpu:N, counted from 0",
				    key, value);
	return config_set_text(p, key, value, at, bytes);
}

bool config_set_url(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	const char *colon = strstr(value, "://");

	if (!colon || colon == value || !colon[3] || strchr(value, '?'))
		return config_wrong(
			p,
			"%s: '%s' is no URL without settings; say shm://NAME, tcp://HOST:PORT "
			"or verbs://HOST:PORT",
			key, value);
	return config_set_text(p, key, value, at, bytes);
}

bool config_set_metrics(struct parser *p, const char *key, const char *value, void *at,
			size_t bytes)
{
	const char *colon = strrchr(value, ':'), *rest = "x";
	uint64_t port;

	if (!strcmp(value, "none"))
		return config_set_text(p, key, "", at, bytes);
	if (!strncmp(value, "unix:", 5)
		    ? value[5] != '/'
		    : !colon || colon == value || !number(colon + 1, &port, &rest) || *rest ||
			      port > 65535)
		return config_wrong(p, "%s: '%s' is no address; say HOST:PORT, unix:/PATH or none",
				    key, value);
	return config_set_text(p, key, value, at, bytes);
}

/* One of many: said once for each. */
bool config_set_trust(struct parser *p, const char *key, const char *value, void *at, size_t bytes)
{
	struct config *c = p->config;

	(void)at;
	(void)bytes;
	if (c->ntrusted == CONFIG_MAX)
		return config_wrong(p, "%s: more than %d keys", key, CONFIG_MAX);
	for (uint32_t i = 0; i < c->ntrusted; i++)
		if (!strcmp(c->trusted[i], value))
			return config_wrong(p, "%s: '%s' is said twice", key, value);
	if (!config_set_path(p, key, value, c->trusted[c->ntrusted], sizeof(c->trusted[0])))
		return false;
	c->ntrusted++;
	return true;
}
