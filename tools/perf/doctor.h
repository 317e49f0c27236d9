/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.h - penstock-perf doctor: what a machine or a path would cost us, before any work.
 *
 * The model
 *   check   one function that looks at one thing (the tables in doctor.c)
 *   line    what a check found about one object: fine, or what it costs and what mends it
 *   root    the tree whose /sys, /proc, /dev and /etc are looked at: "" but in tests
 *   live    what no file tells and the kernel is asked for; tests answer in its stead
 *
 * A check says doctor_say() for each object, and then doctor_cost() and doctor_mend() where it is
 * not fine. What cannot be seen (in a container, say) is DOCTOR_UNKNOWN and no fault.
 */
#ifndef PERF_DOCTOR_H
#define PERF_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum doctor_state {
	DOCTOR_OK,
	DOCTOR_COSTS, /* works, and could be better */
	DOCTOR_STOPS, /* something that was asked for is impossible */
	DOCTOR_UNKNOWN,
};

struct doctor_line {
	enum doctor_state state;
	char check[64], found[320], cost[160], mend[320];
};

struct doctor_live {
	int (*io_uring)(void);		   /* 0: a ring can be had; or -errno */
	int (*clock_synced)(void);	   /* 1, 0, or -errno */
	int (*can_open)(const char *path); /* for reading and writing: 0 or -errno */
};

struct doctor {
	const char *root;
	const char *host; /* NULL: this machine; else what the path leads to */
	const char *key;  /* "": the usual places */
	const struct doctor_live *live;
	unsigned int timeout_ms;
	struct doctor_line *line;
	size_t nlines;
	bool failed; /* out of memory */
};

/* A new line. */
__attribute__((format(printf, 4, 5))) void doctor_say(struct doctor *d, enum doctor_state state,
						      const char *check, const char *fmt, ...);
/* About the last line. */
__attribute__((format(printf, 2, 3))) void doctor_cost(struct doctor *d, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void doctor_mend(struct doctor *d, const char *fmt, ...);
/* One of our libraries' sentences: what it says of the remedy becomes the line's. */
void doctor_sentence(struct doctor *d, enum doctor_state state, const char *check,
		     const char *text);
void doctor_free(struct doctor *d);

/* All checks of this machine, or of the path to d->host. */
void doctor_machine(struct doctor *d);
void doctor_path(struct doctor *d);
/* A line each; as JSON, 0 or -errno. */
void doctor_print(const struct doctor *d, FILE *out);
int doctor_json(const struct doctor *d, FILE *out);

/* doctor_read.c: under the root; paths as printf makes them. */
#define DOCTOR_NAMES 4096

struct doctor_names {
	size_t n;
	char name[DOCTOR_NAMES][64];
};

/* The file's text without white space at its end, up to @size: its length, or -errno. */
__attribute__((format(printf, 4, 5))) int doctor_read(const struct doctor *d, char *to, size_t size,
						      const char *fmt, ...);
/* A number at the beginning of a file. */
__attribute__((format(printf, 3, 4))) bool doctor_number(const struct doctor *d, long long *to,
							 const char *fmt, ...);
/* What is in a directory, sorted (numbers in names as numbers); also when there is none. */
__attribute__((format(printf, 3, 4))) void
doctor_list(const struct doctor *d, struct doctor_names *to, const char *fmt, ...);
/* The last name in a symbolic link; "" when there is none. */
__attribute__((format(printf, 4, 5))) void doctor_link(const struct doctor *d, char *to,
						       size_t size, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) bool doctor_there(const struct doctor *d, const char *fmt,
							...);
/* The value behind "@name:" in text of lines "name: value"; 0 when it is not there. */
long long doctor_field(const char *text, const char *name);
/* "512 MiB" */
const char *doctor_bytes(double bytes, char buf[24]);
/* The nodes of memory, by their numbers. */
void doctor_nodes(const struct doctor *d, struct doctor_names *to);

/* The RDMA device whose port is @netdev; "" when none is. */
void doctor_rdma_of(const struct doctor *d, const char *netdev, char to[64]);

/* The checks. */
void doctor_rdma(struct doctor *d);
void doctor_memlock(struct doctor *d);
void doctor_huge(struct doctor *d);
void doctor_thp(struct doctor *d);
void doctor_numa(struct doctor *d);
void doctor_balancing(struct doctor *d);
void doctor_swap(struct doctor *d);
void doctor_cgroup(struct doctor *d);
void doctor_placement(struct doctor *d);
void doctor_peer(struct doctor *d);
void doctor_clock(struct doctor *d);
void doctor_governor(struct doctor *d);
void doctor_synced(struct doctor *d);
void doctor_uring(struct doctor *d);
void doctor_tcp(struct doctor *d);
void doctor_key(struct doctor *d);

#endif /* PERF_DOCTOR_H */
