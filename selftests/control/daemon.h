/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.h - a penstockd of this build for one test: with a config of its own, in a folder of its
 * own, gone with the test whatever becomes of it.
 *
 *	struct daemon d;
 *
 *	daemon_start(&d, "[pools]\nquota = 1G\n");
 *	control = daemon_connect(&d);
 *	...
 *	EXPECT_EQ(0, daemon_stop(&d));
 */
#ifndef TEST_DAEMON_H
#define TEST_DAEMON_H

#include "runtime/penstock.h"
#include "selftests/lib/test.h"

#include <penstock/door.h>

struct daemon {
	pid_t pid;		    /* 0: it does not run */
	char folder[64];	    /* in the test's */
	char config[128];	    /* its config, to be written again before a SIGHUP */
	char socket[108];	    /* where it answers */
	char says[128];		    /* a file with what it logged */
	const char *args[8];	    /* more options, before daemon_run(); NULL ends them */
	void (*prepare)(void *arg); /* in its process, before it is penstockd; NULL: nothing */
	void *prepare_arg;
};

/*
 * @config: text, NULL: none. What it does not say of [daemon] is for tests: metrics = none. It is
 * there when this returns; the test fails if it does not come.
 */
void daemon_start(struct daemon *d, const char *config);
/* In steps: choose the names, write the config, run. @d keeps its names for another run. */
void daemon_init(struct daemon *d);
void daemon_configure(const struct daemon *d, const char *config);
void daemon_run(struct daemon *d);
/* SIGTERM, and wait: exit status, or 128 + signal. What it logged is shown if that is not 0. */
int daemon_stop(struct daemon *d);
/* The same without waiting until it answers; it may refuse to begin: then daemon_wait(). */
void daemon_spawn(struct daemon *d);
int daemon_wait(struct daemon *d); /* exit status, or 128 + signal */
/* SIGKILL, and wait. */
void daemon_kill(struct daemon *d);
/* What it has logged; to be freed. */
char *daemon_says(const struct daemon *d);
/* Is @text in it? */
bool daemon_said(const struct daemon *d, const char *text);

/* Through the library; the test fails if it cannot. */
struct pst_control *daemon_connect(const struct daemon *d);
/* How many descriptors it has. */
int daemon_fds(const struct daemon *d);
/* A bare connected socket, for what the library does not send. */
int daemon_socket(const struct daemon *d);

/* Send @len bytes as they are; false: the door has closed. */
bool raw_send(int fd, const void *bytes, size_t len);
/* The next answer: its bytes, 0: the door has closed; -1: nothing within the time of a test. */
ssize_t raw_receive(int fd, void *bytes, size_t len);
/* A request with a struct, and its answer's rc; the struct as it came back is in @arg. */
int raw_call(int fd, uint32_t cmd, void *arg, uint32_t size);

/* In a child of user and group @id without other groups, as root only: its exit status. */
int as_user(uid_t id, int (*fn)(void *arg), void *arg);

/* Until @cond, for as long as a test may take. */
#define WAIT_FOR(cond)                \
	do {                          \
		while (!(cond))       \
			usleep(2000); \
	} while (0)

#endif /* TEST_DAEMON_H */
