/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm.h - the inside of the shm fabric: its objects and which file does what.
 *
 *	shm.c		the table of functions; regions
 *	cq.c		polling, sleeping and waking
 *	link.c		a link: requests, what comes from the peer, its death
 *	grant.c		keys: granting, taking in, mapping
 *	setup.c		listener and the set-up of what it accepts
 *	connect.c	the connector's side of it
 *	ring.c		the rings
 *	sock.c		the sockets
 *
 * Data goes through the rings and mapped regions. The socket carries set-up,
 * grants (fds) and doorbells, and its end is how a death is seen. Doorbells are
 * packets and not eventfds because an eventfd is shared with the peer, who can
 * fill it and make a write to it block; MSG_DONTWAIT is the sender's own.
 */
#ifndef PST_SHM_H
#define PST_SHM_H

#include "rdma/ops.h"
#include "rdma/shm/ring.h"
#include "rdma/shm/sock.h"

#include <sys/queue.h>
#include <sys/types.h>

#define SHM_DONE_MAX   1024 /* completions of own requests that wait for a poll */
#define SHM_GRANTS_MAX 256  /* keys that one side gives over one link */
#define SHM_BUFS       64   /* messages that one poll can hand out */

/* Something in a cq's epoll set. */
struct shm_source {
	int fd;
	void (*ready)(struct shm_source *src, uint32_t events);
};

struct shm_cq {
	struct pst_cq base;
	int epfd;
	struct shm_source wake;
	bool woken;
	unsigned int polls;	    /* since the sockets were looked at */
	unsigned int skip, skipped; /* polls that do not look at the clock */
	int64_t looked;		    /* and when, in coarse ms */
	unsigned int used;	    /* of bufs, in this poll */
	unsigned int taken;	    /* links that listeners took, and that are not closed */
	unsigned char *bufs;	    /* SHM_BUFS of PST_MSG_MAX */
	TAILQ_HEAD(, shm_link) links;
	TAILQ_HEAD(, shm_listener) listeners;
};

/* A region that the peer granted. */
struct shm_taken {
	struct pst_key key;
	uint32_t access;
	int fd; /* until it is mapped */
	uint64_t len;
	uint64_t maplen;
	void *addr; /* NULL until it is used */
};

/* A region that this side granted. */
struct shm_given {
	struct pst_key key;
	uint64_t region_id;
	uint32_t access;
};

struct shm_done {
	uint64_t id;
	int32_t status;
	uint32_t cause;
	uint16_t op;
};

enum shm_state {
	SHM_LIVE,
	SHM_DYING, /* what arrived before is still handed out */
	SHM_DOWN,  /* PST_WC_DOWN was handed out */
};

struct shm_link {
	struct pst_link base;
	struct shm_source src;
	TAILQ_ENTRY(shm_link) on_cq;
	struct shm_area *area;
	struct shm_tx tx;
	struct shm_rx rx;
	enum shm_state state;
	int why;	   /* it is no longer live */
	unsigned int left; /* DYING: items that may still be handed out */
	bool announce;	   /* PST_WC_CONNECTED is due */
	bool accepted;	   /* by a listener of this cq */
	bool want_room;	   /* a post was cut short by a full ring */
	uint32_t done_head, done_tail;
	struct shm_done done[SHM_DONE_MAX];
	unsigned int ntaken, ngiven, last; /* last: the grant that was used last */
	struct shm_taken taken[SHM_GRANTS_MAX];
	struct shm_given given[SHM_GRANTS_MAX];
};

/* shm.c */
int64_t pst_shm_now(void); /* monotonic ms */

/* cq.c */
int pst_shm_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err);
void pst_shm_cq_destroy(struct pst_cq *cq);
int pst_shm_cq_poll(struct pst_cq *cq, struct pst_wc *wc, int n);
int pst_shm_cq_wait(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms);
void pst_shm_cq_wake(struct pst_cq *cq);
int pst_shm_watch(struct shm_cq *cq, struct shm_source *src);
void pst_shm_unwatch(struct shm_cq *cq, struct shm_source *src);
/* A buffer that stays valid until the next poll, NULL if there is none left. */
void *pst_shm_buf(struct shm_cq *cq);

/* link.c */
/*
 * A link on a connected socket and the memfd of its rings; @side is the ring
 * that this end writes: 0 for the connector, 1 for the listener. On success the
 * socket is the link's; the memfd stays the caller's.
 */
int pst_shm_link_new(struct shm_cq *cq, int sock, int memfd, int side, struct shm_link **out);
void pst_shm_link_close(struct pst_link *link);
int pst_shm_link_post(struct pst_link *link, const struct pst_wr *wr, int n);
int pst_shm_link_room(struct pst_link *link, int timeout_ms);
int pst_shm_link_info(const struct pst_link *link, struct pst_link_info *out);
int pst_shm_link_poll(struct shm_link *link, struct pst_wc *wc, int n);
/* About to sleep: is there nothing to hand out? */
bool pst_shm_link_arm(struct shm_link *link);
/* Did a ring that was full get room? True once. */
bool pst_shm_link_has_room(struct shm_link *link);
/* Read what is on the socket. */
void pst_shm_link_read(struct shm_link *link);

/* grant.c */
int pst_shm_link_grant(struct pst_link *link, struct pst_region *region, uint32_t access,
		       struct pst_key *out);
int pst_shm_link_map(struct pst_link *link, struct pst_key key, uint32_t access, void **addr,
		     uint64_t *len);
/* The grant behind @key, mapped. -ENOENT, -EACCES, or why it could not be mapped. */
int pst_shm_find(struct shm_link *link, const struct pst_key *key, uint32_t access,
		 struct shm_taken **out);
/* Is @t, which may be none (all zero), the mapped grant of @key, and good for @access? */
static inline bool pst_shm_allows(const struct shm_taken *t, const struct pst_key *key,
				  uint32_t access)
{
	return t->addr && t->key.k[0] == key->k[0] && t->key.k[1] == key->k[1] &&
	       !(access & ~t->access);
}
/* A grant came; takes @fd in any case. -EPROTO if it is not one. */
int pst_shm_take(struct shm_link *link, uint32_t access, uint64_t len, struct pst_key key, int fd);
void pst_shm_drop_grants(struct shm_link *link);

/* setup.c */
struct shm_listener;
int pst_shm_listen(struct pst_cq *cq, const char *url, struct pst_listener **out,
		   struct pst_error *err);
void pst_shm_listener_close(struct pst_listener *listener);
/* Close every listener of @cq. */
void pst_shm_listeners_close(struct shm_cq *cq);
/* End set-ups that take too long. When to come back, in ms of pst_shm_now(); -1: never. */
int64_t pst_shm_listeners_tick(struct shm_cq *cq);

/* connect.c */
int pst_shm_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		    struct pst_error *err);

#endif /* PST_SHM_H */
