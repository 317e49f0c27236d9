/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE 1024

static const char *the_program = "penstockd";
static bool to_journal;

/* $JOURNAL_STREAM is "device:inode" of a stderr that goes to the journal. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void log_begin(const char *program)
{
	the_program = program;
	to_journal = stderr_is_journal();
}

static size_t begin_line(char *line, int priority)
{
	static const char *const word[] = {"emergency", "alert",  "critical", "error",
					   "warning",	"notice", "info",     "debug"};
	struct timespec t;
	struct tm tm;
	size_t n;

	if (to_journal)
		return (size_t)snprintf(line, LINE, "<%d>", LOG_PRI(priority));
	clock_gettime(CLOCK_REALTIME, &t);
	localtime_r(&t.tv_sec, &tm);
	n = strftime(line, LINE, "%Y-%m-%d %H:%M:%S", &tm);
	return n + (size_t)snprintf(line + n, LINE - n, ".%03ld %s %s: ", t.tv_nsec / 1000000,
				    the_program, word[LOG_PRI(priority)]);
}

static size_t add(char *line, size_t at, const char *fmt, va_list ap)
{
	int n = vsnprintf(line + at, LINE - at, fmt, ap);

	if (n < 0)
		return at;
	return at + (size_t)n < LINE - 1 ? at + (size_t)n : LINE - 2;
}

void log_line(int priority, const char *fields, const char *fmt, ...)
{
	int saved = errno;
	char line[LINE];
	size_t at = begin_line(line, priority), from = at;
	va_list ap;

	va_start(ap, fmt);
	at = add(line, at, fmt, ap);
	va_end(ap);
	if (fields && at < LINE - 2) {
		int n = snprintf(line + at, LINE - at, " %s", fields);

		at = at + (size_t)n < LINE - 1 ? at + (size_t)n : LINE - 2;
	}
	for (; from < at; from++)
		if ((unsigned char)line[from] < 0x20 || line[from] == 0x7f)
			line[from] = ' ';
	line[at++] = '\n';
	if (write(STDERR_FILENO, line, at) < 0) {
		/* there is nobody to tell */
	}
	errno = saved;
}
