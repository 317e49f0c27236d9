/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "daemon/devices/devices.h"
#include "daemon/events.h"
#include "daemon/children/experts.h"
#include "daemon/log.h"
#include "daemon/spawn.h"
#include "daemon/children/tables.h"
#include "rdma/fail.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LATE_MS 250 /* by so much this process itself stood still */

/* Of <linux/wait.h>, which clashes with the C library's */
#define WAIT_PIDFD ((idtype_t)3)

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

bool child_runs(const struct child *ch)
{
	return ch->pid > 0;
}

static int signal_to(const struct child *ch, int sig)
{
	return syscall(SYS_pidfd_send_signal, ch->end.fd, sig, NULL, 0) ? -errno : 0;
}

void child_kill(struct child *ch)
{
	if (child_runs(ch))
		signal_to(ch, SIGKILL);
}

/* It is to be killed: nothing that it says counts any more. */
static void stop_listening(struct child *ch)
{
	ch->killed = true;
	loop_unwatch(ch->set->d->loop, &ch->leash);
}

void child_hung(struct child *ch, int64_t ms, const char *what)
{
	if (ch->killed)
		return;
	stop_listening(ch);
	ch->hung = true;
	snprintf(ch->why, sizeof(ch->why), "%s for %lld ms, and was killed", what, (long long)ms);
	events_emit(ch->set->d->events, PST_EVENT_HUNG, ch->id, ms, "%s %s (process %d)",
		    child_label(ch), ch->why, (int)ch->pid);
	child_kill(ch);
}

void child_broke(struct child *ch, const char *what)
{
	if (ch->killed)
		return;
	stop_listening(ch);
	snprintf(ch->why, sizeof(ch->why), "sent %s on its leash, and was killed", what);
	child_kill(ch);
}

void child_say_stop(struct child *ch)
{
	struct pst_leash m = LEASH_HEADER(m, STOP, ++ch->set->seq);

	ch->goal = GOAL_STOP;
	ch->last_order = m.seq;
	if (leash_send(ch->leash.fd, &m, -1) < 0)
		child_kill(ch);
}

/* Hearing and seeing */

void child_watch(struct child *ch)
{
	int ms = ch->greeted || ch->adopted ? (int)ch->set->d->config.silence_ms
					    : ch->set->times.start_ms;

	loop_after(ch->set->d->loop, &ch->quiet, ms);
}

/* Who stood still itself cannot say that another one did. */
static void on_quiet(struct loop_timer *timer)
{
	struct child *ch = OF(struct child, quiet, timer);
	int64_t late = loop_now_ms() - timer->at_ms, heard = ch->heard_ms;

	child_read(ch, true);
	if (heard != ch->heard_ms || ch->killed)
		return;
	if (late > LATE_MS && ch->leash.in)
		child_watch(ch);
	else
		child_hung(ch, loop_now_ms() - heard,
			   ch->greeted ? "gave no sign of life" : "did not listen");
}

static void on_leash(struct loop_source *src, uint32_t events)
{
	(void)events;
	child_read(OF(struct child, leash, src), false);
}

static void close_source(struct child *ch, struct loop_source *src)
{
	loop_unwatch(ch->set->d->loop, src);
	if (src->fd >= 0)
		close(src->fd);
	src->fd = -1;
}

void child_let_go(struct child *ch)
{
	loop_cancel(ch->set->d->loop, &ch->quiet);
	loop_cancel(ch->set->d->loop, &ch->next);
	close_source(ch, &ch->end);
	close_source(ch, &ch->leash);
	ch->pid = 0;
}

/* Its end */

struct end {
	bool known;
	int status, sig;
};

static struct end reap(struct child *ch)
{
	siginfo_t info = {0};
	struct end end = {0};

	if (waitid(WAIT_PIDFD, (id_t)ch->end.fd, &info, WEXITED | WNOHANG) || !info.si_pid)
		return end;
	end.known = true;
	if (info.si_code == CLD_EXITED)
		end.status = info.si_status;
	else
		end.sig = info.si_status;
	return end;
}

void child_reap(struct child *ch)
{
	if (child_runs(ch))
		reap(ch);
}

static void explain(struct child *ch, const struct end *end)
{
	if (*ch->why)
		memcpy(ch->death, ch->why, sizeof(ch->death));
	else if (end->sig)
		snprintf(ch->death, sizeof(ch->death), "was killed by signal %d (%s)", end->sig,
			 strsignal(end->sig));
	else if (end->known)
		snprintf(ch->death, sizeof(ch->death), "ended with exit status %d", end->status);
	else
		snprintf(ch->death, sizeof(ch->death),
			 "ended; its exit status went to the daemon that had started it");
}

