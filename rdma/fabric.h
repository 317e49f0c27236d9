/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fabric.h - one-sided memory access and small messages between processes.
 *
 * The model
 *   fabric  one way of reaching peers, opened from a URL (rdma/url.h):
 *           shm://name        one host, shared memory
 *           tcp://host:port   sockets
 *           verbs://host:port RDMA: InfiniBand, RoCE, iWARP
 *           Counts what it moves. Its settings are the URL's (below).
 *   region  memory that links may be given: registered once with the fabric.
 *           Over shm a region is a whole memfd: what a peer must not see
 *           stands in another region.
 *   key     the right to one region over one link, 16 opaque bytes. The owner
 *           grants it on a link and sends it in a message; the peer names
 *           remote memory by (key, offset). It dies with the link.
 *   link    a reliable, ordered connection to one peer.
 *   cq      completion queue: where all that happens on some links arrives.
 *
 * Order of calls
 *   both    pst_fabric_open, pst_cq_create, pst_region_register
 *   server  pst_listen; a connection shows up as PST_WC_CONNECTED
 *   client  pst_connect
 *   both    pst_link_grant -> key goes to the peer in a message
 *           pst_link_post (any of send, read, write; batched) ; pst_cq_poll or
 *           pst_cq_wait ; ... ; pst_link_close, pst_cq_destroy, pst_fabric_close
 *
 * What completes how
 *   send, read, write post one request each; it ends in exactly one completion
 *   with the caller's @id and a status, unless it was posted with
 *   PST_WR_UNSIGNALED and succeeded. Requests of one link are carried out in
 *   order: a send posted after a write arrives after the write is visible.
 *   A write with PST_WR_IMM (its length may be 0) also raises PST_WC_IMM at
 *   the peer, after the written bytes are visible there.
 *   What was posted may still stand in this process, behind what goes before
 *   it: the links of a cq move on when the cq is polled or waited for. Local memory stays
 *   as it is until its request, or for one that tells nothing a later request of the link,
 *   has completed.
 *   When the peer dies, hangs up or breaks the protocol, every outstanding
 *   request completes with an error and then PST_WC_DOWN arrives once; later
 *   posts return -ENOTCONN. Nothing waits for a dead peer.
 *   Where pst_link_map() works (shm), memory can be used in place and nothing
 *   moves at all; a zero-length write with PST_WR_IMM then says "it is there".
 *
 * Settings, from the URL that a fabric is opened with (?name=value&name=value)
 *   timeout=MS  every outstanding request ends within this time of its last
 *               progress, and a silent peer is given up (default 2000; 100 to 600000;
 *               not over shm, where the kernel tells of a death at once)
 *   key=FILE    what both sides of a tcp or verbs link must share (rdma/secret.h);
 *               default $PENSTOCK_KEY, then ~/.config/penstock/key. There is no way without one.
 *   crc=0|1     CRC32C on every message (default 1)
 *   links=N     most links that a listener takes (default 1024)
 *   poll=0|1    1: pst_cq_wait spins instead of sleeping (default 0)
 *   conns=N     tcp: connections per link (default 1)
 *   io=auto|uring|epoll  tcp: how sockets are driven; uring is an error where io_uring is denied
 *   dev=A,B     verbs: only these devices, one rail each
 *   chunk=BYTES verbs: a region is registered in pieces of this size, side by side (default 1 GiB)
 *   map=0|1     shm: 0 refuses pst_link_map, as if the memory were far away
 * host may be a list, host,host: one rail each (verbs). Another name or value is -EINVAL.
 *
 * Who is let in: over shm the same user or root, by the socket. Over tcp and
 * verbs both sides prove with fresh challenges that they have the same key
 * (rdma/handshake.h). What is sent is neither hidden nor signed: a network
 * whose wires strangers can reach needs a tunnel.
 *
 * Hostile peers: messages are copied to private memory before the caller sees
 * them, lengths are checked, a peer that breaks the ring loses its link. It can
 * reach nothing but what was granted, read-only regions cannot be mapped writable.
 *
 * Threads: a cq and its links belong to one thread at a time. Regions and
 * fabrics may be shared; counters are atomic.
 *
 * Errors: -errno; set-up calls also fill @err (may be NULL). Outputs are
 * untouched on failure.
 */
#ifndef PST_FABRIC_H
#define PST_FABRIC_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pst_fabric;
struct pst_settings;
struct pst_region;
struct pst_listener;
struct pst_link;
struct pst_cq;

#define PST_MSG_MAX 4032 /* bytes in one small message */

struct pst_key {
	uint64_t k[2];
};

