/* SPDX-License-Identifier: Apache-2.0 */
/*
 * perf.h - what the parts of penstock-perf(1) share.
 *
 * The model
 *   test    one thing to measure: a row of the table in perf.c
 *   plan    what the command line asked for
 *   memory  one region of this process
 *   client  this side's links to the servers, and their memory; it drives the test
 *   row     one line of the result: a size, how often, how fast
 *   server  serve.c: answers the clients of all tests, one process, one thread
 *
 * The way of a run: perf.c picks the test, options.c fills the plan, self.c starts a server where
 * both ends are here, client.c connects, the test's own file measures row by row, and report.c
 * prints them and json.c writes them.
 *
 * Errors: -errno, and the sentence in a struct pst_error; perf.c prints it.
 */
#ifndef PERF_PERF_H
#define PERF_PERF_H

#include "rdma/fabric.h"
#include "tools/options.h"
#include "tools/perf/clock.h"
#include "tools/perf/histogram.h"
#include "tools/perf/wire.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define PERF_PORT     18515
#define PERF_SIZE_MAX (1ull << 30)
#define PERF_ALL_MAX  (8u << 20)
#define PERF_URL_MAX  1024
#define PERF_SET_MAX  512

struct perf_client;
struct perf_plan;
struct perf_report;

enum perf_kind {
	PERF_LATENCY,
	PERF_BANDWIDTH,
	PERF_WORK, /* both, of a piece of work */
	PERF_REGISTER,
	PERF_COPY,     /* of a GPU */
	PERF_DOORBELL, /* of a GPU */
};

struct perf_test {
	const char *name;
	const char *title; /* perftest's, where it has one */
	const char *help;
	enum perf_kind kind;
	enum perf_wire_test wire;
	/* Measure and report every row. */
	int (*run)(struct perf_plan *plan, struct perf_report *report, struct pst_error *err);
};

extern const struct perf_test perf_tests[];
extern const size_t perf_ntests;

enum perf_routing_kind { ROUTING_UNIFORM, ROUTING_ZIPF, ROUTING_TRACE };

struct perf_plan {
	const struct perf_test *test;
	char **word; /* the command line, letters spelled out: what the texts below point into */
	struct opt_list hosts;
	const char *fabric, *dev, *bind, *key, *set, *json, *compare, *cpus, *routing, *pages,
		*chunks, *device, *image;
	uint32_t all, self, poll, event, pin, no_crc, bidirectional;
	uint32_t links, depth, port, timeout_ms, moderation, warm_up, seed;
	uint32_t engines, workers, experts, hidden, inter, topk, tokens;
	uint64_t size, iters;
	double duration;
	int size_given, iters_given, depth_given, warm_up_given, engines_given;
	bool crowded;  /* event, since threads would take the CPUs from each other */
	int cpu[2];    /* -1: any */
	uint64_t page; /* bytes */
	enum perf_routing_kind routing_kind;
	double zipf;
	const char *trace;
	int ordinal;		   /* of the GPU */
	char url[8][PERF_URL_MAX]; /* of the servers */
	unsigned int nurls;
	char settings[PERF_SET_MAX]; /* "?..." of every URL, or "" */
	char key_path[32];	     /* of the key that --self makes */
};

/* It needs no peer: there is neither client nor server. */
static inline bool perf_alone(const struct perf_test *test)
{
	return test->kind == PERF_REGISTER || test->kind == PERF_COPY ||
	       test->kind == PERF_DOORBELL;
}

/* Fill @plan. -1: go on; else the status to exit with. */
int perf_options(int argc, char **argv, const struct perf_test *test, struct perf_plan *plan);
void perf_plan_free(struct perf_plan *plan); /* in any case */
/* The URL of @host and @port, with the plan's settings; over shm the port is the name. */
void perf_url(const struct perf_plan *plan, const char *host, unsigned int port, char *url);
/* How often for requests of @size bytes, where -n does not say. */
uint64_t perf_iterations(const struct perf_plan *plan, uint64_t size);
uint64_t perf_warm_up(const struct perf_plan *plan, uint64_t iters);
/* The largest size of -a. */
uint64_t perf_all_max(const struct perf_plan *plan);

/* memory.c: a memfd, touched, on pages of @page bytes; registered with @fab. */
struct perf_memory {
	unsigned char *at;
	uint64_t len, maplen;
	int fd;
	struct pst_region *region; /* NULL: not registered */
};

int perf_memory_map(uint64_t len, uint64_t page, struct perf_memory *out, struct pst_error *err);
int perf_memory_new(struct pst_fabric *fab, uint64_t len, uint64_t page, uint32_t access,
		    struct perf_memory *out, struct pst_error *err);
void perf_memory_free(struct perf_memory *m);
int perf_numa_node(const void *at); /* -1: not known */
/* What a server shows for reading: every byte follows from its place. */
void perf_fill_pattern(struct perf_memory *m);
/* Are the @n bytes at @at what a server has at @off? */
bool perf_is_pattern(const unsigned char *at, uint64_t off, uint64_t n);

/*
 * How often memory is looked at between two looks at a completion queue. What a fabric brings by
 * itself comes at any time: then seldom. What comes right behind a poll was brought by it: often.
 */
struct perf_watch {
	unsigned int spins;
	bool pauses; /* a core writes there, and not a device: see rdma/pause.h */
	bool polled; /* since memory was looked at with success */
};

static inline void perf_watch_start(struct perf_watch *w, const char *fabric)
{
	*w = (struct perf_watch){.spins = 64, .pauses = strcmp(fabric, "verbs") != 0};
}

