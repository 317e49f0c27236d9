/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm.c - the shm fabric against the limits of the memory that it stands on.
 *
 * Latency: an 8-byte one-sided write there and back between two processes that spin
 * on the memory that is written, and an 8-byte message between two that poll,
 * against two processes that spin on two cache lines. Bandwidth: 1 MiB
 * one-sided writes into a region of another process, against memcpy between the
 * same local buffer and the same mapped region. Rounds take ours and the limit
 * one after the other, so that a neighbour meets both; figures are medians, and
 * ratios are the medians of the rounds' ratios.
 */
#include "rdma/fabric.h"
#include "rdma/pause.h"
#include "tools/perf/clock.h"
#include "tools/perf/histogram.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 31, TRIPS = 2000, WARM_UP = 2, COPIES = 64, REGION = 16 << 20, WRITE = 1 << 20 };

struct lines {
	_Alignas(128) _Atomic uint64_t there;
	_Alignas(128) _Atomic uint64_t back;
};

struct end {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct pst_link *link;
	struct pst_region *region;
	unsigned char *memory;
};

static void must(int rc, const char *what, const struct pst_error *err)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "shm: %s: %s\n", what, err && err->text[0] ? err->text : strerror(-rc));
	exit(1);
}

static double now_ns(void)
{
	return (double)perf_now_ns();
}

/* Each trip is timed by itself: the middle half of them knows nothing of what else the machine did.
 */
static struct histogram trips;
static uint64_t before;

static void begin(void)
{
	memset(&trips, 0, sizeof(trips));
	before = perf_ticks();
}

static void lap(void)
{
	uint64_t now = perf_ticks();

	histogram_record(&trips, now - before);
	before = now;
}

static double one_way(void)
{
	return histogram_midmean(&trips) * perf_ns_per_tick / 2;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v)
{
	double copy[ROUNDS];

	memcpy(copy, v, sizeof(copy));
	qsort(copy, ROUNDS, sizeof(*copy), by_value);
	return copy[ROUNDS / 2];
}

static double ratio(const double *a, const double *b)
{
	double r[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		r[i] = a[i] / b[i];
	return median(r);
}

/* Each of the two processes on a core of its own, where there are two. */
static void take_core(int nth)
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		return;
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all) && nth-- == 0)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void open_end(struct end *e, const char *url)
{
	struct pst_region_attr attr = {
		.size = sizeof(attr), .len = REGION, .access = PST_ACCESS_WRITE};
	struct pst_error err = {0};

	attr.fd = memfd_create("bench", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(attr.fd < 0 ? -1 : ftruncate(attr.fd, REGION), "memfd", NULL);
	e->memory = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, attr.fd, 0);
	attr.addr = e->memory;
	memset(e->memory, 1, REGION);
	must(pst_fabric_open(url, &e->fab, &err), "fabric", &err);
	must(pst_cq_create(e->fab, &e->cq, &err), "cq", &err);
	must(pst_region_register(e->fab, &attr, &e->region, &err), "region", &err);
}

/* The next message; false when the link is down. */
static bool hear(struct end *e, void *msg, size_t len)
{
	struct pst_wc wc;

	for (;;) {
		if (!pst_cq_poll(e->cq, &wc, 1))
			continue;
		if (wc.kind != PST_WC_MESSAGE)
			return false;
		memcpy(msg, wc.msg, wc.len < len ? wc.len : len);
		return true;
	}
}

enum { BARE = 1, WRITES }; /* what the peer is to bounce, in place of messages */

/* What the other end wrote into this end's memory. */
static uint64_t seen(struct end *e)
{
	return __atomic_load_n((uint64_t *)(void *)e->memory, __ATOMIC_ACQUIRE);
}

static void write_back(struct end *e, struct pst_wr *wr, uint64_t value)
{
	*(uint64_t *)wr->local_addr = value;
	must(pst_link_post(e->link, wr, 1) - 1, "write", NULL);
}