/* What it counted stays, what it held is gone. */
static void settle(struct child *ch)
{
	ch->base.rows += ch->beat.rows;
	ch->base.calls += ch->beat.calls;
	ch->base.busy_ns += ch->beat.busy_ns;
	ch->base.pulled += ch->beat.pulled;
	ch->base.moved += ch->beat.moved;
	ch->base.copied += ch->beat.copied;
	ch->base.read_bytes += ch->beat.read_bytes;
	memset(&ch->beat, 0, sizeof(ch->beat));
	if (ch->role == PST_LEASH_WORKER)
		experts_died(ch->set->experts, ch->id);
	else
		tables_forget(ch->set->tables, ch->id);
}

static uint32_t recent_deaths(const struct child *ch, int64_t now)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < DEATHS && i < ch->ndeaths; i++)
		n += now - ch->deaths[i] < ch->set->times.minute_ms;
	return n;
}

/* Later and later; what fails again and again is tried once a minute. */
static void try_again(struct child *ch)
{
	const struct child_times *t = &ch->set->times;
	int64_t now = loop_now_ms();
	int ms = t->again_ms;
	uint32_t n;

	if (now - ch->spawned_ms >= t->minute_ms)
		ch->failed = false;
	ch->deaths[ch->ndeaths++ % DEATHS] = now;
	n = recent_deaths(ch, now);
	for (uint32_t i = 1; i < n && ms < t->again_max_ms; i++)
		ms *= 2;
	if (n >= DEATHS && !ch->failed) {
		ch->failed = true;
		log_line(LOG_ERR, NULL,
			 "%s died %d times within a minute: it is tried once a minute",
			 child_label(ch), DEATHS);
	}
	if (ch->failed)
		ms = t->minute_ms;
	loop_after(ch->set->d->loop, &ch->next,
		   ms < t->again_max_ms || ch->failed ? ms : t->again_max_ms);
	child_keep(ch);
}

static void say_died(struct child *ch, const struct end *end)
{
	if (!ch->hung)
		events_emit(ch->set->d->events, PST_EVENT_DIED, ch->id,
			    end->sig ? -end->sig : end->status, "%s: %s", child_label(ch),
			    ch->death);
}

/* Started by an order, and it never listened: who ordered it is told, and that is all. */
static bool was_a_try(const struct child *ch)
{
	return !ch->listened && !*ch->name;
}

static void died(struct child *ch)
{
	struct children_listener *l = ch->set->listener;
	struct end end = reap(ch);
	bool well = !ch->killed && (ch->finished || (end.known && !end.status && !end.sig));

	explain(ch, &end);
	child_let_go(ch);
	settle(ch);
	if (ch->goal == GOAL_RUN || (ch->goal == GOAL_DRAIN && !well))
		say_died(ch, &end);
	if (l && ch->role == PST_LEASH_WORKER && ch->goal != GOAL_STOP && (end.sig || ch->hung))
		l->died(l, ch->id, end.sig, ch->hung);
	if (ch->goal != GOAL_RUN) {
		orders_died(ch, well);
		child_stopped(ch);
	} else if (was_a_try(ch)) {
		orders_died(ch, false);
		child_unkeep(ch);
		child_free(ch);
	} else {
		try_again(ch);
		orders_died(ch, false);
	}
}

static void on_end(struct loop_source *src, uint32_t events)
{
	struct child *ch = OF(struct child, end, src);

	(void)events;
	child_read(ch, true);
	died(ch);
}

/* Starting */

static int choose_url(struct child *ch)
{
	uint32_t salt;

	if (*ch->url)
		return 0;
	if (*ch->asked) {
		memcpy(ch->url, ch->asked, sizeof(ch->url));
		return 0;
	}
	if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
		return -errno;
	snprintf(ch->url, sizeof(ch->url), "shm://penstock-%s-%u-%08x",
		 ch->role == PST_LEASH_WORKER ? "worker" : "server", ch->id, salt);
	return 0;
}

/* Where it computes; may be another thing than when it was last started. */
static int find_device(struct child *ch, struct pst_error *err)
{
	struct devices *devices = ch->set->d->devices;
	struct device_place place;
	int rc;

	if (ch->role == PST_LEASH_SERVER)
		return 0;
	if (*ch->device_name && devices_find(devices, ch->device_name, &ch->device))
		return pst_fail(err, -ENODEV, "%s: there is no device %s (penstockctl devices)",
				child_label(ch), ch->device_name);
	rc = devices_place(devices, ch->device, &place);
	if (rc < 0)
		return pst_fail(err, rc, "there is no device %u (penstockctl devices)", ch->device);
	ch->kind = place.kind;
	ch->index = place.index;
	ch->node = place.node;
	return 0;
}

static uint32_t threads(const struct child *ch)
{
	struct device_place place;

	if (ch->threads || ch->role == PST_LEASH_SERVER)
		return ch->threads;
	return devices_place(ch->set->d->devices, ch->device, &place) ? 0 : place.cores;
}

