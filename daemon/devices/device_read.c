/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/devices/device.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_text(const char *root, char *to, size_t size, const char *fmt, va_list ap)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s", root), fd;
	ssize_t got = 1;
	size_t have = 0;

	to[0] = '\0';
	vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	while (have < size - 1 && (got = read(fd, to + have, size - 1 - have)) > 0)
		have += (size_t)got;
	n = got < 0 ? -errno : 0;
	close(fd);
	while (have && isspace((unsigned char)to[have - 1]))
		have--;
	to[n ? 0 : have] = '\0';
	return n ? n : (int)have;
}

int device_text(const char *root, char *to, size_t size, const char *fmt, ...)
{
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = read_text(root, to, size, fmt, ap);
	va_end(ap);
	return rc;
}

uint64_t device_number(const char *root, const char *fmt, ...)
{
	char text[64], *end;
	unsigned long long v;
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = read_text(root, text, sizeof(text), fmt, ap);
	va_end(ap);
	if (rc <= 0 || !isdigit((unsigned char)text[0]))
		return PST_UNKNOWN;
	errno = 0;
	v = strtoull(text, &end, 10);
	return *end || errno ? PST_UNKNOWN : v;
}

uint64_t device_field(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	unsigned long long v;
	char *end;

	if (!at)
		return PST_UNKNOWN;
	at += strlen(name);
	v = strtoull(at, &end, 10);
	return end == at ? PST_UNKNOWN : v;
}

int device_cpulist(const char *list, cpu_set_t *out)
{
	char *end;

	CPU_ZERO(out);
	while (*list) {
		long first = strtol(list, &end, 10), last = first;

		if (end == list || first < 0)
			return -EINVAL;
		list = end;
		if (*list == '-') {
			last = strtol(++list, &end, 10);
			if (end == list || last < first)
				return -EINVAL;
			list = end;
		}
		for (; first <= last && first < CPU_SETSIZE; first++)
			CPU_SET(first, out);
		if (*list == ',')
			list++;
		else if (*list)
			return -EINVAL;
	}
	return 0;
}

int device_write(const char *root, const char *path, const char *value)
{
	char whole[PATH_MAX];
	int fd, rc = 0;

	snprintf(whole, sizeof(whole), "%s%s", root, path);
	fd = open(whole, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}