/* 8 bytes from the second line of this end's memory to the first of the other's. */
static struct pst_wr write_of(struct end *e, struct pst_key key)
{
	return (struct pst_wr){.op = PST_WR_WRITE,
			       .flags = PST_WR_UNSIGNALED,
			       .local = e->region,
			       .local_addr = e->memory + 128,
			       .key = key,
			       .len = 8};
}

static void bounce_lines(struct lines *lines)
{
	for (uint64_t i = 1; i <= TRIPS; i++) {
		while (atomic_load_explicit(&lines->there, memory_order_acquire) != i)
			pst_pause();
		atomic_store_explicit(&lines->back, i, memory_order_release);
	}
}

static void bounce_writes(struct end *e, struct pst_key key)
{
	struct pst_wr wr = write_of(e, key);

	for (uint64_t i = 1; i <= TRIPS; i++) {
		while (seen(e) != i)
			pst_pause();
		write_back(e, &wr, i);
	}
}

/* Exchange keys, then bounce the bare lines, writes or messages as the first 8 bytes say. */
static void peer(const char *url, struct lines *lines)
{
	struct pst_error err = {0};
	struct pst_key key, theirs;
	struct end e = {0};
	uint64_t value;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	take_core(1);
	open_end(&e, url);
	must(pst_connect(e.cq, url, 10000, &e.link, &err), "connect", &err);
	must(pst_link_grant(e.link, e.region, PST_ACCESS_WRITE, &key), "grant", NULL);
	must(pst_link_send(e.link, &key, sizeof(key), 1000), "send", NULL);
	if (!hear(&e, &theirs, sizeof(theirs)))
		exit(1);
	while (hear(&e, &value, 8)) {
		*(uint64_t *)(void *)e.memory = 0;
		must(pst_link_send(e.link, &value, 8, 1000), "send", NULL);
		if (value == UINT64_MAX - BARE)
			bounce_lines(lines);
		else if (value == UINT64_MAX - WRITES)
			bounce_writes(&e, theirs);
	}
	exit(0);
}

/* Tell the peer what comes now. */
static void announce(struct end *e, int what)
{
	uint64_t go = UINT64_MAX - (uint64_t)what;

	must(pst_link_send(e->link, &go, 8, 1000), "send", NULL);
	hear(e, &go, 8);
}

static double time_messages(struct end *e)
{
	uint64_t got;

	begin();
	for (uint64_t i = 0; i < TRIPS; i++) {
		must(pst_link_send(e->link, &i, 8, 1000), "send", NULL);
		if (!hear(e, &got, 8) || got != i)
			must(-1, "the peer is gone", NULL);
		lap();
	}
	return one_way();
}

static double time_lines(struct end *e, struct lines *lines)
{
	atomic_store(&lines->there, 0);
	announce(e, BARE);
	begin();
	for (uint64_t i = 1; i <= TRIPS; i++) {
		atomic_store_explicit(&lines->there, i, memory_order_release);
		while (atomic_load_explicit(&lines->back, memory_order_acquire) != i)
			pst_pause();
		lap();
	}
	return one_way();
}

static double time_short_writes(struct end *e, struct pst_key key)
{
	struct pst_wr wr = write_of(e, key);

	*(uint64_t *)(void *)e->memory = 0;
	announce(e, WRITES);
	begin();
	for (uint64_t i = 1; i <= TRIPS; i++) {
		write_back(e, &wr, i);
		while (seen(e) != i)
			pst_pause();
		lap();
	}
	return one_way();
}

static double gb_per_s(double ns)
{
	return (double)COPIES * WRITE / ns;
}

