/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/kernels/trial.h"

#include "daemon/spawn.h"
#include "rdma/fail.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

struct trial {
	struct loop *loop;
	struct trial_order how;
	pid_t pid;
	struct loop_source said, ended; /* its socket, its pidfd */
	struct loop_timer limit;
	bool hung;
	struct trial_report last; /* what it was about to do, or the end */
	trial_fn *done;
	void *ctx;
};

/* Its process is gone, or is made to go; nothing of it stays. */
static void bury(struct trial *t, siginfo_t *end)
{
	loop_unwatch(t->loop, &t->said);
	loop_unwatch(t->loop, &t->ended);
	loop_cancel(t->loop, &t->limit);
	kill(-t->pid, SIGKILL);
	kill(t->pid, SIGKILL);
	while (waitid(P_PID, (id_t)t->pid, end, WEXITED) && errno == EINTR)
		;
	close(t->said.fd);
	if (t->ended.fd >= 0)
		close(t->ended.fd);
}

static void where(const struct trial_report *at, char *text, size_t len)
{
	static const char *const doing[TRIAL_CHECKS] = {"before it began",
							"while it was loaded",
							"when it was held against ref",
							"when it was held to its buffers",
							"when it was timed",
							"at the end"};

	if (at->check <= TRIAL_LOAD || at->check == TRIAL_END)
		snprintf(text, len, "%s", doing[at->check]);
	else
		snprintf(text, len, "%s (m %u, n %u, k %u)", doing[at->check], at->m, at->n, at->k);
}

static int say_dead(const struct trial *t, const siginfo_t *end, struct pst_error *err)
{
	const char *sig = sigabbrev_np(end->si_status);
	char at[96];

	where(&t->last, at, sizeof(at));
	if (t->hung || (end->si_code != CLD_EXITED && end->si_status == SIGXCPU))
		return pst_fail(err, -ETIME, "kernel %s: hung %s: no end within %u ms", t->how.name,
				at, t->how.limit_ms);
	if (t->last.check == TRIAL_BEGIN)
		return pst_fail(err, -ECHILD,
				"kernel %s: its trial ended before it began (%s %d); see that "
				"penstock-trial can run",
				t->how.name, end->si_code == CLD_EXITED ? "exit status" : "signal",
				end->si_status);
	if (end->si_code == CLD_EXITED)
		return pst_fail(err, -ECHILD, "kernel %s: ended its process %s, exit status %d",
				t->how.name, at, end->si_status);
	return pst_fail(err, t->last.check == TRIAL_LOAD ? -ENOEXEC : -ECHILD,
			"kernel %s: crashed %s: SIG%s", t->how.name, at, sig ? sig : "?");
}

static void finish(struct trial *t)
{
	struct pst_error err = {0};
	siginfo_t end = {0};
	int rc = 0;

	bury(t, &end);
	if (t->last.check != TRIAL_END)
		rc = say_dead(t, &end, &err);
	else if (t->last.error.code)
		rc = pst_fail(&err, t->last.error.code, "kernel %s: %s", t->how.name,
			      t->last.error.text);
	t->done(t->ctx, rc, rc ? &err : NULL, &t->last);
	free(t);
}

/* What is wrong in a report is not looked at: the process may have written over its own memory. */
static bool sane(const struct trial_report *r, ssize_t n)
{
	return n == (ssize_t)sizeof(*r) && r->size == sizeof(*r) && r->check < TRIAL_CHECKS &&
	       r->error.code <= 0 && r->error.code > -4096 &&
	       memchr(r->error.text, 0, sizeof(r->error.text));
}

static void hear(struct trial *t)
{
	struct trial_report r;
	ssize_t n;

	while (t->last.check != TRIAL_END &&
	       (n = recv(t->said.fd, &r, sizeof(r), MSG_DONTWAIT)) > 0)
		if (sane(&r, n))
			t->last = r;
}

static void said_ready(struct loop_source *src, uint32_t events)
{
	struct trial *t = OF(struct trial, said, src);

	hear(t);
	if (t->last.check == TRIAL_END)
		finish(t);
	else if (events & (EPOLLHUP | EPOLLERR))
		loop_unwatch(t->loop, src);
}

static void ended_ready(struct loop_source *src, uint32_t events)
{
	struct trial *t = OF(struct trial, ended, src);

	(void)events;
	hear(t);
	finish(t);
}

static void limit_fired(struct loop_timer *timer)
{
	struct trial *t = OF(struct trial, limit, timer);

	hear(t);
	t->hung = t->last.check != TRIAL_END;
	finish(t);
}

static int send_order(int sock, const struct trial_order *how, int image, int before)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	size_t nfds = before >= 0 ? 2 : 1;
	struct iovec iov = {(void *)how, sizeof(*how)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fds[2] = {image, before};

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The order waits in the socket for a process that is not there yet. */
static int run(struct trial *t, int image, int before, struct pst_error *err)
{
	char number[16];
	const char *argv[] = {"penstock-trial", "--socket", number, NULL};
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return pst_fail(err, -errno, "no socket for a trial: %s", strerror(errno));
	rc = send_order(pair[0], &t->how, image, before);
	if (rc < 0)
		pst_fail(err, rc, "a trial cannot be told: %s", strerror(-rc));
	snprintf(number, sizeof(number), "%d", pair[1]);
	if (!rc)
		rc = spawn_program(argv, pair[1], &t->pid, err);
	close(pair[1]);
	if (rc < 0)
		close(pair[0]);
	else
		t->said.fd = pair[0];
	return rc;
}

static int watch(struct trial *t, struct pst_error *err)
{
	siginfo_t end = {0};
	int rc;

	t->ended.fd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	rc = t->ended.fd < 0 ? -errno : loop_watch(t->loop, &t->said, EPOLLIN);
	if (!rc)
		rc = loop_watch(t->loop, &t->ended, EPOLLIN);
	if (rc < 0) {
		bury(t, &end);
		return pst_fail(err, rc, "a trial cannot be watched: %s", strerror(-rc));
	}
	loop_after(t->loop, &t->limit, (int)t->how.limit_ms);
	return 0;
}

int trial_start(struct loop *loop, const struct trial_order *how, int image, int before,
		trial_fn *done, void *ctx, struct trial **out, struct pst_error *err)
{
	struct trial *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return pst_fail(err, -ENOMEM, "no memory for a trial");
	*t = (struct trial){
		.loop = loop,
		.how = *how,
		.said = {.fd = -1, .ready = said_ready},
		.ended = {.fd = -1, .ready = ended_ready},
		.limit = {.fire = limit_fired},
		.done = done,
		.ctx = ctx,
	};
	t->how.size = sizeof(t->how);
	t->how.before = before >= 0;
	rc = run(t, image, before, err);
	if (!rc)
		rc = watch(t, err);
	if (rc < 0) {
		free(t);
		return rc;
	}
	*out = t;
	return 0;
}

void trial_cancel(struct trial *t)
{
	siginfo_t end = {0};

	if (!t)
		return;
	bury(t, &end);
	free(t);
}
