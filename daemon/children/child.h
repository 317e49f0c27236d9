/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.h - what children.c and child*.c share: a child, and the
 * set of them. Nobody else includes it, but for tests that shorten the times.
 *
 *	children.c	the set, and what others ask of it
 *	child.c		one process: started, watched, killed, started again
 *	child_keep.c	what the next daemon must know of it
 *	child_heard.c	what it says on its leash
 *	child_orders.c	orders that were given, and how they end
 *	child_tell.c	what it is told to do
 */
#ifndef DAEMON_CHILD_H
#define DAEMON_CHILD_H

#include "daemon/children/children.h"
#include "daemon/children/leash.h"

#include <jansson.h>
#include <sys/queue.h>
#include <sys/types.h>

#define DEATHS 10 /* within a minute: it has failed */

struct experts;
struct tables;

enum goal {
	GOAL_RUN,
	GOAL_DRAIN,
	GOAL_STOP,
};

struct child_counters {
	uint64_t rows, calls, busy_ns, pulled, moved, copied, read_bytes;
};

struct child {
	TAILQ_ENTRY(child) on_set;
	struct children *set;
	/* what it is, and how it is run */
	uint32_t role; /* PST_LEASH_WORKER, PST_LEASH_SERVER */
	uint32_t id;
	char name[PST_NAME_MAX];   /* its section of the config; "": started by an order */
	char device_name[32];	   /* there */
	char asked[PST_URL_BYTES]; /* "": chosen */
	char url[PST_URL_BYTES];   /* where it listens, always the same once it has */
	bool listened;
	uint32_t device, kind, index, threads; /* @index: of its kind */
	int32_t node;
	/* its process */
	pid_t pid;     /* 0: none */
	uint64_t born; /* start time of the process, that tells it from others with this pid */
	bool adopted;  /* started by an earlier daemon: its exit status is not known */
	struct loop_source end, leash; /* pidfd, our end of the leash; fd -1: none */
	struct loop_timer quiet;       /* it was not heard of for too long */
	struct loop_timer next;	       /* start it again, or kill what does not stop */
	int64_t spawned_ms, heard_ms;
	bool greeted; /* HELLO was heard in this life of it */
	bool killed;  /* by us, for the reason in @why */
	bool hung;
	bool finished; /* it said that it ends well */
	char why[256]; /* what it said, or what was seen, about its end */
	int fail_code; /* that it said with it */
	struct pst_leash_hello hello;
	struct pst_leash_beat beat;
	/* its life */
	enum goal goal;
	uint64_t last_order; /* the seq of DRAIN or STOP */
	bool failed, stopped;
	bool leaving;	 /* out of the config: forget it when it has stopped */
	char death[256]; /* why it last died */
	uint32_t restarts;
	int64_t deaths[DEATHS]; /* times, as a ring */
	uint32_t ndeaths;
	struct child_counters base; /* of its earlier lives */
	TAILQ_HEAD(, order) orders;
};

struct order {
	TAILQ_ENTRY(order) on_child;
	struct child *child;
	uint64_t seq;
	uint32_t type; /* PST_LEASH_*; 0: it is being started */
	struct loop_timer timer;
	order_fn *done;
	void *ctx;
	bool over; /* it ended with @rc and @err, which is told from the loop */
	int rc;
	struct pst_error err;
};

struct children {
	struct penstockd *d;
	TAILQ_HEAD(child_list, child) all; /* workers and servers, by id */
	uint32_t last_id[PST_LEASH_SERVER + 1];
	uint32_t stopped;
	uint64_t seq;
	struct experts *experts;
	struct tables *tables;
	bool full_said; /* that there are too many experts or tables */
	struct children_listener *listener;
	TAILQ_HEAD(, many) many; /* orders to many */
	struct loop_timer tidy;
	int blank; /* a descriptor to keep for a child that has no leash */
	struct child_times {
		int again_ms, again_max_ms; /* before it is started again: at first, at most */
		int minute_ms; /* in which so many deaths are a failure; between trials then */
		int start_ms;  /* until it must listen */
		int stop_ms;   /* until it must have stopped */
		int order_ms;  /* until it must have answered */
	} times;
};

/* children.c */
struct child *child_new(struct children *c, uint32_t role, uint32_t id); /* NULL: no memory */
void child_free(struct child *ch);
struct child *child_find(const struct children *c, uint32_t role, uint32_t id);
/* Its process is gone and will not be started again. */
void child_stopped(struct child *ch);
/* Start what the config names and is not there, stop what it does not name. -ENOMEM. */
int children_sync(struct children *c);
const char *child_label(const struct child *ch); /* "worker 3"; valid until the next but three */

/* child.c */
int child_spawn(struct child *ch, struct pst_error *err);
/* The same; what fails is taken for a death, and tried again. */
void child_run(struct child *ch);
/* Go on with @pid, which began when @ch says, over @leash, which is taken. -ESRCH: it is gone. */
int child_adopt(struct child *ch, pid_t pid, int leash);
void child_on_next(struct loop_timer *timer);
void child_watch(struct child *ch);
void child_kill(struct child *ch);
void child_hung(struct child *ch, int64_t ms, const char *what);
void child_broke(struct child *ch, const char *what); /* the rules of the leash */
void child_say_stop(struct child *ch);		      /* or it is killed at once */
void child_reap(struct child *ch);
/* Forget the process, as it is. */
void child_let_go(struct child *ch);
bool child_runs(const struct child *ch);

/* child_keep.c */
void child_keep(struct child *ch);
void child_unkeep(struct child *ch);
/* A child as it was kept, and its process, 0: none. NULL: it is none that can be gone on with. */
struct child *child_unpack(struct children *c, const json_t *about, pid_t *pid);

/* child_heard.c */
/* What there is to read. @all: it is dead, and this is the last. */
void child_read(struct child *ch, bool all);

/* child_orders.c */
/* Of a @type that is sent: seq is given. @timeout_ms 0: no limit. */
int order_new(struct child *ch, uint32_t type, int timeout_ms, order_fn *done, void *ctx,
	      struct order **out);
/* Send it; one that cannot be sent ends soon. */
void order_send(struct order *o, const struct pst_leash *m, int fd);
/* It ends with what it is told from the loop, not from here. */
void order_later(struct order *o, int rc, const char *why);
void order_end(struct order *o, int rc, const struct pst_error *err, const struct pst_leash *m);
struct order *order_find(const struct child *ch, uint64_t seq);
/* The process is gone: all of its orders end. */
void orders_died(struct child *ch, bool well);
/* Nobody will answer: all end with -ESHUTDOWN. */
void orders_free(struct child *ch);

/* child_tell.c */
void many_end_all(struct children *c);
int child_stop(struct child *ch, order_fn *done, void *ctx);

#endif /* DAEMON_CHILD_H */