static double time_writes(struct end *e, struct pst_key key)
{
	struct pst_wr wr = {.op = PST_WR_WRITE, .local = e->region, .key = key, .len = WRITE};
	double start = now_ns();
	struct pst_wc wc;

	for (int i = 0; i < COPIES; i++) {
		wr.remote_off = (uint64_t)(i % (REGION / WRITE)) * WRITE;
		wr.local_addr = e->memory + wr.remote_off;
		must(pst_link_post(e->link, &wr, 1) - 1, "write", NULL);
		while (!pst_cq_poll(e->cq, &wc, 1))
			;
		must(wc.status, "write", NULL);
	}
	return gb_per_s(now_ns() - start);
}

static double time_memcpy(struct end *e, unsigned char *to)
{
	double start = now_ns();

	for (int i = 0; i < COPIES; i++) {
		size_t at = (size_t)(i % (REGION / WRITE)) * WRITE;

		memcpy(to + at, e->memory + at, WRITE);
		__asm__ volatile("" ::: "memory");
	}
	return gb_per_s(now_ns() - start);
}

static void latency(struct end *e, struct lines *lines, struct pst_key key)
{
	double writes[ROUNDS], messages[ROUNDS], bare[ROUNDS];

	for (int r = -WARM_UP; r < ROUNDS; r++) {
		double w = time_short_writes(e, key), l = time_lines(e, lines);
		double m = time_messages(e);

		if (r < 0)
			continue;
		writes[r] = w;
		messages[r] = m;
		bare[r] = l;
	}
	printf("one way between two spinning processes, medians of %d rounds of %d there and "
	       "back\n",
	       ROUNDS, TRIPS);
	puts("#bytes  write[ns]  message[ns]  cache line[ns]  write/line  message/line  (goal: "
	     "1.3)");
	printf("%6d %10.1f %12.1f %15.1f %11.2f %13.2f\n", 8, median(writes), median(messages),
	       median(bare), ratio(writes, bare), ratio(messages, bare));
}

static void bandwidth(struct end *e, struct pst_key key)
{
	double ours[ROUNDS], bare[ROUNDS];
	uint64_t len;
	void *to;

	must(pst_link_map(e->link, key, PST_ACCESS_WRITE, &to, &len), "map", NULL);
	for (int r = -WARM_UP; r < ROUNDS; r++) {
		double w = time_writes(e, key), c = time_memcpy(e, to);

		if (r < 0)
			continue;
		ours[r] = w;
		bare[r] = c;
	}
	printf("one-sided writes between regions of %d MiB, medians of %d rounds of %d\n",
	       REGION >> 20, ROUNDS, COPIES);
	puts("#bytes   write[GB/s]  memcpy[GB/s]  write/memcpy");
	printf("%7d %12.2f %13.2f %13.2f\n", WRITE, median(ours), median(bare), ratio(ours, bare));
}

int main(void)
{
	struct lines *lines = mmap(NULL, sizeof(*lines), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pst_error err = {0};
	struct pst_listener *listener;
	struct pst_key key, mine;
	struct end e = {0};
	struct pst_wc wc;
	char url[64];
	pid_t pid;

	perf_clock_start();
	snprintf(url, sizeof(url), "shm://bench-%d", (int)getpid());
	pid = fork();
	if (!pid)
		peer(url, lines);
	take_core(0);
	open_end(&e, url);
	must(pst_listen(e.cq, url, &listener, &err), "listen", &err);
	must(pst_cq_wait(e.cq, &wc, 1, 10000) - 1, "nobody came", NULL);
	e.link = wc.link;
	if (!hear(&e, &key, sizeof(key)))
		must(-1, "the peer is gone", NULL);
	must(pst_link_grant(e.link, e.region, PST_ACCESS_WRITE, &mine), "grant", NULL);
	must(pst_link_send(e.link, &mine, sizeof(mine), 1000), "send", NULL);
	latency(&e, lines, key);
	bandwidth(&e, key);
	pst_region_release(e.region);
	pst_link_close(e.link);
	pst_cq_destroy(e.cq);
	pst_fabric_close(e.fab);
	waitpid(pid, NULL, 0);
	return 0;
}
