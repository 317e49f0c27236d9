/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.h - what one fabric is to the front (fabric.c): a table of functions, and
 * the heads that its objects begin with.
 *
 * A fabric embeds the heads below in structs of its own; the front fills what
 * is common, checks arguments that are wrong on every fabric, and calls. To add
 * a fabric: one file with a `const struct pst_fabric_ops`, one line in the list
 * in fabric.c. "Thread" says who may be inside a callback: "owner" is the one
 * thread that a cq and its links belong to.
 */
#ifndef PST_FABRIC_OPS_H
#define PST_FABRIC_OPS_H

#include "rdma/cause.h"
#include "rdma/fabric.h"
#include "rdma/url.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>

/* A fabric's own object around one of the heads below. */
#define pst_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* The fields of struct pst_fabric_stat. */
/* clang-format off */
#define PST_COUNTERS(X) \
	X(read_bytes) X(write_bytes) X(copied_bytes) X(messages) X(immediates) X(doorbells) \
	X(links_lost) X(links_refused) X(rails_lost) X(replayed) X(crc_bad) \
	X(registered_bytes) X(registered_ns)
/* clang-format on */

struct pst_fabric_counters {
#define X(name) _Atomic uint64_t name;
	PST_COUNTERS(X)
#undef X
};

struct pst_fabric {
	const struct pst_fabric_ops *ops;
	struct pst_settings set;	  /* from the URL that it was opened with */
	void *priv;			  /* the fabric's own, from open */
	struct pst_fabric_counters count; /* by any thread: pst_count() */
	pthread_mutex_t lock;		  /* of the list */
	LIST_HEAD(, pst_cq) cqs;
};

struct pst_region {
	struct pst_fabric *fab;
	uint64_t id; /* never used again, unlike the address of this struct */
	void *addr;
	uint64_t len;
	int fd;
	uint32_t access;
	uint32_t flags;
	void *priv; /* the fabric's own, from region_register */
};

struct pst_cq {
	struct pst_fabric *fab;
	LIST_ENTRY(pst_cq) on_fabric;	  /* the front's */
	struct pst_fabric_counters count; /* by its owner alone: pst_count_mine() */
};

struct pst_listener {
	struct pst_cq *cq;
	char url[PST_URL_MAX]; /* without settings, with the real port */
};

/*
 * Where writes go that need nobody: the peer's memory, mapped. The front carries out by itself a
 * write that tells nobody and lies in here, without a call. A fabric that maps fills it in with
 * what was written to last; @len is 0 when there is none, and as soon as the link is not alive.
 */
struct pst_direct {
	struct pst_fabric *fab; /* of the link, and of local regions */
	struct pst_key key;
	char *at;
	uint64_t len;
};

struct pst_link {
	struct pst_cq *cq;
	struct pst_direct direct;
	void *user;
	int pid;
	char peer[PST_URL_MAX + 24];
	struct pst_trace trace; /* the last requests, and the last failure */
};

struct pst_fabric_ops {
	const char *scheme; /* the URL's, without "://" */

	/* Optional: set up and undo @fab->priv. Thread: any. */
	int (*open)(struct pst_fabric *fab, struct pst_error *err);
	void (*close)(struct pst_fabric *fab);

	/* Required: refuse memory that this fabric cannot share. Thread: any. */
	int (*region_register)(struct pst_region *region, struct pst_error *err);
	/* Optional: undo region_register. Thread: any. */
	void (*region_release)(struct pst_region *region);

	/* Required. cq_destroy closes what links and listeners are left. Thread: owner. */
	int (*cq_create)(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err);
	void (*cq_destroy)(struct pst_cq *cq);
	/* Required; @n > 0. As in fabric.h. Thread: owner. */
	int (*cq_poll)(struct pst_cq *cq, struct pst_wc *wc, int n);
	int (*cq_wait)(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms);
	/* Required; must not block. Thread: any. */
	void (*cq_wake)(struct pst_cq *cq);

	/* Required; @url has this scheme and no settings (those are in the fabric). Thread: owner.
	 */
	int (*listen)(struct pst_cq *cq, const char *url, struct pst_listener **out,
		      struct pst_error *err);
	void (*listener_close)(struct pst_listener *listener);
	int (*connect)(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		       struct pst_error *err);
	void (*link_close)(struct pst_link *link);

	/* Required; @access was checked against the region's. Thread: owner. */
	int (*link_grant)(struct pst_link *link, struct pst_region *region, uint32_t access,
			  struct pst_key *out);
	/* Optional: a fabric without it answers -EOPNOTSUPP. Thread: owner. */
	int (*link_map)(struct pst_link *link, struct pst_key key, uint32_t access, void **addr,
			uint64_t *len);
	/*
	 * Required; the @n > 0 requests are well formed. A send that is
	 * PST_WR_UNSIGNALED must not need room for a completion. Thread: owner.
	 */
	int (*link_post)(struct pst_link *link, const struct pst_wr *wr, int n);
	/*
	 * Required: wait until link_post may take another send. 0, -ETIMEDOUT,
	 * -EINTR, -ENOTCONN; @timeout_ms < 0 is for ever. Thread: owner.
	 */
	int (*link_room)(struct pst_link *link, int timeout_ms);
	/* Required; *out is zeros. As in fabric.h. Thread: owner. */
	int (*link_info)(const struct pst_link *link, struct pst_link_info *out);
};

/* Up to 16 bytes without a call; the pieces overlap, but for the 8 of a flag. */
static inline void pst_copy(void *to, const void *from, uint64_t len)
{
	unsigned char *t = to;
	const unsigned char *f = from;

	if (len == 8)
		memcpy(t, f, 8);
	else if (len > 16 || len < 4)
		memcpy(t, f, len);
	else if (len < 8) {
		memcpy(t, f, 4);
		memcpy(t + len - 4, f + len - 4, 4);
	} else {
		memcpy(t, f, 8);
		memcpy(t + len - 8, f + len - 8, 8);
	}
}

extern const struct pst_fabric_ops pst_shm_ops;
extern const struct pst_fabric_ops pst_tcp_ops;
extern const struct pst_fabric_ops pst_verbs_ops;

static inline void pst_count(_Atomic uint64_t *counter, uint64_t n)
{
	if (n)
		atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The same where one thread alone counts: a locked addition is a good part of a small request. */
static inline void pst_count_mine(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

#endif /* PST_FABRIC_OPS_H */