enum pst_access {
	PST_ACCESS_READ = 1,  /* the peer may read and map read-only */
	PST_ACCESS_WRITE = 2, /* the peer may also write and map writable */
};

enum pst_wr_op {
	PST_WR_SEND,  /* @local_addr, @len <= PST_MSG_MAX: copied at post time */
	PST_WR_WRITE, /* local memory to (key, remote_off) */
	PST_WR_READ,  /* (key, remote_off) to local memory */
};

enum pst_wr_flags {
	PST_WR_UNSIGNALED = 1, /* complete only if it fails */
	PST_WR_IMM = 2,	       /* WRITE: raise PST_WC_IMM with @imm at the peer */
};

struct pst_wr {
	uint64_t id;
	uint16_t op;	/* enum pst_wr_op */
	uint16_t flags; /* enum pst_wr_flags */
	uint32_t imm;
	struct pst_region *local; /* READ and WRITE with len > 0; SEND: NULL */
	void *local_addr;
	struct pst_key key;
	uint64_t remote_off;
	uint64_t len;
};

enum pst_wc_kind {
	PST_WC_DONE,	  /* a request of this side ended: id, op, status */
	PST_WC_MESSAGE,	  /* the peer sent msg, len bytes, valid until the next poll */
	PST_WC_IMM,	  /* the peer wrote with imm */
	PST_WC_CONNECTED, /* a listener has a new link */
	PST_WC_DOWN,	  /* the link is dead, status says why; close it */
};

struct pst_wc {
	struct pst_link *link;
	uint64_t id;
	int status; /* 0 or -errno */
	uint16_t kind;
	uint16_t op;
	uint32_t imm;
	uint32_t len;
	uint32_t cause; /* enum pst_cause, why it failed; pst_link_why() says it in words */
	const void *msg;
};

/* One of the last requests of a link, for who looks for a fault. */
struct pst_recent {
	uint64_t id;
	uint64_t region; /* SEND: 0; else low half of the key that it named */
	uint64_t remote_off;
	uint64_t len;
	uint16_t op;
	uint16_t flags;
	int32_t status; /* 0 also while it is under way */
};

#define PST_RECENT 64 /* of them are kept for each link */

/* What moved, ever, through one fabric (payload only, not messages). */
struct pst_fabric_stat {
	uint64_t read_bytes;   /* by one-sided reads of this side */
	uint64_t write_bytes;  /* by one-sided writes of this side */
	uint64_t copied_bytes; /* of those, bytes that went through a bounce */
	uint64_t messages;     /* small messages sent */
	uint64_t immediates;   /* immediates sent */
	uint64_t doorbells;    /* wake-ups of a sleeping peer */
	uint64_t links_lost;
	uint64_t links_refused; /* peers that were not let in */
	uint64_t rails_lost;
	uint64_t replayed; /* requests or slices done again on another rail */
	uint64_t crc_bad;  /* messages that arrived broken, and were asked for again */
	uint64_t registered_bytes;
	uint64_t registered_ns; /* time that it took, all together */
};

/*
 * Open the fabric that @url's scheme names, with the settings in @url; host and
 * port are not looked at. -EINVAL for a setting that there is not, -EPROTONOSUPPORT for an unknown
 * scheme (the text lists those there are), -ENODEV where this machine has no such device or library
 * (the text says what to install or load).
 */
int pst_fabric_open(const char *url, struct pst_fabric **out, struct pst_error *err);
void pst_fabric_close(struct pst_fabric *fab);
void pst_fabric_stat(const struct pst_fabric *fab, struct pst_fabric_stat *out);
/* What it was opened with (rdma/url.h). */
const struct pst_settings *pst_fabric_settings(const struct pst_fabric *fab);

/*
 * Register @len bytes at @addr, backed by @fd from its offset 0 (shm needs an
 * fd, and the fd must be a memfd of at least @len bytes, huge pages or not, made
 * with MFD_ALLOW_SEALING: it is sealed against shrinking here; -EINVAL otherwise).
 * @access is the most that a grant may give. The fd is borrowed, not closed.
 * With PST_REGION_DMABUF @fd is a dma-buf (memory of a GPU) and @addr what
 * local_addr counts in; -EOPNOTSUPP where the fabric or the device cannot take it.
 */
enum pst_region_flags {
	PST_REGION_DMABUF = 1,
};

struct pst_region_attr {
	size_t size; /* sizeof(struct pst_region_attr) */
	void *addr;
	uint64_t len;
	int fd; /* -1: none */
	uint32_t access;
	uint32_t flags; /* enum pst_region_flags */
	uint32_t reserved;
};

