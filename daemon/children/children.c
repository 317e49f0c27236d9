/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "daemon/devices/devices.h"
#include "daemon/events.h"
#include "daemon/children/experts.h"
#include "daemon/keep/keep.h"
#include "daemon/log.h"
#include "daemon/children/tables.h"
#include "rdma/fail.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STOPPED_MAX 1024 /* that are remembered; then the one that was started first goes */
#define KILLED_MS   1000 /* for what was killed to be gone */

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

static const struct child_times usual_times = {
	.again_ms = 100,
	.again_max_ms = 10000,
	.minute_ms = 60000,
	.start_ms = 60000,
	.stop_ms = 2000,
	.order_ms = 60000,
};

/* One of the set */

const char *child_label(const struct child *ch)
{
	static char label[4][32];
	static unsigned int turn;
	char *out = label[turn++ % 4];

	snprintf(out, sizeof(label[0]), "%s %u", ch->role == PST_LEASH_WORKER ? "worker" : "server",
		 ch->id);
	return out;
}

struct child *child_find(const struct children *c, uint32_t role, uint32_t id)
{
	struct child *ch;

	TAILQ_FOREACH(ch, &c->all, on_set)
	if (ch->role == role && ch->id == id)
		return ch;
	return NULL;
}

static struct child *find(const struct children *c, uint32_t role, bool next, uint32_t id)
{
	struct child *ch, *found = NULL;

	TAILQ_FOREACH(ch, &c->all, on_set)
	if (ch->role == role && (next ? ch->id > id : ch->id == id) &&
	    (!found || ch->id < found->id))
		found = ch;
	return found;
}

struct child *child_new(struct children *c, uint32_t role, uint32_t id)
{
	struct child *ch = calloc(1, sizeof(*ch));

	if (!ch)
		return NULL;
	ch->set = c;
	ch->role = role;
	ch->id = id ? id : c->last_id[role] + 1;
	if (ch->id > c->last_id[role])
		c->last_id[role] = ch->id;
	ch->node = PST_ANY;
	ch->kind = PST_DEVICE_CPU;
	ch->end.fd = ch->leash.fd = -1;
	ch->next.fire = child_on_next;
	TAILQ_INIT(&ch->orders);
	TAILQ_INSERT_TAIL(&c->all, ch, on_set);
	return ch;
}

void child_free(struct child *ch)
{
	struct children *c = ch->set;

	orders_free(ch);
	child_let_go(ch);
	if (ch->role == PST_LEASH_WORKER)
		experts_forget(c->experts, ch->id);
	else
		tables_forget(c->tables, ch->id);
	c->stopped -= ch->stopped;
	TAILQ_REMOVE(&c->all, ch, on_set);
	free(ch);
}

/* One that was stopped, and that nobody waits for. */
static bool forget_one(struct children *c)
{
	struct child *ch;

	TAILQ_FOREACH(ch, &c->all, on_set)
	{
		if (!ch->stopped || !TAILQ_EMPTY(&ch->orders))
			continue;
		child_unkeep(ch);
		child_free(ch);
		return true;
	}
	return false;
}

void child_stopped(struct child *ch)
{
	struct children *c = ch->set;
	bool drained = ch->goal == GOAL_DRAIN;

	ch->stopped = true;
	c->stopped++;
	if (ch->role == PST_LEASH_WORKER)
		experts_forget(c->experts, ch->id);
	events_emit(c->d->events, drained ? PST_EVENT_DRAINED : PST_EVENT_STOPPED, ch->id, 0,
		    "%s is %s", child_label(ch), drained ? "drained" : "stopped");
	/* one of the config stays stopped under the next daemon too */
	if (*ch->name && !ch->leaving)
		child_keep(ch);
	else
		child_unkeep(ch);
	/* its URL is free now for the one that has its section */
	loop_after(c->d->loop, &c->tidy, 0);
}

/* The config */

struct section {
	uint32_t role;
	const char *name, *device, *url;
	uint32_t threads;
	int32_t node;
};

static uint32_t sections(const struct config *config)
{
	return config->nservers + config->nworkers;
}

static struct section section_at(const struct config *config, uint32_t i)
{
	const struct config_server *s;
	const struct config_worker *w;

	if (i < config->nservers) {
		s = &config->server[i];
		return (struct section){.role = PST_LEASH_SERVER,
					.name = s->name,
					.device = "",
					.url = s->url,
					.threads = s->threads,
					.node = s->node};
	}
	w = &config->worker[i - config->nservers];
	return (struct section){.role = PST_LEASH_WORKER,
				.name = w->name,
				.device = w->device,
				.url = w->url,
				.threads = w->threads,
				.node = PST_ANY};
}

/* Workers have the node of their device. */
static bool is_of(const struct child *ch, const struct section *s)
{
	return ch->role == s->role && !strcmp(ch->name, s->name);
}

static bool is_as(const struct child *ch, const struct section *s)
{
	return is_of(ch, s) && !strcmp(ch->device_name, s->device) && !strcmp(ch->asked, s->url) &&
	       ch->threads == s->threads && (s->role == PST_LEASH_WORKER || ch->node == s->node);
}

