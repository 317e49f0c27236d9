/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_parser.h"

#include "rdma/fail.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <penstock/door.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1u << 20)

void config_defaults(struct config *config)
{
	memset(config, 0, sizeof(*config));
	snprintf(config->socket, sizeof(config->socket), "%s", PST_DOOR_SOCKET);
	snprintf(config->group, sizeof(config->group), "penstock");
	snprintf(config->metrics, sizeof(config->metrics), "127.0.0.1:9464");
	config->check_s = 60;
	config->trial_ms = 60000;
	config->silence_ms = 10000;
}

struct key {
	enum section section;
	const char *name;
	config_set_fn *set;
	size_t at, bytes; /* in struct config, config_worker or config_server */
	bool many;
};

#define IN(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)

static const struct key keys[] = {
	{DAEMON, "socket", config_set_path, IN(config, socket), false},
	{DAEMON, "group", config_set_text, IN(config, group), false},
	{DAEMON, "metrics", config_set_metrics, IN(config, metrics), false},
	{DAEMON, "key", config_set_path, IN(config, key), false},
	{POOLS, "quota", config_set_size, IN(config, quota_bytes), false},
	{KERNELS, "trust", config_set_trust, IN(config, trusted), true},
	{KERNELS, "unsigned", config_set_bool, IN(config, unsigned_ok), false},
	{KERNELS, "check", config_set_seconds, IN(config, check_s), false},
	{KERNELS, "trial", config_set_ms, IN(config, trial_ms), false},
	{CHILDREN, "silence", config_set_ms, IN(config, silence_ms), false},
	{WORKER, "device", config_set_device, IN(config_worker, device), false},
	{WORKER, "url", config_set_url, IN(config_worker, url), false},
	{WORKER, "threads", config_set_threads, IN(config_worker, threads), false},
	{SERVER, "url", config_set_url, IN(config_server, url), false},
	{SERVER, "threads", config_set_threads, IN(config_server, threads), false},
	{SERVER, "node", config_set_node, IN(config_server, node), false},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* "a, b, c": what may stand in a section. */
static const char *allowed(enum section section, char *out, size_t len)
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < KEYS; i++)
		if (keys[i].section == section && n < len)
			n += (size_t)snprintf(out + n, len - n, "%s%s", n ? ", " : "",
					      keys[i].name);
	return out;
}

static void *base_of(struct parser *p)
{
	struct config *c = p->config;

	return p->section == WORKER   ? (void *)&c->worker[c->nworkers - 1]
	       : p->section == SERVER ? (void *)&c->server[c->nservers - 1]
				      : (void *)c;
}

/* Sections are known already, from their own lines. */
static int on_value(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;
	char list[200];

	(void)section;
	if (p->failed)
		return 0;
	if (p->section == NONE)
		return config_wrong(p, "'%s' stands before the first [section]", name);
	for (size_t i = 0; i < KEYS; i++) {
		const struct key *key = &keys[i];

		if (key->section != p->section || strcmp(key->name, name))
			continue;
		if (p->seen[p->section] & 1ull << i && !key->many)
			return config_wrong(p, "%s is said twice", name);
		p->seen[p->section] |= 1ull << i;
		if (!value[0])
			return config_wrong(p, "%s: there is no value", name);
		return key->set(p, name, value, (char *)base_of(p) + key->at, key->bytes);
	}
	return config_wrong(p, "unknown key '%s'; here may stand: %s", name,
			    allowed(p->section, list, sizeof(list)));
}

static bool good_name(const char *name)
{
	size_t len = strlen(name);

	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
			return false;
	return len && len < 32;
}

static bool new_worker(struct parser *p, const char *name)
{
	struct config *c = p->config;
	struct config_worker *w = &c->worker[c->nworkers];

	for (uint32_t i = 0; i < c->nworkers; i++)
		if (!strcmp(c->worker[i].name, name))
			return config_wrong(p, "there is a worker '%s' already", name);
	if (c->nworkers == CONFIG_MAX)
		return config_wrong(p, "more than %d workers", CONFIG_MAX);
	memset(w, 0, sizeof(*w));
	snprintf(w->name, sizeof(w->name), "%s", name);
	snprintf(w->device, sizeof(w->device), "cpu:0");
	c->nworkers++;
	return true;
}

static bool new_server(struct parser *p, const char *name)
{
	struct config *c = p->config;
	struct config_server *s = &c->server[c->nservers];

	for (uint32_t i = 0; i < c->nservers; i++)
		if (!strcmp(c->server[i].name, name))
			return config_wrong(p, "there is a server '%s' already", name);
	if (c->nservers == CONFIG_MAX)
		return config_wrong(p, "more than %d servers", CONFIG_MAX);
	memset(s, 0, sizeof(*s));
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->node = -1;
	c->nservers++;
	return true;
}

