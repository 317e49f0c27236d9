/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file descriptor store of systemd (sd_pid_notify_with_fds(3), FDSTORE=1).
 *
 * $FDSTORE says that there is one: systemd 254 and later set it for units with
 * FileDescriptorStoreMax=; for older ones the unit says it by Environment=FDSTORE=1100, since they
 * tell nobody, and a descriptor too many, or sent in vain, is closed without a word.
 */
#include "daemon/keep/keep_store.h"

#include "daemon/notify.h"
#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_FD 3
#define PREFIX	 "keep-"

static long number(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long n;

	if (!text || !*text)
		return 0;
	n = strtol(text, &end, 10);
	return *end || n < 0 ? 0 : n;
}

bool keep_store_has_systemd(void)
{
	return notify_wanted() && number("FDSTORE") > 0;
}

/* Sockets of the door may be in the same row, under other names. */
static int open_store(struct keep_store *s, keep_store_fn *fn, void *ctx, struct pst_error *err)
{
	const char *names = getenv("LISTEN_FDNAMES");
	long n = number("LISTEN_PID") == getpid() ? number("LISTEN_FDS") : 0;

	(void)s, (void)err;
	for (int fd = FIRST_FD; names && fd < FIRST_FD + n; fd++) {
		size_t len = strcspn(names, ":");
		char name[32];

		if (len < sizeof(name) && !strncmp(names, PREFIX, strlen(PREFIX)) &&
		    fcntl(fd, F_SETFD, FD_CLOEXEC) >= 0) {
			memcpy(name, names, len);
			name[len] = '\0';
			fn(ctx, name, fd);
		}
		names = names[len] ? names + len + 1 : NULL;
	}
	return 0;
}

static void close_store(struct keep_store *s)
{
	(void)s;
}

static bool there(const struct keep_store *s)
{
	(void)s;
	return true;
}

static int begin(struct keep_store *s, struct pst_error *err)
{
	(void)s, (void)err;
	return 0;
}

/* FDPOLL=0: one whose other end is gone is the next daemon's to find out. */
static int put(struct keep_store *s, const char *name, int fd, struct pst_error *err)
{
	char state[96];
	int rc;

	(void)s;
	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	rc = notify_send(state, &fd, 1);
	if (rc)
		return pst_fail(err, rc, "keep: systemd does not take a descriptor: %s",
				strerror(-rc));
	return 0;
}

static void drop(struct keep_store *s, const char *name)
{
	char state[96];

	(void)s;
	snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	notify_send(state, NULL, 0);
}

const struct keep_store_ops keep_store_systemd = {
	.open = open_store,
	.close = close_store,
	.there = there,
	.begin = begin,
	.put = put,
	.drop = drop,
};