static bool in_config(const struct child *ch)
{
	const struct config *config = &ch->set->d->config;

	for (uint32_t i = 0; i < sections(config); i++) {
		struct section s = section_at(config, i);

		if (is_as(ch, &s))
			return true;
	}
	return false;
}

static bool has_child(const struct children *c, const struct section *s)
{
	const struct child *ch;

	/* one that is leaving has the URL till it has left */
	TAILQ_FOREACH(ch, &c->all, on_set)
	if (is_of(ch, s) && !(ch->stopped && ch->leaving))
		return true;
	return false;
}

static int start_section(struct children *c, const struct section *s)
{
	struct child *ch = child_new(c, s->role, 0);

	if (!ch)
		return -ENOMEM;
	snprintf(ch->name, sizeof(ch->name), "%s", s->name);
	snprintf(ch->device_name, sizeof(ch->device_name), "%s", s->device);
	snprintf(ch->asked, sizeof(ch->asked), "%s", s->url);
	ch->threads = s->threads;
	ch->node = s->node;
	child_run(ch);
	return 0;
}

int children_sync(struct children *c)
{
	const struct config *config = &c->d->config;
	struct child *ch;
	int rc = 0;

	TAILQ_FOREACH(ch, &c->all, on_set)
	if (*ch->name && !ch->leaving && !in_config(ch)) {
		ch->leaving = true;
		child_stop(ch, NULL, NULL);
	}
	for (uint32_t i = 0; !rc && i < sections(config); i++) {
		struct section s = section_at(config, i);

		if (!has_child(c, &s))
			rc = start_section(c, &s);
	}
	return rc;
}

/* After the loop's turn in which something stopped. */
static void on_tidy(struct loop_timer *timer)
{
	struct children *c = OF(struct children, tidy, timer);

	if (children_sync(c) < 0)
		loop_after(c->d->loop, timer, c->times.again_max_ms);
	while (c->stopped > STOPPED_MAX && forget_one(c))
		;
}

int children_reload(struct children *c, struct pst_error *err)
{
	int rc = children_sync(c);

	return rc < 0 ? pst_fail(err, rc, "no memory for another child") : 0;
}

/* From daemon to daemon */

static void go_on_without(struct child *ch)
{
	struct children *c = ch->set;

	snprintf(ch->death, sizeof(ch->death), "ended while there was no daemon");
	if (ch->goal != GOAL_RUN) {
		child_stopped(ch);
	} else if (!ch->listened && !*ch->name) {
		child_unkeep(ch);
		child_free(ch);
	} else {
		events_emit(c->d->events, PST_EVENT_DIED, ch->id, 0, "%s: %s", child_label(ch),
			    ch->death);
		ch->restarts++;
		child_run(ch);
	}
}

static void adopt(void *ctx, const char *name, int fd, json_t *about)
{
	struct children *c = ctx;
	pid_t pid;
	struct child *ch = child_unpack(c, about, &pid);

	if (!ch) {
		log_line(LOG_WARNING, NULL, "%s was kept in a way that is not known; it is let go",
			 name);
		close(fd);
		keep_drop(c->d->keep, name);
		return;
	}
	if (ch->stopped || !pid) {
		close(fd);
		c->stopped += ch->stopped;
		if (!ch->stopped)
			go_on_without(ch);
		return;
	}
	if (child_adopt(ch, pid, fd) < 0) {
		go_on_without(ch);
		return;
	}
	log_line(LOG_NOTICE, NULL, "%s goes on (process %d)", child_label(ch), (int)pid);
	if (ch->goal == GOAL_STOP)
		loop_after(c->d->loop, &ch->next, c->times.stop_ms);
}

int children_open(struct penstockd *d, struct children **out, struct pst_error *err)
{
	struct children *c = calloc(1, sizeof(*c));
	struct timespec now;
	int rc = -ENOMEM;

	if (!c)
		return pst_fail(err, rc, "no memory for children");
	*c = (struct children){.d = d, .times = usual_times, .tidy.fire = on_tidy};
	TAILQ_INIT(&c->all);
	TAILQ_INIT(&c->many);
	clock_gettime(CLOCK_REALTIME, &now);
	/* an answer to an earlier daemon is none to this one */
	c->seq = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	c->blank = memfd_create("penstock-child", MFD_CLOEXEC);
	if (c->blank < 0) {
		rc = -errno;
		goto free_set;
	}
	if (experts_new(&c->experts) || tables_new(&c->tables))
		goto free_figures;
	/* what an earlier program set is inherited, and would take the exit status */
	signal(SIGCHLD, SIG_DFL);
	keep_each(d->keep, "child-", adopt, c);
	rc = children_sync(c);
	if (rc < 0) {
		children_close(c, false);
		return pst_fail(err, rc, "no memory for children");
	}
	*out = c;
	return 0;

free_figures:
	experts_free(c->experts);
	close(c->blank);
free_set:
	free(c);
	return pst_fail(err, rc, "children cannot be kept: %s", strerror(-rc));
}

