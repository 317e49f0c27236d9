/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/place.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define WORD	    (8 * sizeof(unsigned long))
#define BATCH	    1024	 /* pages per move_pages() */
#define PER_THREAD  (1ull << 30) /* populate: bytes that are worth a thread */
#define MAX_THREADS 16

static void set(struct pst_node_mask *mask, unsigned long n)
{
	mask->bits[n / WORD] |= 1ul << n % WORD;
}

int pst_place_has(const struct pst_node_mask *mask, int node)
{
	return node >= 0 && node < PST_PLACE_NODES &&
	       (mask->bits[(size_t)node / WORD] >> (size_t)node % WORD & 1);
}

int pst_place_count(const struct pst_node_mask *mask)
{
	int n = 0;

	for (size_t i = 0; i < PST_PLACE_NODES / WORD; i++)
		n += __builtin_popcountl(mask->bits[i]);
	return n;
}

int pst_place_parse(const char *list, struct pst_node_mask *out)
{
	struct pst_node_mask mask = {{0}};

	while (*list && *list != '\n') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (end == list)
			return -EINVAL;
		if (*end == '-') {
			list = end + 1;
			last = strtoul(list, &end, 10);
			if (end == list)
				return -EINVAL;
		}
		if (last < first || last >= PST_PLACE_NODES)
			return -EINVAL;
		for (; first <= last; first++)
			set(&mask, first);
		list = *end == ',' ? end + 1 : end;
		if (*end && *end != ',' && *end != '\n')
			return -EINVAL;
	}
	*out = mask;
	return 0;
}

static int read_list(const char *root, const char *path, struct pst_node_mask *out)
{
	char name[512], line[4096];
	int rc = -ENOENT;
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	f = fopen(name, "re");
	if (!f)
		return -ENOENT;
	if (fgets(line, sizeof(line), f))
		rc = pst_place_parse(line, out);
	fclose(f);
	return rc;
}

void pst_place_nodes(const char *root, struct pst_node_mask *out)
{
	if (!read_list(root, "/sys/devices/system/node/has_memory", out) && pst_place_count(out))
		return;
	if (!read_list(root, "/sys/devices/system/node/online", out) && pst_place_count(out))
		return;
	memset(out, 0, sizeof(*out));
	set(out, 0);
}

int pst_place_here(void)
{
	unsigned int cpu, node;

	return syscall(SYS_getcpu, &cpu, &node, NULL) ? 0 : (int)node;
}

int pst_place_bind(void *base, uint64_t bytes, int node, int strict)
{
	struct pst_node_mask mask = {{0}};

	set(&mask, (unsigned long)node);
	/* The kernel takes the number of bits plus one. */
	if (syscall(SYS_mbind, base, bytes, strict ? MPOL_BIND : MPOL_PREFERRED, mask.bits,
		    PST_PLACE_NODES + 1ul, 0))
		return -errno;
	return 0;
}

/* Run this thread on the CPUs of @node; @old is what to go back to. */
static int go_to(const char *root, int node, cpu_set_t *old)
{
	struct pst_node_mask cpus;
	cpu_set_t set;
	char path[96];
	int any = 0;

	if (sched_getaffinity(0, sizeof(*old), old))
		return -errno;
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	if (read_list(root, path, &cpus))
		return -ENOENT;
	CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE && i < PST_PLACE_NODES; i++)
		if (pst_place_has(&cpus, i) && CPU_ISSET(i, old)) {
			CPU_SET(i, &set);
			any = 1;
		}
	if (!any)
		return -ENOENT;
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

struct populate {
	pthread_t thread;
	char *base;
	uint64_t bytes, page;
	int rc;
};

static void *populate_part(void *arg)
{
	struct populate *p = arg;

	p->rc = 0;
	if (!p->bytes || !madvise(p->base, p->bytes, MADV_POPULATE_WRITE))
		return NULL;
	p->rc = -errno;
	if (p->rc != -EINVAL)
		return NULL;
	for (uint64_t i = 0; i < p->bytes; i += p->page)
		__atomic_fetch_or(p->base + i, 0, __ATOMIC_RELAXED);
	p->rc = 0;
	return NULL;
}

int pst_place_populate(const char *root, void *base, uint64_t bytes, uint64_t page, int node)
{
	struct populate part[MAX_THREADS];
	uint64_t n = bytes / PER_THREAD, each, i, started;
	cpu_set_t old;
	int moved, rc = 0;

	moved = node >= 0 && !go_to(root, node, &old);
	n = n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
	each = bytes / n / page * page;
	for (i = 0; i < n; i++)
		part[i] = (struct populate){.base = (char *)base + i * each,
					    .bytes = i + 1 < n ? each : bytes - i * each,
					    .page = page};
	/* Threads begin where their maker may run. What gets no thread is done here. */
	for (started = 1; started < n; started++)
		if (pthread_create(&part[started].thread, NULL, populate_part, &part[started]))
			break;
	populate_part(&part[0]);
	for (i = started; i < n; i++)
		populate_part(&part[i]);
	for (i = 1; i < started; i++)
		pthread_join(part[i].thread, NULL);
	for (i = 0; i < n && !rc; i++)
		rc = part[i].rc;
	if (moved)
		sched_setaffinity(0, sizeof(old), &old);
	return rc;
}

static long move_pages(unsigned long n, void **page, const int *node, int *status)
{
	return syscall(SYS_move_pages, 0, n, page, node, status, MPOL_MF_MOVE) < 0 ? -errno : 0;
}

static int ask(unsigned long n, void **page, int *status)
{
	long rc = move_pages(n, page, NULL, status);

	for (unsigned long i = 0; !rc && i < n; i++) {
		int again;

		/* Not in this process's page table (swapped out, or never touched): bring it. */
		if (status[i] != -ENOENT)
			continue;
		(void)*(volatile char *)page[i];
		rc = move_pages(1, &page[i], NULL, &again);
		status[i] = again;
	}
	return (int)rc;
}

int pst_place_audit(void *base, uint64_t bytes, uint64_t page, int node, int repair,
		    struct pst_place_audit *out)
{
	void *at[BATCH], *wrong[BATCH];
	int status[BATCH], to[BATCH];
	struct pst_place_audit sum = {0, 0};
	uint64_t pages = bytes / page;

	for (uint64_t done = 0; done < pages;) {
		unsigned long n = pages - done < BATCH ? pages - done : BATCH, bad = 0;
		int rc;

		for (unsigned long i = 0; i < n; i++)
			at[i] = (char *)base + (done + i) * page;
		rc = ask(n, at, status);
		if (rc)
			return rc;
		for (unsigned long i = 0; i < n && repair; i++)
			if (status[i] >= 0 && status[i] != node) {
				to[bad] = node;
				wrong[bad++] = at[i];
			}
		if (bad) {
			int moved[BATCH];

			move_pages(bad, wrong, to, moved); /* what it did is asked next */
			rc = ask(n, at, status);
			if (rc)
				return rc;
		}
		for (unsigned long i = 0; i < n; i++) {
			sum.checked += status[i] >= 0;
			sum.elsewhere += status[i] >= 0 && status[i] != node;
		}
		done += n;
	}
	*out = sum;
	return 0;
}
