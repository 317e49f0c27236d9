/* SPDX-License-Identifier: Apache-2.0 */
/* The control file of the stand-ins: made by tests, looked at by the libraries. */
#include "selftests/gpu/standin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void like_h200(struct standin_gpu *g, uint32_t i, uint64_t memory)
{
	snprintf(g->name, sizeof(g->name), "Stand-in H200");
	snprintf(g->uuid, sizeof(g->uuid), "GPU-57a2d111-0000-4000-8000-%012x", i);
	snprintf(g->pci, sizeof(g->pci), "00000000:%02X:00.0", 0x3b + i);
	g->memory_bytes = memory;
	g->sms = 132;
	g->cores = 132 * 128;
	g->major = 9;
	g->temperature_c = 41;
	g->power_mw = 120000;
	g->cap_mw = 700000;
	g->cap_min_mw = 200000;
	g->cap_max_mw = 700000;
	g->clock_mhz = 1980;
	g->clock_min_mhz = 345;
	g->clock_max_mhz = 1980;
	g->memory_clock_mhz = 3201;
	g->energy_mj = 1000;
}

struct standin *standin_make(const char *path, uint32_t ngpus, uint64_t memory)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct standin *s = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, sizeof(*s)))
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED || ngpus > STANDIN_GPUS) {
		perror(path);
		_exit(1);
	}
	close(fd);
	s->ngpus = ngpus;
	s->cuda_version = 13000;
	for (uint32_t i = 0; i < STANDIN_GPUS; i++)
		like_h200(&s->gpu[i], i, memory);
	s->size = sizeof(*s);
	return s;
}

static struct standin *found;

static void find(void)
{
	const char *path = getenv(STANDIN_ENV);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	struct standin *s = MAP_FAILED;
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size == (off_t)sizeof(*s))
		s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (s != MAP_FAILED && s->size == sizeof(*s))
		found = s;
	else if (s != MAP_FAILED)
		munmap(s, sizeof(*s));
}

struct standin *standin_find(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find);
	return found;
}

uint32_t standin_enter(struct standin *s, enum standin_call fn)
{
	struct standin_fn *f = &s->fn[fn];
	uint32_t n = f->fail_in;

	f->calls++;
	while (f->hang)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	while (n && !atomic_compare_exchange_weak(&f->fail_in, &n, n - 1))
		;
	return n == 1 ? f->fail_rc : 0;
}

void standin_xid(struct standin *s, uint32_t gpu, uint64_t xid)
{
	struct standin_gpu *g = &s->gpu[gpu];

	g->xid[g->xids % STANDIN_XIDS] = xid;
	g->xids++;
}

uint64_t standin_used(struct standin *s, uint32_t gpu)
{
	struct standin_gpu *g = &s->gpu[gpu];
	uint64_t sum = 0;

	for (int i = 0; i < STANDIN_PIDS; i++) {
		int32_t pid = g->holder[i].pid;

		if (pid && kill(pid, 0) && errno == ESRCH) {
			g->holder[i].bytes = 0;
			atomic_compare_exchange_strong(&g->holder[i].pid, &pid, 0);
		} else if (pid) {
			sum += g->holder[i].bytes;
		}
	}
	return sum;
}

int standin_take(struct standin *s, uint32_t gpu, int64_t bytes)
{
	struct standin_gpu *g = &s->gpu[gpu];
	uint64_t used = standin_used(s, gpu);
	int32_t me = getpid(), none;

	if (bytes > 0 && used + (uint64_t)bytes > g->memory_bytes)
		return -1;
	for (int i = 0; i < STANDIN_PIDS; i++) {
		none = 0;
		if (g->holder[i].pid == me ||
		    atomic_compare_exchange_strong(&g->holder[i].pid, &none, me)) {
			g->holder[i].bytes += (uint64_t)bytes;
			return 0;
		}
	}
	return -1;
}