/* Until those that run have ended, or the time is over. */
static void await(struct children *c, int ms)
{
	int64_t end = loop_now_ms() + ms;
	struct child *ch;

	TAILQ_FOREACH(ch, &c->all, on_set)
	{
		struct pollfd p = {.fd = ch->end.fd, .events = POLLIN};
		int64_t left = end - loop_now_ms();

		if (child_runs(ch))
			poll(&p, 1, left > 0 ? (int)left : 0);
	}
}

static void end_all(struct children *c)
{
	struct child *ch;

	TAILQ_FOREACH(ch, &c->all, on_set)
	if (child_runs(ch))
		child_say_stop(ch);
	await(c, c->times.stop_ms);
	TAILQ_FOREACH(ch, &c->all, on_set)
	child_kill(ch);
	await(c, KILLED_MS);
	TAILQ_FOREACH(ch, &c->all, on_set)
	{
		child_reap(ch);
		child_unkeep(ch);
	}
}

void children_close(struct children *c, bool stop)
{
	struct child *ch;

	if (!c)
		return;
	if (stop)
		end_all(c);
	while ((ch = TAILQ_FIRST(&c->all)))
		child_free(ch);
	many_end_all(c);
	loop_cancel(c->d->loop, &c->tidy);
	experts_free(c->experts);
	tables_free(c->tables);
	close(c->blank);
	free(c);
}

void children_listen(struct children *c, struct children_listener *l)
{
	c->listener = l;
}

/* Asking */

static uint32_t state(const struct child *ch)
{
	if (ch->stopped)
		return PST_WORKER_STOPPED;
	if (ch->goal != GOAL_RUN)
		return PST_WORKER_DRAINING;
	if (child_runs(ch) && ch->greeted)
		return PST_WORKER_SERVING;
	return ch->failed ? PST_WORKER_FAILED : PST_WORKER_STARTING;
}

static void note(const struct child *ch, unsigned char *out, size_t len)
{
	const char *worse = (const char *)ch->hello.note;
	char text[sizeof(ch->hello.note) + sizeof(ch->death) + 2];

	snprintf(text, sizeof(text), "%s%s%s", worse, *worse && *ch->death ? "; " : "", ch->death);
	memset(out, 0, len);
	memcpy(out, text, strnlen(text, len - 1));
}

static uint32_t silence(const struct child *ch)
{
	return child_runs(ch) ? (uint32_t)(loop_now_ms() - ch->heard_ms) : 0;
}

int children_worker(struct children *c, bool next, struct pst_cmd_worker_stat *io)
{
	const struct child *ch = find(c, PST_LEASH_WORKER, next, io->id);

	if (!ch)
		return -ENOENT;
	io->id = ch->id;
	io->out_state = state(ch);
	io->out_device = ch->device;
	io->out_pid = (uint32_t)ch->pid;
	io->out_threads = ch->greeted ? ch->hello.threads : ch->threads;
	io->out_restarts = ch->restarts;
	io->out_engines = ch->beat.engines;
	io->out_beat_ms = silence(ch);
	io->out_rows = ch->base.rows + ch->beat.rows;
	io->out_calls = ch->base.calls + ch->beat.calls;
	io->out_busy_ns = ch->base.busy_ns + ch->beat.busy_ns;
	io->out_pulled = ch->base.pulled + ch->beat.pulled;
	io->out_moved = ch->base.moved + ch->beat.moved;
	io->out_copied = ch->base.copied + ch->beat.copied;
	memcpy(io->out_url, ch->url, sizeof(io->out_url));
	note(ch, io->out_note, sizeof(io->out_note));
	return 0;
}

int children_server(struct children *c, bool next, struct pst_cmd_server_stat *io)
{
	const struct child *ch = find(c, PST_LEASH_SERVER, next, io->id);

	if (!ch)
		return -ENOENT;
	io->id = ch->id;
	io->out_pid = (uint32_t)ch->pid;
	io->out_node = ch->greeted ? ch->hello.node : ch->node;
	io->out_restarts = ch->restarts;
	io->out_tables = ch->beat.tables;
	io->out_bytes = ch->beat.pool_bytes;
	io->out_read_bytes = ch->base.read_bytes + ch->beat.read_bytes;
	memcpy(io->out_url, ch->url, sizeof(io->out_url));
	note(ch, io->out_note, sizeof(io->out_note));
	return 0;
}

int children_table(struct children *c, bool next, struct pst_cmd_table_stat *io)
{
	return tables_stat(c->tables, next, io);
}

int children_expert(struct children *c, bool next, struct pst_cmd_expert_stat *io)
{
	return experts_stat(c->experts, next, io, loop_now_ms());
}

uint32_t children_workers(const struct children *c)
{
	const struct child *ch;
	uint32_t n = 0;

	TAILQ_FOREACH(ch, &c->all, on_set)
	n += ch->role == PST_LEASH_WORKER && !ch->stopped;
	return n;
}
