/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakedoor.h - a door that answers what a test wants: penstock/door.h over a socket, served by a
 * thread of the test, without a daemon behind it.
 *
 * Between fakedoor_go() and fakedoor_pause() it serves; else, as after fakedoor_open(), its lists,
 * answers and errors are the test's to change, and what came in last for each command is there to
 * be looked at.
 */
#ifndef TEST_FAKEDOOR_H
#define TEST_FAKEDOOR_H

#include <penstock/door.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_COMMANDS (PST_CMD_END - PST_CMD_BASE)
#define FAKE_SESSIONS 16
#define FAKE_EVENTS   512

struct fake_command {
	void *row; /* of a STAT command: its objects, in the order of their ids */
	size_t rows;
	const void *answer; /* of another: the struct that goes back; NULL: what came */
	int rc;		    /* not 0: the answer */
	const char *why;
	unsigned int calls;
	unsigned char last[PST_DOOR_MAX]; /* the struct that came last */
	uint64_t fd_bytes[PST_DOOR_FDS];  /* size of the files that came with it */
};

struct fake_session {
	int fd, rc;
	uint32_t cmd;
	const char *why;
};

struct fakedoor {
	struct fake_command command[FAKE_COMMANDS];
	struct pst_event event[FAKE_EVENTS];
	size_t events;
	unsigned int die_after; /* requests, 0: lives on */
	bool circles;		/* lists begin again instead of ending */
	bool mute;		/* takes requests and never answers */
	uint64_t grow;		/* rows, moved bytes and busy time that workers gain by each look */

	pthread_mutex_t lock; /* held by the test, or by the thread while it serves */
	pthread_t thread;
	char path[108];
	int listen, wake[2];
	bool serves, dead;
	unsigned int requests;
	struct fake_session session[FAKE_SESSIONS];
	struct {
		int fd;
		size_t next;
	} reader[FAKE_SESSIONS];
};

/* Fails the test when it cannot. */
void fakedoor_open(struct fakedoor *f, const char *path);
void fakedoor_go(struct fakedoor *f);
void fakedoor_pause(struct fakedoor *f);
/* It goes away with every connection, as a daemon that is killed; it may be opened again. */
void fakedoor_close(struct fakedoor *f);
/* Happens now, for those who read events. */
void fakedoor_event(struct fakedoor *f, const struct pst_event *e);

static inline struct fake_command *fake_at(struct fakedoor *f, uint32_t cmd)
{
	return &f->command[cmd - PST_CMD_BASE];
}

#endif /* TEST_FAKEDOOR_H */
