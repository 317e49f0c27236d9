/* SPDX-License-Identifier: Apache-2.0 */
/* What the checks read, all of it under the root. */
#include "tools/perf/doctor.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool make_path(const struct doctor *d, char path[PATH_MAX], const char *fmt, va_list ap)
{
	int n = snprintf(path, PATH_MAX, "%s", d->root), m;

	if (n < 0 || n >= PATH_MAX)
		return false;
	m = vsnprintf(path + n, (size_t)(PATH_MAX - n), fmt, ap);
	return m >= 0 && m < PATH_MAX - n;
}

/* Files in /sys may refuse to be read, and those in /proc have no size. */
static int read_text(const char *path, char *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	size_t n = 0;

	if (fd < 0)
		return -errno;
	while (n < size - 1) {
		ssize_t got = read(fd, to + n, size - 1 - n);

		if (got < 0)
			rc = -errno;
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	close(fd);
	while (n && isspace((unsigned char)to[n - 1]))
		n--;
	to[n] = '\0';
	return rc ? rc : (int)n;
}

int doctor_read(const struct doctor *d, char *to, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	bool good;

	to[0] = '\0';
	va_start(ap, fmt);
	good = make_path(d, path, fmt, ap);
	va_end(ap);
	return good ? read_text(path, to, size) : -ENAMETOOLONG;
}

bool doctor_number(const struct doctor *d, long long *to, const char *fmt, ...)
{
	char path[PATH_MAX], text[64], *end;
	long long v;
	va_list ap;
	bool good;

	va_start(ap, fmt);
	good = make_path(d, path, fmt, ap);
	va_end(ap);
	if (!good || read_text(path, text, sizeof(text)) < 0)
		return false;
	v = strtoll(text, &end, 10);
	if (end == text)
		return false;
	*to = v;
	return true;
}

static int by_version(const void *a, const void *b)
{
	return strverscmp(a, b);
}

void doctor_list(const struct doctor *d, struct doctor_names *to, const char *fmt, ...)
{
	char path[PATH_MAX];
	struct dirent *e;
	va_list ap;
	DIR *dir;
	bool good;

	to->n = 0;
	va_start(ap, fmt);
	good = make_path(d, path, fmt, ap);
	va_end(ap);
	dir = good ? opendir(path) : NULL;
	while (dir && to->n < DOCTOR_NAMES && (e = readdir(dir)))
		if (e->d_name[0] != '.' && strlen(e->d_name) < sizeof(to->name[0]))
			strcpy(to->name[to->n++], e->d_name);
	if (dir)
		closedir(dir);
	qsort(to->name, to->n, sizeof(to->name[0]), by_version);
}

void doctor_link(const struct doctor *d, char *to, size_t size, const char *fmt, ...)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *last;
	va_list ap;
	ssize_t n;
	bool good;

	to[0] = '\0';
	va_start(ap, fmt);
	good = make_path(d, path, fmt, ap);
	va_end(ap);
	n = good ? readlink(path, target, sizeof(target) - 1) : -1;
	if (n <= 0)
		return;
	target[n] = '\0';
	last = strrchr(target, '/');
	snprintf(to, size, "%s", last ? last + 1 : target);
}

bool doctor_there(const struct doctor *d, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	bool good;

	va_start(ap, fmt);
	good = make_path(d, path, fmt, ap);
	va_end(ap);
	return good && !access(path, F_OK);
}

long long doctor_field(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = text; (at = strstr(at, name)); at += len)
		if (at[len] == ':' && (at == text || isspace((unsigned char)at[-1])))
			return strtoll(at + len + 1, NULL, 10);
	return 0;
}

const char *doctor_bytes(double bytes, char buf[24])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	int u = 0;

	for (; bytes >= 1024 && u < 4; u++)
		bytes /= 1024;
	snprintf(buf, 24, bytes < 10 && u && bytes != (int)bytes ? "%.1f %s" : "%.0f %s", bytes,
		 unit[u]);
	return buf;
}

void doctor_nodes(const struct doctor *d, struct doctor_names *to)
{
	size_t n = 0;

	doctor_list(d, to, "/sys/devices/system/node");
	for (size_t i = 0; i < to->n; i++)
		if (!strncmp(to->name[i], "node", 4) && isdigit((unsigned char)to->name[i][4]))
			memmove(to->name[n++], to->name[i], sizeof(to->name[0]));
	to->n = n;
}