/* It was there at the @at-th look. */
static inline void perf_watch_seen(struct perf_watch *w, unsigned int at)
{
	if (w->polled && !at)
		w->spins = w->spins > 16 ? w->spins / 2 : 8;
	else if (w->spins < 1024)
		w->spins *= 2;
	w->polled = false;
}

/*
 * Set the last byte of @size at @at, which says whose turn it is; with it the bytes before it, by
 * one store where it can be: a load of eight bytes waits for a store of one of them.
 */
static inline void perf_mark(unsigned char *at, uint64_t size, uint8_t mark)
{
	uint64_t eight = mark * 0x0101010101010101u;

	if (size >= sizeof(eight))
		memcpy(at + size - sizeof(eight), &eight, sizeof(eight));
	else
		at[size - 1] = mark;
}

/* Keep this thread on @cpu; -1: do nothing. */
int perf_pin(int cpu, struct pst_error *err);

/* client.c */
struct perf_remote {
	struct pst_link *link;
	struct pst_key key; /* of the server's memory */
	uint64_t len;
	uint64_t posted, done; /* requests */
	unsigned char *at;     /* this link's part of the client's memory */
};

struct perf_client {
	const struct perf_plan *plan;
	struct pst_fabric *fab;
	struct pst_cq *cq;
	bool own_fabric;
	struct perf_memory memory;
	unsigned int n;
	struct perf_remote *remote;
	struct pst_error *err;
};

/* What every link of a client is to have. */
struct perf_want {
	enum perf_wire_test test;
	uint64_t remote; /* bytes at the server, for each link */
	uint64_t local;	 /* bytes here, for each link */
	uint64_t work;	 /* bytes that one piece of work is about (wire.h) */
	uint32_t slots;
	unsigned int links;
	bool idle;		/* the server has nothing to do, and need not spin */
	bool spread;		/* link i goes to server i % servers */
	struct pst_fabric *fab; /* NULL: open one */
};

int perf_client_open(const struct perf_plan *plan, const struct perf_want *want,
		     struct perf_client *c, struct pst_error *err);
void perf_client_close(struct perf_client *c);
/* Begin a run of @size: every server is ready when it returns. */
int perf_client_start(struct perf_client *c, uint64_t size, uint64_t iters);
/* End it: what every server counted, added up. */
int perf_client_stop(struct perf_client *c, struct perf_result *total);
/* Up to @n completions as the plan wants them: polled, or waited for. Fails on a lost link. */
int perf_client_poll(struct perf_client *c, struct pst_wc *wc, int n);
/* A completion that must not be: -EIO or what it carries, with a sentence. */
int perf_client_bad(struct perf_client *c, const struct pst_wc *wc);
/* Post one request, however long it takes. */
int perf_client_post(struct perf_client *c, struct perf_remote *r, const struct pst_wr *wr);

/* serve.c: serve until a signal; where it listens is written to @ready_fd (-1: printed). */
int perf_serve(const struct perf_plan *plan, const char *url, int ready_fd, struct pst_error *err);

/* self.c: the servers of --self. */
struct perf_self {
	pid_t pid[8];
	unsigned int n;
	int key_fd;
};
int perf_self_start(struct perf_plan *plan, unsigned int servers, struct perf_self *self,
		    struct pst_error *err);
void perf_self_stop(struct perf_self *self);

/* The line of a result; what does not apply is 0 or NULL. */
struct perf_row {
	uint64_t bytes, iters;
	double seconds;		   /* of all of them */
	double moved;		   /* bytes, if not bytes * iters */
	double peak;		   /* bytes per second */
	double rate;		   /* requests per second */
	double halved;		   /* what durations are divided by: 2 for there and back */
	const struct histogram *h; /* ticks */
	const char *label;	   /* of a row that is not a size */
	double low, high; /* of several writers: the slowest's and the fastest's bytes per second */
};

/* report.c */
struct perf_report {
	const struct perf_plan *plan;
	FILE *out;
	json_t *rows, *settings;
	bool headed;
	struct perf_earlier *earlier; /* --compare */
	unsigned int npoints;
	struct {
		uint64_t bytes;
		double rate;
	} point[64];
};

int perf_report_open(const struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
/* The settings in force. */
void perf_report_settings(struct perf_report *r, const struct perf_client *c);
void perf_report_row(struct perf_report *r, const struct perf_row *row);
/* Plot, JSON. The status to exit with. */
int perf_report_close(struct perf_report *r, bool good);

/* json.c */
json_t *perf_json_row(const struct perf_plan *plan, const struct perf_row *row);
json_t *perf_json_settings(const struct perf_plan *plan, const struct perf_client *c);
double perf_usec(const struct perf_row *row, double ticks);
double perf_bandwidth(const struct perf_row *row); /* bytes per second */

/* compare.c: an earlier run, of ours or of perftest. */
struct perf_earlier;
int perf_earlier_read(const char *path, struct perf_earlier **out, struct pst_error *err);
void perf_earlier_free(struct perf_earlier *e);
/* Its figure for @bytes: BW_average in MiB/s or t_typical in us; 0: none. */
double perf_earlier_find(const struct perf_earlier *e, uint64_t bytes, bool latency);

/* The tests. */
int perf_run_latency(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_bandwidth(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_incast(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_pull(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_push(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_tokens(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_register(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_h2d(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);
int perf_run_doorbell(struct perf_plan *plan, struct perf_report *r, struct pst_error *err);

/* doctor.c: penstock-perf doctor [HOST] */
int perf_doctor(int argc, char **argv);

#endif /* PERF_PERF_H */
