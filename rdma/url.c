/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/url.h"
#include "rdma/fail.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#define LETTERS	  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS	  "0123456789"
#define CONNS_MAX PST_RAILS_MAX

enum { SHM = 1, TCP = 2, VERBS = 4, FAR = TCP | VERBS, ANY = SHM | FAR };

static const struct {
	const char *name;
	unsigned int bit;
} schemes[] = {{"shm", SHM}, {"tcp", TCP}, {"verbs", VERBS}};

/* A piece of the text that is being parsed. */
struct span {
	const char *at;
	size_t len;
};

struct parser {
	const char *text;
	unsigned int scheme; /* its bit */
	struct pst_url url;
	struct pst_error *err;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct parser *p, const char *fmt,
							...)
{
	char why[PST_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return pst_fail(p->err, -EINVAL, "\"%.120s%s\": %s", p->text,
			strlen(p->text) > 120 ? "..." : "", why);
}

/* For "%.*s": no more of it than a sentence has room for. */
static int shown(struct span s)
{
	return s.len < 80 ? (int)s.len : 80;
}

/* What is before the first @c, and *rest behind it; all of it, and *rest is nowhere. */
static struct span cut(struct span s, char c, struct span *rest)
{
	const char *end = s.len ? memchr(s.at, c, s.len) : NULL;

	*rest = (struct span){0};
	if (!end)
		return s;
	*rest = (struct span){end + 1, s.len - (size_t)(end - s.at) - 1};
	return (struct span){s.at, (size_t)(end - s.at)};
}

static bool is(struct span s, const char *word)
{
	return strlen(word) == s.len && !memcmp(s.at, word, s.len);
}

static bool only(struct span s, const char *chars)
{
	for (size_t i = 0; i < s.len; i++)
		if (!s.at[i] || !strchr(chars, s.at[i]))
			return false;
	return s.len > 0;
}

static void copy(char *to, struct span s)
{
	memcpy(to, s.at, s.len);
	to[s.len] = '\0';
}

/* Digits and nothing else, without an overflow. */
static bool number(struct span s, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!only(s, DIGITS) || s.len > 19)
		return false;
	for (size_t i = 0; i < s.len; i++)
		v = v * 10 + (uint64_t)(s.at[i] - '0');
	if (v < min || v > max)
		return false;
	*out = v;
	return true;
}

static int take_number(const struct parser *p, const char *name, struct span value, uint64_t min,
		       uint64_t max, uint64_t *out)
{
	if (number(value, min, max, out))
		return 0;
	return refuse(p, "%s=%.*s is not a whole number from %llu to %llu", name, shown(value),
		      value.at, (unsigned long long)min, (unsigned long long)max);
}

static int take_u32(const struct parser *p, const char *name, struct span value, uint64_t min,
		    uint64_t max, uint32_t *out)
{
	uint64_t v;
	int rc = take_number(p, name, value, min, max, &v);

	if (!rc)
		*out = (uint32_t)v;
	return rc;
}

static int take_bool(const struct parser *p, const char *name, struct span value, bool *out)
{
	if (!is(value, "0") && !is(value, "1"))
		return refuse(p, "%s=%.*s is neither 0 nor 1", name, shown(value), value.at);
	*out = value.at[0] == '1';
	return 0;
}

static int set_timeout(struct parser *p, struct span v)
{
	return take_u32(p, "timeout", v, 100, 600000, &p->url.set.timeout_ms);
}

static int set_links(struct parser *p, struct span v)
{
	return take_u32(p, "links", v, 1, 65535, &p->url.set.links);
}

static int set_conns(struct parser *p, struct span v)
{
	return take_u32(p, "conns", v, 1, CONNS_MAX, &p->url.set.conns);
}

static int set_chunk(struct parser *p, struct span v)
{
	uint64_t chunk;
	int rc = take_number(p, "chunk", v, 4096, 1ull << 40, &chunk);

	if (rc)
		return rc;
	if (chunk % 4096)
		return refuse(p, "chunk=%.*s is no multiple of 4096", shown(v), v.at);
	p->url.set.chunk = chunk;
	return 0;
}

static int set_crc(struct parser *p, struct span v)
{
	return take_bool(p, "crc", v, &p->url.set.crc);
}