/* What stands between the brackets: "daemon", "worker a". */
static bool begin_section(struct parser *p, char *what)
{
	static const char *const plain[] = {[DAEMON] = "daemon",
					    [POOLS] = "pools",
					    [KERNELS] = "kernels",
					    [CHILDREN] = "children"};
	char *name = what + strcspn(what, " \t");
	bool many;

	for (enum section s = DAEMON; s <= CHILDREN; s++)
		if (!strcmp(what, plain[s])) {
			p->section = s;
			return true;
		}
	if (*name)
		*name++ = '\0';
	name += strspn(name, " \t");
	many = !strcmp(what, "worker");
	if (!many && strcmp(what, "server"))
		return config_wrong(
			p,
			"unknown section [%s]; there may be daemon, pools, kernels, children, "
			"worker NAME and server NAME",
			what);
	if (!good_name(name))
		return config_wrong(
			p, "[%s NAME]: a name has 1 to 31 letters, digits, '_', '.' or '-'", what);
	p->section = many ? WORKER : SERVER;
	p->seen[p->section] = 0;
	return many ? new_worker(p, name) : new_server(p, name);
}

static void look_for_section(struct parser *p, const char *line)
{
	char what[INI_MAX_LINE], *end;

	if (*line != '[' || p->failed)
		return;
	snprintf(what, sizeof(what), "%s", line + 1);
	end = strchr(what, ']');
	if (!end) {
		config_wrong(p, "a section has no ']'");
		return;
	}
	if (end[1 + strspn(end + 1, " \t\r\n")] && end[1 + strspn(end + 1, " \t")] != ';') {
		config_wrong(p, "there is more behind the ']'");
		return;
	}
	*end = '\0';
	begin_section(p, what);
}

/*
 * As fgets(3). A line that does not fit would become two; one that begins with blanks, and so would
 * go on with the value above, stands for itself.
 */
static char *next_line(char *line, int bytes, void *stream)
{
	struct parser *p = stream;
	size_t len;

	if (!*p->text || p->failed)
		return NULL;
	p->line++;
	p->text += strspn(p->text, " \t");
	len = strcspn(p->text, "\n");
	if (len + 2 > (size_t)bytes) {
		config_wrong(p, "a line is longer than %d bytes", bytes - 2);
		return NULL;
	}
	len += p->text[len] == '\n';
	memcpy(line, p->text, len);
	line[len] = '\0';
	p->text += len;
	look_for_section(p, line);
	return line;
}

int config_parse(const char *path, const char *text, struct config *out, struct pst_error *err)
{
	struct config config;
	struct parser p = {.text = text, .config = &config};
	int line;

	config_defaults(&config);
	line = ini_parse_stream(next_line, &p, on_value, &p);
	/* inih goes on behind a line that it did not understand, and tells of it at the end */
	if (line > 0 && (!p.failed || (unsigned int)line < p.failed))
		return pst_fail(err, -EINVAL,
				"%s:%d: this is no [section], no key = value and no comment", path,
				line);
	if (p.failed)
		return pst_fail(err, -EINVAL, "%s:%u: %s", path, p.failed, p.why);
	if (line)
		return pst_fail(err, -ENOMEM, "%s: no memory to read it", path);
	*out = config;
	return 0;
}

static int check_file(const char *path, int fd, struct pst_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return pst_fail(err, -errno, "config %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pst_fail(err, -EINVAL, "config %s is no regular file", path);
	if (st.st_mode & S_IWOTH)
		return pst_fail(err, -EPERM,
				"config %s: everybody may write to it (to mend it: chmod o-w %s)",
				path, path);
	return 0;
}

/* All of it, and a NUL; the file may grow meanwhile. */
static int read_text(const char *path, int fd, char *text, struct pst_error *err)
{
	size_t at = 0;
	ssize_t n;

	while (at <= FILE_MAX && (n = read(fd, text + at, FILE_MAX + 1 - at)) != 0) {
		if (n < 0)
			return pst_fail(err, -errno, "config %s cannot be read: %s", path,
					strerror(errno));
		at += (size_t)n;
	}
	if (at > FILE_MAX || memchr(text, '\0', at))
		return pst_fail(err, -EINVAL, "config %s is no text of at most %u bytes", path,
				FILE_MAX);
	text[at] = '\0';
	return 0;
}

int config_read(const char *path, struct config *out, struct pst_error *err)
{
	char *text;
	int fd, rc;

	if (!path) {
		config_defaults(out);
		return 0;
	}
	text = malloc(FILE_MAX + 1);
	if (!text)
		return pst_fail(err, -ENOMEM, "config %s: no memory", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	rc = fd < 0 ? pst_fail(err, -errno, "config %s cannot be read: %s", path, strerror(errno))
		    : check_file(path, fd, err);
	if (!rc)
		rc = read_text(path, fd, text, err);
	if (!rc)
		rc = config_parse(path, text, out, err);
	if (fd >= 0)
		close(fd);
	free(text);
	return rc;
}
