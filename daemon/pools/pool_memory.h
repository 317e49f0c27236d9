/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool_memory.h - the memory of one pool: had from runtime's pool or from the module, given out,
 * looked at, let go. No ids, names or owners.
 *
 * It is made in a process of its own, penstock-pool: to fill and lock hundreds of gigabytes takes
 * minutes, for which the kernel lets no thread of the process change its mappings, not even for a
 * malloc(). If the memory is locked that process stays, as the one that holds the lock, until
 * nobody has the other end of its socket any more. So the lock too outlives a daemon that is
 * killed.
 */
#ifndef DAEMON_POOL_MEMORY_H
#define DAEMON_POOL_MEMORY_H

#include <penstock/error.h>
#include <penstock/ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pst_pool;

struct pool_memory {
	int fd;	    /* a memfd, or a dma-buf of the module */
	int reader; /* the dma-buf for who may only read; -1: a memfd, opened again for them */
	int door;   /* of the module, which has the pool as long as this is open; -1 */
	int holder; /* end of a socket: its other end locks the memory; -1: nobody has to, or could
		     */
	struct pst_pool *pool; /* in the process that holds the lock; else NULL */
	uint64_t bytes, page_bytes;
	int32_t node;
	uint32_t flags; /* PST_POOL_CREATE_HUGE, LOCK: what holds */
	bool huge;	/* pages that are never swapped, locked or not */
	bool module;
	char note[256]; /* what is worse than asked, and what mends it; or empty */
};

#define POOL_MEMORY_NONE ((struct pool_memory){.fd = -1, .reader = -1, .door = -1, .holder = -1})

struct pool_wish {
	char name[PST_NAME_MAX];
	uint64_t bytes;
	int32_t node; /* PST_ANY: where @pid runs */
	pid_t pid;
	uint32_t flags; /* PST_POOL_CREATE_HUGE, LOCK */
	bool module;
};

/* The node where @pid ran last, or PST_ANY. */
int pool_node_of(pid_t pid);

/* A door of the module: a descriptor, or -ENOENT: it is not loaded, or another -errno. */
int pool_module_open(void);
int pool_module_make(const struct pool_wish *wish, struct pool_memory *out, struct pst_error *err);

/* What is asked of penstock-pool, in one packet, and its answer, with @fds descriptors. */
struct pool_answer {
	int32_t rc; /* as POOL_CREATE says */
	uint32_t fds;
	struct pst_error err;
	struct pool_memory
		memory; /* descriptors in the order of the fields, where they are not -1 */
};

/* Start penstock-pool: a socket for the answer, and the process, which is the caller's to wait for.
 */
int pool_memory_ask(const struct pool_wish *wish, int *sock, pid_t *pid, struct pst_error *err);
/*
 * What it answered, when @sock can be read. @sock is taken over, as the holder or not. -EAGAIN: not
 * yet; -errno as POOL_CREATE says.
 */
int pool_memory_take(const struct pool_wish *wish, int sock, struct pool_memory *out,
		     struct pst_error *err);

/* In that process. */
int pool_memory_make(const struct pool_wish *wish, struct pool_memory *out, struct pst_error *err);

/* Takes long if it is the last that has it. */
void pool_memory_free(struct pool_memory *m);

/* A descriptor to be given out. -errno. */
int pool_memory_writer(const struct pool_memory *m);
int pool_memory_reader(const struct pool_memory *m);

/*
 * Where are its pages? As many are looked at as can be in a few milliseconds, others each time
 * (@turn). -errno of move_pages(2): nobody knows.
 */
int pool_memory_look(const struct pool_memory *m, uint64_t turn, uint64_t *pages,
		     uint64_t *elsewhere);

#endif /* DAEMON_POOL_MEMORY_H */
