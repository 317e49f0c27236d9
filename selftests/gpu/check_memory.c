/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/gpu/check_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	LEAST = 6, /* allocations are powers of two, from 64 bytes */
	CLASSES = 32,
	RANGES = 1024,
};
#define STACK ((size_t)2 << 20)
#define ARENA ((size_t)1 << 30)
#define CHUNK ((size_t)4 << 20) /* registered at once */

void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
int __real_munmap(void *at, size_t len);
int __real_mprotect(void *at, size_t len, int prot);
void __real_free(void *p);

static struct {
	unsigned char *base;
	size_t used, registered;
	struct free_block {
		struct free_block *next;
	} * free[CLASSES];
} arena;

/* What is mapped, and of that what may be touched. */
static struct range {
	unsigned char *at, *from, *to;
	size_t len;
	bool registered;
} ranges[RANGES];
static int nranges;

static const struct pst_cuda *driver;

__attribute__((noreturn)) static void give_up(const char *why)
{
	printf("# memory: %s\n", why);
	fflush(stdout);
	_exit(1);
}

/* The arena: blocks of powers of two, on a multiple of their size within it. */

static void *map(size_t len, int prot)
{
	void *p = __real_mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		give_up("there is no address space left");
	return p;
}

static void make_arena(void)
{
	arena.base = map(ARENA, PROT_READ | PROT_WRITE);
	arena.used = STACK;
}

static unsigned char classes[ARENA >> LEAST];

static void *take(size_t bytes)
{
	unsigned int class = LEAST;
	size_t at;

	while ((size_t)1 << class < bytes)
		class ++;
	if (!arena.base)
		make_arena();
	if (class < CLASSES && arena.free[class]) {
		struct free_block *b = arena.free[class];

		arena.free[class] = b->next;
		return b;
	}
	at = (arena.used + ((size_t)1 << class) - 1) >> class << class;
	if (class >= CLASSES || at + ((size_t)1 << class) > ARENA)
		give_up("a test wants more than its arena has");
	arena.used = at + ((size_t)1 << class);
	classes[at >> LEAST] = (unsigned char)class;
	return arena.base + at;
}

static bool in_arena(const void *p)
{
	const unsigned char *at = p;

	return arena.base && at >= arena.base && at < arena.base + ARENA;
}

void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
	return take(n);
}

void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	if (size && n > ARENA / size)
		give_up("a test wants more than its arena has");
	return memset(take(n * size), 0, n * size);
}

int __wrap_posix_memalign(void **to, size_t align, size_t n);
int __wrap_posix_memalign(void **to, size_t align, size_t n)
{
	*to = take(n > align ? n : align);
	return 0;
}

void *__wrap_aligned_alloc(size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return take(n > align ? n : align);
}

/* What the C library allocated for itself goes back there. */
void __wrap_free(void *p);
void __wrap_free(void *p)
{
	struct free_block *b = p;
	unsigned int class;

	if (!in_arena(p)) {
		__real_free(p);
		return;
	}
	class = classes[(size_t)((unsigned char *)p - arena.base) >> LEAST];
	b->next = arena.free[class];
	arena.free[class] = b;
}

/* Mapped ranges. */

static struct range *find(const void *at)
{
	const unsigned char *p = at;

	for (int i = 0; i < nranges; i++)
		if (p >= ranges[i].at && p < ranges[i].at + ranges[i].len)
			return &ranges[i];
	return NULL;
}

static void take_back(struct range *r)
{
	CUresult rc = r->registered ? driver->cuMemHostUnregister(r->from) : 0;

	if (rc)
		give_up("cuMemHostUnregister() failed");
	r->registered = false;
}

void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	unsigned char *p = __real_mmap(at, len, prot, flags, fd, off);

	if (p == MAP_FAILED || !(flags & MAP_ANONYMOUS) || !(flags & MAP_PRIVATE))
		return p;
	if (nranges == RANGES)
		give_up("a test has mapped too much");
	len = (len + PAGE - 1) / PAGE * PAGE;
	ranges[nranges++] =
		(struct range){.at = p, .len = len, .from = p, .to = prot ? p + len : p};
	return p;
}

int __wrap_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len)
{
	struct range *r = find(at);

	if (r) {
		take_back(r);
		*r = ranges[--nranges];
	}
	return __real_munmap(at, len);
}

/* One stretch of a range may be touched: made so, or what is left when its ends are closed. */
int __wrap_mprotect(void *at, size_t len, int prot);
int __wrap_mprotect(void *at, size_t len, int prot)
{
	unsigned char *p = at, *end = p + (len + PAGE - 1) / PAGE * PAGE;
	struct range *r = find(at);

	if (r) {
		take_back(r);
		if (prot)
			r->from = p, r->to = end;
		else if (end == r->to)
			r->to = p;
		else if (p == r->from)
			r->from = end;
		else
			give_up("a test closes the middle of what it mapped");
	}
	return __real_mprotect(at, len, prot);
}

/* With the driver. */

static CUresult reg(void *at, size_t len)
{
	return driver->cuMemHostRegister(
		at, len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
}

CUresult check_memory_register(const struct pst_cuda *cu)
{
	CUresult rc = 0;

	driver = cu;
	while (!rc && arena.registered < arena.used) {
		size_t len = arena.registered ? CHUNK : STACK;

		rc = reg(arena.base + arena.registered, len);
		arena.registered += rc ? 0 : len;
	}
	for (int i = 0; i < nranges && !rc; i++) {
		struct range *r = &ranges[i];

		if (r->registered || r->from == r->to)
			continue;
		rc = reg(r->from, (size_t)(r->to - r->from));
		r->registered = !rc;
	}
	return rc;
}

bool check_memory_knows(const void *at)
{
	const unsigned char *p = at;

	if (in_arena(at))
		return p < arena.base + arena.used;
	for (int i = 0; i < nranges; i++)
		if (p >= ranges[i].from && p <= ranges[i].to)
			return true;
	return false;
}

/* The stack. */

struct call {
	int (*main)(int argc, char **argv);
	int argc, rc;
	char **argv;
};

static void *run(void *arg)
{
	struct call *c = arg;

	c->rc = c->main(c->argc, c->argv);
	return NULL;
}

int check_memory_stack(int (*main)(int argc, char **argv), int argc, char **argv)
{
	struct call c = {.main = main, .argc = argc, .argv = argv};
	pthread_attr_t attr;
	pthread_t thread;

	if (!arena.base)
		make_arena();
	pthread_attr_init(&attr);
	if (pthread_attr_setstack(&attr, arena.base, STACK) ||
	    pthread_create(&thread, &attr, run, &c) || pthread_join(thread, NULL))
		give_up("a thread with a stack of its own cannot be had");
	pthread_attr_destroy(&attr);
	return c.rc;
}
