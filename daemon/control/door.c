/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/door.h"

#include "daemon/control/listen.h"
#include "daemon/control/session.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "rdma/fail.h"

#include <errno.h>
#include <grp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSIONS_MAX	  512
#define SESSIONS_PER_USER 64
#define PAUSE_MS	  100 /* before callers are taken in again when there was no descriptor */

struct door {
	struct penstockd *d;
	struct loop_source src;
	struct loop_timer again;
	struct listener listener;
	bool has_group;
	gid_t group; /* whose members may change things */
	TAILQ_HEAD(, session) sessions;
};

/* The door of a session is found from the daemon, which has one. */
static void session_gone(struct session *s)
{
	TAILQ_REMOVE(&s->d->door->sessions, s, on_door);
}

/* His groups as they were when he connected, the first too. */
static bool in_group(int fd, const struct caller *who, gid_t group)
{
	gid_t few[64], *many = few;
	socklen_t len = sizeof(few);
	bool found = who->gid == group;
	int rc = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &len);

	if (rc < 0 && errno == ERANGE) {
		many = malloc(len);
		rc = many ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &len) : -1;
	}
	for (size_t i = 0; !rc && !found && i < len / sizeof(gid_t); i++)
		found = many[i] == group;
	if (many != few)
		free(many);
	return found;
}

/* Root, whoever runs the daemon, and the group of the config. */
static bool may_change(const struct door *door, int fd, const struct caller *who)
{
	return !who->uid || who->uid == geteuid() ||
	       (door->has_group && in_group(fd, who, door->group));
}

static int who_is(const struct door *door, int fd, struct caller *out)
{
	socklen_t len = sizeof(struct ucred);
	struct ucred cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	out->uid = cred.uid;
	out->gid = cred.gid;
	out->pid = cred.pid;
	out->may_change = may_change(door, fd, out);
	return 0;
}

static bool has_room(const struct door *door, uid_t uid)
{
	unsigned int all = 0, his = 0;
	const struct session *s;

	TAILQ_FOREACH(s, &door->sessions, on_door)
	{
		all++;
		his += s->who.uid == uid;
	}
	return all < SESSIONS_MAX && (his < SESSIONS_PER_USER || !uid);
}

/* It answers to no command, since none was given yet. */
static void refuse(int fd, int rc)
{
	struct pst_door_answer answer = {.rc = rc};

	send(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static int take_in(struct door *door, int fd)
{
	struct session *s;
	struct caller who;
	int rc = who_is(door, fd, &who);

	if (rc < 0)
		return rc;
	if (!has_room(door, who.uid)) {
		log_line(LOG_WARNING, NULL, "user %u was refused: there are too many sessions",
			 who.uid);
		return -EUSERS;
	}
	rc = session_new(door->d, fd, &who, session_gone, &s);
	if (rc < 0)
		return rc;
	TAILQ_INSERT_TAIL(&door->sessions, s, on_door);
	return 0;
}

static void ready(struct loop_source *src, uint32_t events)
{
	struct door *door = (struct door *)((char *)src - offsetof(struct door, src));
	int fd = accept4(src->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), rc;

	(void)events;
	if (fd >= 0) {
		rc = take_in(door, fd);
		if (rc < 0)
			refuse(fd, rc);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	/* a caller who cannot be taken in is there in the next turn too */
	log_line(LOG_WARNING, NULL, "callers wait: %s", strerror(errno));
	loop_unwatch(door->d->loop, src);
	loop_after(door->d->loop, &door->again, PAUSE_MS);
}

static void watch_again(struct loop_timer *timer)
{
	struct door *door = (struct door *)((char *)timer - offsetof(struct door, again));

	if (loop_watch(door->d->loop, &door->src, EPOLLIN) < 0)
		loop_after(door->d->loop, &door->again, PAUSE_MS);
}

static void find_group(struct door *door)
{
	const char *name = door->d->config.group;
	const struct group *group = name[0] ? getgrnam(name) : NULL;

	door->has_group = group != NULL;
	if (group)
		door->group = group->gr_gid;
	else if (name[0])
		log_line(LOG_WARNING, NULL,
			 "there is no group '%s', so only root may change things (to make it: "
			 "groupadd --system %s)",
			 name, name);
}

void door_reload(struct door *door)
{
	struct session *s;

	find_group(door);
	TAILQ_FOREACH(s, &door->sessions, on_door)
	s->who.may_change = may_change(door, s->src.fd, &s->who);
}

int door_open(struct penstockd *d, struct door **out, struct pst_error *err)
{
	struct door *door = calloc(1, sizeof(*door));
	int rc;

	if (!door)
		return pst_fail(err, -ENOMEM, "no memory for the door");
	door->d = d;
	door->src.ready = ready;
	door->again.fire = watch_again;
	TAILQ_INIT(&door->sessions);
	find_group(door);
	door->listener.fd = notify_listening();
	if (door->listener.fd < 0) {
		rc = listener_open(d->config.socket, &door->listener, err);
		if (rc)
			goto free_door;
	}
	door->src.fd = door->listener.fd;
	rc = loop_watch(d->loop, &door->src, EPOLLIN);
	if (rc) {
		pst_fail(err, rc, "socket %s cannot be watched: %s", d->config.socket,
			 strerror(-rc));
		goto close_listener;
	}
	*out = door;
	return 0;

close_listener:
	listener_close(&door->listener);
free_door:
	free(door);
	return rc;
}

void door_close(struct door *door)
{
	struct session *s;

	if (!door)
		return;
	loop_unwatch(door->d->loop, &door->src);
	loop_cancel(door->d->loop, &door->again);
	while ((s = TAILQ_FIRST(&door->sessions)))
		session_close(s);
	listener_close(&door->listener);
	free(door);
}