/* Over shm the kernel says who is there, and there is no key. */
static bool needs_key(const struct child *ch)
{
	return *ch->set->d->config.key && strncmp(ch->url, "shm:", 4) != 0;
}

static int run(const struct child *ch, int leash, pid_t *pid, struct pst_error *err)
{
	char count[16], node[16], fd[16], gpu[24];
	const char *argv[16] = {ch->role == PST_LEASH_WORKER ? "penstock-worker" : "penstock-ps",
				"--listen",
				ch->url,
				"--threads",
				count,
				"--node",
				node,
				"--leash",
				fd};
	int n = 9;

	snprintf(count, sizeof(count), "%u", threads(ch));
	snprintf(node, sizeof(node), "%d", ch->node);
	snprintf(fd, sizeof(fd), "%d", leash);
	if (needs_key(ch)) {
		argv[n++] = "--key";
		argv[n++] = ch->set->d->config.key;
	}
	if (ch->kind == PST_DEVICE_GPU) {
		snprintf(gpu, sizeof(gpu), "cuda:%u", ch->index);
		argv[n++] = "--device";
		argv[n++] = gpu;
	}
	return spawn_program(argv, leash, pid, err);
}

static int see(struct child *ch)
{
	struct loop *loop = ch->set->d->loop;
	int rc;

	ch->end.fd = (int)syscall(SYS_pidfd_open, ch->pid, 0);
	if (ch->end.fd < 0)
		return -errno;
	rc = loop_watch(loop, &ch->end, EPOLLIN);
	return rc < 0 ? rc : loop_watch(loop, &ch->leash, EPOLLIN);
}

/* A life begins. */
static void begin(struct child *ch, pid_t pid, int leash)
{
	ch->pid = pid;
	ch->leash = (struct loop_source){.fd = leash, .ready = on_leash};
	ch->end = (struct loop_source){.fd = -1, .ready = on_end};
	ch->quiet.fire = on_quiet;
	ch->greeted = ch->killed = ch->hung = ch->finished = ch->adopted = false;
	ch->why[0] = 0;
	ch->fail_code = 0;
	ch->spawned_ms = ch->heard_ms = loop_now_ms();
	memset(&ch->beat, 0, sizeof(ch->beat));
	memset(&ch->hello, 0, sizeof(ch->hello));
}

/* It cannot be watched: then it must not be. Nobody else has waited for it. */
static int undo(struct child *ch, int rc, struct pst_error *err)
{
	kill(ch->pid, SIGKILL);
	while (waitpid(ch->pid, NULL, 0) < 0 && errno == EINTR)
		;
	child_let_go(ch);
	return pst_fail(err, rc, "%s cannot be watched: %s", child_label(ch), strerror(-rc));
}

int child_spawn(struct child *ch, struct pst_error *err)
{
	int rc, pair[2];
	pid_t pid;

	rc = find_device(ch, err);
	if (rc < 0)
		return rc;
	rc = choose_url(ch);
	if (rc < 0)
		return pst_fail(err, rc, "%s: no random name for it", child_label(ch));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return pst_fail(err, -errno, "no leash for %s: %s", child_label(ch),
				strerror(errno));
	rc = run(ch, pair[1], &pid, err);
	close(pair[1]);
	if (rc < 0) {
		close(pair[0]);
		return rc;
	}
	begin(ch, pid, pair[0]);
	rc = see(ch);
	if (rc < 0)
		return undo(ch, rc, err);
	ch->born = spawn_time(pid);
	child_watch(ch);
	child_keep(ch);
	return 0;
}

void child_run(struct child *ch)
{
	struct pst_error err = {0};

	if (!child_spawn(ch, &err))
		return;
	ch->spawned_ms = loop_now_ms();
	snprintf(ch->death, sizeof(ch->death), "%.255s", err.text);
	events_emit(ch->set->d->events, PST_EVENT_DIED, ch->id, err.code, "%s: %s", child_label(ch),
		    ch->death);
	try_again(ch);
}

void child_on_next(struct loop_timer *timer)
{
	struct child *ch = OF(struct child, next, timer);

	if (child_runs(ch)) {
		child_kill(ch); /* it was told to stop */
		return;
	}
	ch->restarts++;
	child_run(ch);
}

int child_adopt(struct child *ch, pid_t pid, int leash)
{
	struct pst_leash ask = LEASH_HEADER(ask, ASK, 0);
	int rc;

	begin(ch, pid, leash);
	rc = see(ch);
	/* a pid may be another process's by now: what it was is told by its start */
	if (!rc && spawn_time(pid) != ch->born)
		rc = -ESRCH;
	if (rc < 0) {
		child_let_go(ch);
		return rc;
	}
	ch->adopted = true;
	leash_send(leash, &ask, -1);
	child_watch(ch);
	return 0;
}
