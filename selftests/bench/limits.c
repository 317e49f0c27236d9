/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.c - what no fabric can beat on this machine: one number each for fabric.sh, all without
 * an argument.
 *
 *	limits spin		us, one way: two processes spin on two cache lines
 *	limits memcpy BYTES	MiB/s between two shared mappings, over and over
 *	limits socket BYTES	us, one way: BYTES there and back over blocking TCP sockets
 *
 * Latencies are means of the middle half of the round trips, timed as penstock-perf does it; the
 *two ends are on CPUs 0 and 1, as with its --pin.
 */
#include "rdma/pause.h"
#include "tools/perf/clock.h"
#include "tools/perf/histogram.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM = 1000, SPINS = 100000, SOCKETS = 20000, COPIES_MIB = 4096 };

static struct histogram seen;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void take_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* with one CPU both ends share it */
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1 && sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static void *shared(size_t len)
{
	int fd = memfd_create("limits", MFD_CLOEXEC);
	void *at;

	if (fd < 0 || ftruncate(fd, (off_t)len))
		die("memfd");
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static pid_t other(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	take_cpu(!pid);
	return pid;
}

static void print_half(void)
{
	printf("%.4f\n", histogram_midmean(&seen) * perf_ns_per_tick / 2e3);
}

struct lines {
	_Alignas(128) _Atomic uint64_t there;
	_Alignas(128) _Atomic uint64_t back;
};

static void spin(size_t unused)
{
	struct lines *l = shared(sizeof(*l));
	uint64_t before;

	(void)unused;
	if (!other()) {
		for (uint64_t i = 1; i <= WARM + SPINS; i++) {
			while (atomic_load_explicit(&l->there, memory_order_acquire) != i)
				pst_pause();
			atomic_store_explicit(&l->back, i, memory_order_release);
		}
		exit(0);
	}
	before = perf_ticks();
	for (uint64_t i = 1, last = 0; i <= WARM + SPINS; i++) {
		uint64_t now;

		atomic_store_explicit(&l->there, i, memory_order_release);
		if (i > WARM + 1)
			histogram_record(&seen, last);
		while (atomic_load_explicit(&l->back, memory_order_acquire) != i)
			pst_pause();
		now = perf_ticks();
		last = now - before;
		before = now;
	}
	print_half();
}

static void copy(size_t bytes)
{
	unsigned char *from = shared(bytes), *to = shared(bytes);
	size_t n = ((size_t)COPIES_MIB << 20) / bytes;
	uint64_t start;

	take_cpu(0);
	memset(from, 1, bytes);
	memset(to, 2, bytes);
	start = perf_ticks();
	for (size_t i = 0; i < n; i++) {
		memcpy(to, from, bytes);
		__asm__ volatile("" ::: "memory");
	}
	printf("%.2f\n", (double)(n * bytes) / 1048576 / perf_seconds(perf_ticks() - start));
}

static void all_of(int fd, char *buf, size_t len, ssize_t (*step)(int, void *, size_t))
{
	while (len) {
		ssize_t n = step(fd, buf, len);

		if (n <= 0)
			die("socket");
		buf += n;
		len -= (size_t)n;
	}
}

static ssize_t put(int fd, void *buf, size_t len)
{
	return send(fd, buf, len, MSG_NOSIGNAL);
}

static ssize_t get(int fd, void *buf, size_t len)
{
	return recv(fd, buf, len, 0);
}

/* A connected pair over the loopback device: [0] is this process's. */
static void connect_pair(int fd[2])
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (bind(listener, (struct sockaddr *)&addr, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&addr, &len))
		die("listen");
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd[0], (struct sockaddr *)&addr, len))
		die("connect");
	fd[1] = accept(listener, NULL, NULL);
	for (int i = 0; i < 2; i++)
		if (setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
			die("setsockopt");
}

static void sockets(size_t bytes)
{
	char *buf = calloc(1, bytes);
	uint64_t before;
	int fd[2];

	if (!buf)
		die("calloc");
	connect_pair(fd);
	if (!other()) {
		for (int i = 0; i < WARM + SOCKETS; i++) {
			all_of(fd[1], buf, bytes, get);
			all_of(fd[1], buf, bytes, put);
		}
		exit(0);
	}
	for (int i = 0; i < WARM + SOCKETS; i++) {
		before = perf_ticks();
		all_of(fd[0], buf, bytes, put);
		all_of(fd[0], buf, bytes, get);
		if (i >= WARM)
			histogram_record(&seen, perf_ticks() - before);
	}
	print_half();
}

/* In a process of its own: the ends stay on their CPUs. */
static void show(const char *what, void (*measure)(size_t bytes), size_t bytes)
{
	pid_t pid;

	printf("%s: ", what);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		measure(bytes);
		exit(0);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		die("fork");
}

static void show_all(void)
{
	show("two spinning lines, one way [us]", spin, 0);
	show("memcpy of 1 MiB [MiB/s]", copy, 1 << 20);
	show("8 B over blocking sockets, one way [us]", sockets, 8);
}

int main(int argc, char **argv)
{
	size_t bytes = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;

	perf_clock_start();
	if (argc == 1)
		show_all();
	else if (argc == 2 && !strcmp(argv[1], "spin"))
		spin(0);
	else if (bytes && !strcmp(argv[1], "memcpy"))
		copy(bytes);
	else if (bytes && !strcmp(argv[1], "socket"))
		sockets(bytes);
	else {
		fprintf(stderr, "usage: limits [spin | memcpy BYTES | socket BYTES]\n");
		return 2;
	}
	return 0;
}