static int set_poll(struct parser *p, struct span v)
{
	return take_bool(p, "poll", v, &p->url.set.poll);
}

static int set_map(struct parser *p, struct span v)
{
	return take_bool(p, "map", v, &p->url.set.map);
}

static int set_io(struct parser *p, struct span v)
{
	if (!is(v, "auto") && !is(v, "uring") && !is(v, "epoll"))
		return refuse(p, "io=%.*s is none of auto, uring, epoll", shown(v), v.at);
	copy(p->url.set.io, v);
	return 0;
}

static int set_dev(struct parser *p, struct span v)
{
	struct span rest = v, one;
	int n = 0;

	if (v.len >= sizeof(p->url.set.dev))
		return refuse(p, "dev= may have %zu characters", sizeof(p->url.set.dev) - 1);
	do {
		one = cut(rest, ',', &rest);
		if (!only(one, LETTERS DIGITS "_-."))
			return refuse(p, "dev=%.*s is no list of devices, such as mlx5_0,mlx5_1",
				      shown(v), v.at);
		if (++n > PST_RAILS_MAX)
			return refuse(p, "dev= has more than %d devices", PST_RAILS_MAX);
	} while (rest.at);
	copy(p->url.set.dev, v);
	return 0;
}

static int set_key(struct parser *p, struct span v)
{
	if (!v.len || v.len >= sizeof(p->url.set.key))
		return refuse(p, "key= takes the path of a file, up to %zu characters",
			      sizeof(p->url.set.key) - 1);
	copy(p->url.set.key, v);
	return 0;
}

static const struct setting {
	const char *name;
	unsigned int schemes;
	int (*set)(struct parser *p, struct span value);
} settings[] = {
	{"chunk", VERBS, set_chunk},   {"conns", TCP, set_conns}, {"crc", ANY, set_crc},
	{"dev", VERBS, set_dev},       {"io", TCP, set_io},	  {"key", FAR, set_key},
	{"links", ANY, set_links},     {"map", SHM, set_map},	  {"poll", ANY, set_poll},
	{"timeout", FAR, set_timeout},
};

#define NSETTINGS (sizeof(settings) / sizeof(settings[0]))

static const struct setting *find_setting(struct span name)
{
	for (size_t i = 0; i < NSETTINGS; i++)
		if (is(name, settings[i].name))
			return &settings[i];
	return NULL;
}

static int no_setting(const struct parser *p, struct span name)
{
	char list[128] = "";
	size_t at = 0;

	for (size_t i = 0; i < NSETTINGS; i++)
		if (settings[i].schemes & p->scheme)
			at += (size_t)snprintf(list + at, sizeof(list) - at, " %s",
					       settings[i].name);
	return refuse(p, "%s:// has no setting \"%.*s\"; it has%s", p->url.scheme, shown(name),
		      name.at, list);
}

static int parse_settings(struct parser *p, struct span rest)
{
	unsigned int seen = 0;

	while (rest.at) {
		struct span value, name = cut(cut(rest, '&', &rest), '=', &value);
		const struct setting *s = find_setting(name);
		unsigned int bit;
		int rc;

		if (!value.at)
			return refuse(p, "\"%.*s\" is no setting; write ?name=value&name=value",
				      shown(name), name.at);
		if (!s || !(s->schemes & p->scheme))
			return no_setting(p, name);
		bit = 1u << (s - settings);
		if (seen & bit)
			return refuse(p, "%s= is there twice", s->name);
		seen |= bit;
		rc = s->set(p, value);
		if (rc)
			return rc;
	}
	return 0;
}

/* Inside the brackets: an IPv6 address, with a zone or without. */
static bool good_ipv6(struct span s)
{
	struct span zone, addr = cut(s, '%', &zone);
	char text[INET6_ADDRSTRLEN];
	struct in6_addr in6;

	if (addr.len >= sizeof(text) || (zone.at && !only(zone, LETTERS DIGITS "_-.")))
		return false;
	copy(text, addr);
	return inet_pton(AF_INET6, text, &in6) == 1;
}

