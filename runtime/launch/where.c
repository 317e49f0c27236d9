/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/where.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES 32

static bool is_shm(const struct pst_where *w)
{
	return !strcmp(w->scheme, "shm");
}

/* What is in front of ://, if there is such a thing. */
static size_t scheme_length(const char *text)
{
	const char *end = strstr(text, "://");

	return end ? (size_t)(end - text) : 0;
}

static int take_scheme(struct pst_where *w, const char *text, size_t n, struct pst_error *err)
{
	if (!n || n >= sizeof(w->scheme) || memchr(text, '/', n) || memchr(text, ':', n))
		return pst_fail(err, -EINVAL,
				"fabric \"%s\": a name is wanted, with settings if need be: shm, "
				"tcp?timeout=5000, verbs",
				text);
	memcpy(w->scheme, text, n);
	w->scheme[n] = 0;
	return 0;
}

static int choose_fabric(struct pst_where *w, const struct pst_where_options *o,
			 struct pst_error *err)
{
	size_t n;

	if (o->fabric) {
		n = strcspn(o->fabric, "?");
		if ((size_t)snprintf(w->settings, sizeof(w->settings), "%s", o->fabric + n) >=
		    sizeof(w->settings))
			return pst_fail(err, -EINVAL, "fabric \"%.40s...\": longer than %zu bytes",
					o->fabric, sizeof(w->settings) - 1);
		return take_scheme(w, o->fabric, n, err);
	}
	for (unsigned int i = 0; i < o->npeers; i++) {
		n = scheme_length(o->peers[i]);
		if (n)
			return take_scheme(w, o->peers[i], n, err);
	}
	if (o->npeers)
		return pst_fail(err, -EINVAL,
				"%s: over which fabric? Say tcp://%s, or name it beside "
				"(--fabric tcp)",
				o->peers[0], o->peers[0]);
	return take_scheme(w, "shm", 3, err);
}

static bool has_setting(const char *settings, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = settings; *p; p += strcspn(p, "?&")) {
		p += strspn(p, "?&");
		if (!strncmp(p, name, n) && p[n] == '=')
			return true;
	}
	return false;
}

static int add_setting(char *text, size_t room, const char *name, const char *value,
		       struct pst_error *err)
{
	size_t at = strlen(text);
	int n = snprintf(text + at, room - at, "%c%s=%s", strchr(text, '?') ? '&' : '?', name,
			 value);

	if (n < 0 || (size_t)n >= room - at)
		return pst_fail(err, -EINVAL, "%s %.100s: too long beside the other settings", name,
				value);
	return 0;
}

/* The key of a user's into @text, settings or a URL with them. */
static int add_key(char *text, size_t room, const char *key, struct pst_error *err)
{
	if (has_setting(text, "key"))
		return pst_fail(err, -EINVAL, "key %s: the settings name one already (%s)", key,
				text);
	if (!*key || strpbrk(key, "?&"))
		return pst_fail(err, -EINVAL, "key \"%s\": %s", key,
				*key ? "a path with ? or & in it cannot stand in a URL"
				     : "a file is wanted");
	return add_setting(text, room, "key", key, err);
}

int pst_where_add_key(const char *url, const char *key, char out[PST_URL_MAX],
		      struct pst_error *err)
{
	char text[PST_URL_MAX];
	int rc = 0;

	if ((size_t)snprintf(text, sizeof(text), "%s", url) >= sizeof(text))
		return pst_fail(err, -EINVAL, "%.100s...: longer than %zu bytes", url,
				sizeof(text) - 1);
	if (key)
		rc = add_key(text, sizeof(text), key, err);
	if (!rc)
		strcpy(out, text);
	return rc;
}

/* In hexadecimal, so that nothing at its end looks like white space. */
static int write_key(int fd)
{
	unsigned char random[KEY_BYTES];
	char text[2 * KEY_BYTES + 1];
	bool whole = getrandom(random, sizeof(random), 0) == sizeof(random);

	for (int i = 0; i < KEY_BYTES && whole; i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	whole = whole && write(fd, text, 2 * KEY_BYTES) == 2 * KEY_BYTES;
	explicit_bzero(random, sizeof(random));
	explicit_bzero(text, sizeof(text));
	return whole ? 0 : -EIO;
}

/* Above the standard files, which are others in a child. */
static int open_memory(void)
{
	int low = memfd_create("penstock-key", MFD_CLOEXEC), fd;

	if (low < 0)
		return -errno;
	fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (fd < 0)
		fd = -errno;
	close(low);
	return fd;
}

static int make_key(struct pst_where *w, struct pst_error *err)
{
	int fd = open_memory(), rc = 0;
	char path[32];

	if (fd < 0)
		return pst_fail(err, fd, "no memory for a key: %s", strerror(-fd));
	if (fchmod(fd, 0600) || write_key(fd))
		rc = pst_fail(err, -EIO, "no random key for this run");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!rc)
		rc = add_setting(w->settings, sizeof(w->settings), "key", path, err);
	if (rc < 0)
		close(fd);
	else
		w->key_fd = fd;
	return rc;
}

static int choose_key(struct pst_where *w, const struct pst_where_options *o, struct pst_error *err)
{
	bool has = has_setting(w->settings, "key");

	if (o->key && is_shm(w))
		return pst_fail(err, -EINVAL,
				"key %s: shm has none, it lets in the same user and root", o->key);
	if (o->key)
		return add_key(w->settings, sizeof(w->settings), o->key, err);
	/* others that are to be reached have theirs already: the usual places say which */
	return has || is_shm(w) || o->npeers ? 0 : make_key(w, err);
}