int pst_region_register(struct pst_fabric *fab, const struct pst_region_attr *attr,
			struct pst_region **out, struct pst_error *err);
void pst_region_release(struct pst_region *region); /* no link may use it any more */

int pst_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err);
void pst_cq_destroy(struct pst_cq *cq); /* its links and listeners are closed first */

/* Up to @n completions without waiting; their number, 0 if there are none. */
int pst_cq_poll(struct pst_cq *cq, struct pst_wc *wc, int n);

/*
 * The same, waiting up to @timeout_ms (-1: for ever) for the first; a short
 * spin, then sleep on the cq's file descriptor. 0 on timeout and when a link
 * whose queue was full for the last post can take more, -EINTR on a signal.
 */
int pst_cq_wait(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms);

/* Wake a thread that sleeps in pst_cq_wait (which then returns 0). Any thread. */
void pst_cq_wake(struct pst_cq *cq);

/*
 * Accept connections at @url. -EADDRINUSE when somebody live serves it.
 * A connection is set up without blocking the listener, within the fabric's timeout.
 * Port 0 takes a free one.
 */
int pst_listen(struct pst_cq *cq, const char *url, struct pst_listener **out,
	       struct pst_error *err);
/* Where it listens: @url without settings, with the port that it has. Valid until it is closed. */
const char *pst_listener_url(const struct pst_listener *listener);
void pst_listener_close(struct pst_listener *listener);

/*
 * Connect to @url, trying until @timeout_ms have passed (the server may still
 * be starting), less and less often. -ETIMEDOUT, -ECONNREFUSED, -EACCES (other user,
 * other key), -EHOSTUNREACH, -EPROTO.
 */
int pst_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		struct pst_error *err);

/* Close a link, dead or alive; its keys die, nothing arrives from it any more. */
void pst_link_close(struct pst_link *link);

/* The caller's own pointer, NULL at first; for finding one's state from a wc. */
void pst_link_set_user(struct pst_link *link, void *user);
void *pst_link_user(const struct pst_link *link);

/* Who the peer is: "shm://name pid 123", valid while the link is. */
const char *pst_link_peer(const struct pst_link *link);
int pst_link_peer_pid(const struct pst_link *link); /* 0: on another host */

/* What a link goes over, for who wants to show it. What does not apply is 0. */
struct pst_link_info {
	char device[96];     /* "rxe0,rxe2"; shm: "memory"; "": not known */
	uint32_t rails;	     /* that are up */
	uint32_t conns;	     /* tcp: connections that are up */
	uint32_t mtu;	     /* bytes of a packet; of several rails the least */
	uint32_t max_inline; /* bytes that a request can carry in itself; the least */
};

/* -ENOTCONN: it is dead. */
int pst_link_info(const struct pst_link *link, struct pst_link_info *out);

/*
 * The link's last failure in one sentence: rail, peer, what was asked of which
 * region, the likely cause and what mends it. "" when nothing failed. Valid until the next poll.
 */
const char *pst_link_why(const struct pst_link *link);
/* The last requests, newest first: up to @n of them, their number. */
int pst_link_recent(const struct pst_link *link, struct pst_recent *out, int n);

/*
 * Give the peer @access to @region over this link; the key is for its messages.
 * The same region and access on one link is the same key. -EACCES, -ENOTCONN,
 * -ENOSPC when the link has too many keys (256 over shm).
 */
int pst_link_grant(struct pst_link *link, struct pst_region *region, uint32_t access,
		   struct pst_key *out);

/*
 * Map the region behind a key that the peer sent, for use in place. *len is its
 * length. -EOPNOTSUPP on fabrics that cannot, -ENOENT for a key that was never
 * granted on this link, -EACCES when it does not allow @access. Mapping the same
 * key again gives the same address. The mapping stays until the link is closed.
 */
int pst_link_map(struct pst_link *link, struct pst_key key, uint32_t access, void **addr,
		 uint64_t *len);

/*
 * Post @n requests in order. Returns how many were taken: fewer than @n (also
 * 0) when the queue to the peer is full, then poll and post the rest. -EINVAL:
 * the first of them is malformed (nothing was posted); -ENOTCONN: link is dead.
 * A remote range outside of the granted region completes with -ERANGE, an
 * unknown key with -ENOENT, a write to a read-only key with -EACCES; such a
 * failure does not end the link.
 */
int pst_link_post(struct pst_link *link, const struct pst_wr *wr, int n);

/*
 * Post one message of @len bytes, waiting up to @timeout_ms for room. -ETIMEDOUT.
 */
int pst_link_send(struct pst_link *link, const void *msg, size_t len, int timeout_ms);

#endif /* PST_FABRIC_H */