/* One host at the beginning of @rest, which moves past it. */
static int take_host(struct parser *p, struct span *rest)
{
	char *to = p->url.host[p->url.hosts];
	bool bracket = rest->len && rest->at[0] == '[';
	struct span host = {rest->at, 0}, after;

	if (bracket) {
		host = cut((struct span){rest->at + 1, rest->len - 1}, ']', &after);
		if (!after.at || !good_ipv6(host))
			return refuse(p, "\"%.*s\" is no IPv6 address in brackets", shown(*rest),
				      rest->at);
	} else {
		while (host.len < rest->len && host.at[host.len] != ',' && host.at[host.len] != ':')
			host.len++;
		after = (struct span){host.at + host.len, rest->len - host.len};
		if (!only(host, LETTERS DIGITS "_-."))
			return refuse(p, "\"%.*s\" is no host", shown(host), host.at);
	}
	if (host.len >= sizeof(p->url.host[0]))
		return refuse(p, "a host may have %zu characters", sizeof(p->url.host[0]) - 1);
	copy(to, host);
	p->url.hosts++;
	*rest = after;
	return 0;
}

static int take_port(struct parser *p, struct span rest)
{
	uint64_t port;

	if (memchr(rest.at, ',', rest.len))
		return refuse(p, "one port for all hosts stands behind the last");
	if (memchr(rest.at, ':', rest.len))
		return refuse(p, "an IPv6 address stands in brackets: [fe80::1%%eth0]");
	if (rest.len > 5 || !number(rest, 0, 65535, &port))
		return refuse(p, "\"%.*s\" is no port from 0 to 65535", shown(rest), rest.at);
	p->url.port = (uint16_t)port;
	return 0;
}

static int parse_hosts(struct parser *p, struct span rest)
{
	int rc;

	/* pst_fabric_open needs no host */
	if (!rest.len)
		return 0;
	if (rest.at[0] == ':')
		return refuse(p, "no host; 0.0.0.0 or [::] listens on every interface");
	for (;;) {
		if (p->url.hosts == (p->scheme == VERBS ? PST_RAILS_MAX : 1))
			return refuse(p, "%s:// takes no more than %u hosts", p->url.scheme,
				      p->url.hosts);
		rc = take_host(p, &rest);
		if (rc || !rest.len)
			return rc;
		if (rest.at[0] == ':')
			return take_port(p, (struct span){rest.at + 1, rest.len - 1});
		if (rest.at[0] != ',')
			return refuse(p, "\"%.*s\" is behind a host", shown(rest), rest.at);
		rest = (struct span){rest.at + 1, rest.len - 1};
	}
}

static int parse_scheme(struct parser *p, struct span *rest)
{
	const char *end = strstr(p->text, "://");
	struct span scheme = {p->text, end ? (size_t)(end - p->text) : 0};

	for (size_t i = 0; end && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (!is(scheme, schemes[i].name))
			continue;
		p->scheme = schemes[i].bit;
		copy(p->url.scheme, scheme);
		*rest = (struct span){end + 3, strlen(end + 3)};
		return 0;
	}
	return refuse(p, "no fabric; write shm://NAME, tcp://HOST:PORT or verbs://HOST:PORT");
}

/* Sentences quote the text, so it must be one that a terminal can show. */
static int check_text(const char *text, struct pst_error *err)
{
	if (!text || strlen(text) >= PST_URL_MAX)
		return pst_fail(err, -EINVAL, "the URL of a fabric has 1 to %d characters",
				PST_URL_MAX - 1);
	for (const char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			return pst_fail(err, -EINVAL,
					"the URL of a fabric has no control characters, but there "
					"is %#x behind %td others",
					(unsigned char)*c, c - text);
	return 0;
}

int pst_url_parse(const char *text, struct pst_url *out, struct pst_error *err)
{
	struct parser p = {
		.text = text,
		.err = err,
		.url = {.port = PST_DEFAULT_PORT,
			.set = {.timeout_ms = 2000,
				.links = 1024,
				.conns = 1,
				.chunk = 1ull << 30,
				.crc = true,
				.map = true,
				.io = "auto"}},
	};
	struct span rest, name, set;
	int rc = check_text(text, err);

	if (!rc)
		rc = parse_scheme(&p, &rest);
	if (rc)
		return rc;
	name = cut(rest, '?', &set);
	copy(p.url.name, name);
	rc = p.scheme == SHM ? 0 : parse_hosts(&p, name);
	if (!rc)
		rc = parse_settings(&p, set);
	if (!rc)
		*out = p.url;
	return rc;
}