/* A bare IPv6 address gets its brackets. */
static int take_host(struct pst_where *w, const char *host, struct pst_error *err)
{
	size_t at = 0;

	if (is_shm(w))
		return pst_fail(err, -EINVAL, "host %s: what is on shm is on this host", host);
	for (const char *p = host; at < sizeof(w->host);) {
		size_t n = strcspn(p, ",");
		bool bare = *p != '[' && memchr(p, ':', n);

		at += (size_t)snprintf(w->host + at, sizeof(w->host) - at, "%s%s%.*s%s",
				       p == host ? "" : ",", bare ? "[" : "", (int)n, p,
				       bare ? "]" : "");
		if (!p[n])
			break;
		p += n + 1;
	}
	if (at >= sizeof(w->host))
		return pst_fail(err, -EINVAL, "host %.100s...: too long", host);
	return 0;
}

static int check_host(const struct pst_where *w, struct pst_error *err)
{
	static const char *const any[] = {"0.0.0.0", "::"};
	char text[PST_URL_MAX];
	struct pst_url url;
	int rc;

	snprintf(text, sizeof(text), "%s://%s:0", w->scheme, w->host);
	rc = pst_url_parse(text, &url, err);
	if (rc < 0)
		return rc;
	for (unsigned int h = 0; h < url.hosts; h++)
		for (size_t i = 0; i < sizeof(any) / sizeof(*any); i++)
			if (!strcmp(url.host[h], any[i]))
				return pst_fail(err, -EINVAL,
						"host \"%s\": no address that others can be told; "
						"say one of this host's own (ip -br address)",
						w->host);
	return 0;
}

int pst_where_open(const struct pst_where_options *o, struct pst_where *out, struct pst_error *err)
{
	struct pst_where w = {.key_fd = -1};
	int rc = choose_fabric(&w, o, err);

	if (!rc && o->host)
		rc = take_host(&w, o->host, err);
	if (!rc && o->host)
		rc = check_host(&w, err);
	if (!rc)
		rc = choose_key(&w, o, err);
	if (!rc)
		*out = w;
	return rc;
}

void pst_where_close(struct pst_where *w)
{
	if (w->key_fd >= 0)
		close(w->key_fd);
	w->key_fd = -1;
}

void pst_where_fabric(const struct pst_where *w, char url[PST_URL_MAX])
{
	snprintf(url, PST_URL_MAX, "%s://engine%s", w->scheme, w->settings);
}

static int choose_host(struct pst_where *w, struct pst_error *err)
{
	char text[PST_URL_MAX];
	struct pst_url url;
	int rc;

	if (strcmp(w->scheme, "verbs")) {
		strcpy(w->host, "127.0.0.1");
		return 0;
	}
	pst_where_fabric(w, text);
	rc = pst_url_parse(text, &url, err);
	return rc < 0 ? rc : pst_where_rdma("/sys", url.set.dev, w->host, err);
}

int pst_where_listen(struct pst_where *w, const char *name, char url[PST_URL_MAX],
		     struct pst_error *err)
{
	int n, rc = 0;

	if (is_shm(w))
		n = snprintf(url, PST_URL_MAX, "shm://%s%s", name, w->settings);
	else if (!w->host[0] && (rc = choose_host(w, err)) < 0)
		return rc;
	else
		n = snprintf(url, PST_URL_MAX, "%s://%s:0%s", w->scheme, w->host, w->settings);
	if (n >= PST_URL_MAX)
		return pst_fail(err, -EINVAL, "%.100s...: too long", url);
	return 0;
}

int pst_where_peer(const struct pst_where *w, const char *peer, char url[PST_WIRE_URL],
		   struct pst_error *err)
{
	size_t scheme = scheme_length(peer);
	char text[PST_URL_MAX];
	struct pst_url parsed;
	int n, rc;

	if (strchr(peer, '?'))
		return pst_fail(err, -EINVAL,
				"%s: settings are the fabric's (--fabric %s?name=value), not a "
				"peer's",
				peer, w->scheme);
	if (scheme && (scheme != strlen(w->scheme) || strncmp(peer, w->scheme, scheme)))
		return pst_fail(err, -EINVAL, "%s: not of the %s fabric, as the others are", peer,
				w->scheme);
	n = scheme ? snprintf(text, sizeof(text), "%s", peer)
		   : snprintf(text, sizeof(text), "%s://%s", w->scheme, peer);
	if (n >= PST_WIRE_URL)
		return pst_fail(err, -EINVAL, "%.100s...: longer than %d bytes", peer,
				PST_WIRE_URL - 1);
	rc = pst_url_parse(text, &parsed, err);
	if (rc < 0)
		return rc;
	if (!is_shm(w) && (!parsed.hosts || !parsed.port))
		return pst_fail(err, -EINVAL, "%s: %s", peer,
				parsed.hosts ? "nobody listens at port 0" : "no host is named");
	memcpy(url, text, (size_t)n + 1);
	return 0;
}

static bool loopback(const char *host)
{
	return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

bool pst_where_local(const char *url)
{
	struct pst_url u;

	if (!strncmp(url, "shm:", 4))
		return true;
	if (pst_url_parse(url, &u, NULL) < 0)
		return false;
	for (unsigned int h = 0; h < u.hosts; h++)
		if (!loopback(u.host[h]))
			return false;
	return true;
}
