/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.h - run the programs of this build from a test, and hold them to what they promise.
 *
 * A command is one formatted string, its words apart by blanks; 'quotes' keep blanks in a word
 * and make an empty one. The first word is a program of the build folder, which is found from
 * where the test itself lies. What it says is kept, and whoever it leaves running is found.
 */
#ifndef TEST_PROGRAM_H
#define TEST_PROGRAM_H

#include "selftests/lib/sanitized.h"
#include "selftests/lib/test.h"

#include <jansson.h>
#include <sys/resource.h>

#define NOBODY 65534 /* who runs what must not be run as root */

struct program {
	pid_t pid;
	int out, err; /* files with what it says */
	char command[512];
};

/* What is not as usual; zeros: nothing. */
struct how {
	const char *kernels; /* PENSTOCK_KERNELS */
	const char *out;     /* a file in place of stdout; "-": closed */
	uid_t uid;	     /* who, instead of root */
	int limit_of;	     /* RLIMIT_*, with @limit */
	rlim_t limit;	     /* 0: as it is */
	const char *hide;    /* a folder in whose place it sees an empty one; as root */
};

struct ended {
	int code; /* exit status, 128 + signal, or -1: it had to be stopped */
	char *out, *err;
};

/* A file that tells the story of this tree, for training. */
#define TEXT "selftests/train/text.txt"

void program_start(struct program *p, const struct how *how, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/*
 * Wait for its end and for that of all that it started; fails the test when some are left, but for
 * what was started by these functions and is still to be waited for.
 */
void program_wait(struct program *p, int timeout_ms, struct ended *e);
/* What it has said to stdout so far; to be freed. */
char *program_said(const struct program *p);
bool program_runs(const struct program *p);

/*
 * A server or worker that others use meanwhile: started, and waited for until it listens; where,
 * to @url of @len bytes.
 */
void program_serve(struct program *p, char *url, size_t len, const struct how *how, const char *fmt,
		   ...) __attribute__((format(printf, 5, 6)));
/* End it, by @sig, and wait; @e: as from program_wait, NULL: it must end with status 0 or by @sig.
 */
void program_end(struct program *p, int sig, struct ended *e);

/* Start and wait, 60 s at most. */
struct ended program_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
struct ended program_run_how(const struct how *how, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void ended_free(struct ended *e);

/* Children of process @parent whose name begins with @name; their number. */
int program_children(pid_t parent, const char *name, pid_t *pid, int max);

/*
 * The command exits with @code (1 failed, 2 usage), says @text within exactly one
 * line on stderr that begins with its name, and no line of a result.
 */
void program_refused(const struct how *how, int code, const char *text, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The command succeeds; what it wrote to stdout as JSON. */
json_t *program_json(const struct how *how, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* loss_digest of a result; "none". Valid until the next call. */
const char *digest_of(const json_t *result);
double number_of(const json_t *result, const char *key);

void sleep_ms(double ms);
double now_ms(void);

/* A path below the test's own folder; eight of them are valid at a time. */
const char *in_tmp(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void write_file(const char *path, const void *data, size_t len);
char *read_file(const char *path, size_t *len);
bool same_files(const char *a, const char *b);
/* A shell command that must succeed. */
void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif /* TEST_PROGRAM_H */
