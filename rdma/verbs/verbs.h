/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.h - the inside of the verbs fabric: its objects and which file does what.
 *
 *	verbs.c		the table of functions, the fabric
 *	lib.c		the libraries
 *	dev.c		the devices
 *	region.c	registering memory
 *	cq.c		polling, sleeping and waking; what takes its time
 *	rail.c		one queue pair: posting, what its completions say, its end
 *	cm.c		connecting one
 *	setup.c		listener and the set-up of what it accepts
 *	connect.c	the connector's side of it
 *	link.c		a link: requests, their order, its death
 *	issue.c		requests become work requests, over one rail or several
 *	frame.c		frames: order, acks, what came broken
 *	grant.c		keys: memory windows
 *	async.c		what devices say by themselves
 *	cause.c		what their codes mean
 *	none.c		in place of all of them, where their headers are not
 *
 * The model
 *   A link has a rail per way, a rail is one RC queue pair. A link's requests stand in a ring in
 *   the order of posting; each becomes one work request or many (slices: over rails, pieces, the
 *   largest message) and ends when all of them have. Ended ones leave the ring in order, into the
 *   ring of completions that a poll hands out.
 *
 * Receives belong to each rail and not to one queue for all: what lets a peer send is a promise of
 * buffers to that peer, so a shared queue would need as many, and one peer's flood would be felt
 * by all.
 *
 * Credits: everything of the peer's that uses up a receive buffer is numbered (frames by their seq,
 * hardware immediates by counting: a link of one rail is in order) but for a few frames that have
 * VERBS_RESERVED buffers of their own, and each side has no more numbered ones under way than the
 * other acknowledged or has buffers for. A buffer is acknowledged when it is posted again.
 */
#ifndef PST_VERBS_H
#define PST_VERBS_H

#include "rdma/handshake.h"
#include "rdma/ops.h"
#include "rdma/verbs/lib.h"

#include <pthread.h>
#include <sys/queue.h>

#define VERBS_FRAME	4096 /* bytes of a buffer: PST_MSG_MAX, the header, and some */
#define VERBS_RECVS	64   /* receive buffers of a rail */
#define VERBS_RESERVED	12   /* of them, for frames that are not numbered */
#define VERBS_WINDOW	(VERBS_RECVS - VERBS_RESERVED)
#define VERBS_CTRL	16   /* buffers for frames that are not numbered, and the handshake */
#define VERBS_SQ	512  /* work requests under way on a rail, where the device has as many */
#define VERBS_SQ_SPARE	24   /* of them, for frames that are not numbered, and probes */
#define VERBS_REQS	1024 /* requests of a link that have not ended */
#define VERBS_DONE	1024 /* completions of own requests that wait for a poll */
#define VERBS_SPARE	64   /* requests that grants find room for */
#define VERBS_GRANTS	256  /* keys that one side gives over one link */
#define VERBS_SETUPS	64   /* connections of a listener that have not proved themselves */
#define VERBS_SLICE_MIN (128 << 10) /* smaller requests go over one rail */
#define VERBS_SLICE_MAX (64 << 20)  /* so that progress is seen */
#define VERBS_NEVER	INT64_MAX

struct verbs_dev {
	struct ibv_context *ctx; /* the fabric's own, so that a fork can open a fabric again */
	struct ibv_pd *pd;
	struct ibv_device_attr attr;
	const char *name;
	unsigned int index;
	bool windows;		     /* memory windows of type 2 */
	_Atomic uint32_t max_inline; /* that a queue pair took; starts high */
	_Atomic bool used;
};

struct verbs_fabric {
	struct pst_secret *secret;
	pthread_mutex_t lock; /* regions' registrations, windows */
	bool named;	      /* dev= says which devices */
	struct ibv_device **list;
	unsigned int ndevs;
	struct verbs_dev dev[];
};

/* A region as one device knows it. */
struct verbs_mr {
	unsigned int pieces;
	struct ibv_mr *mr[];
};

/* What lets the peer at one region over one rail: a window, or else an mr, per piece. */
struct verbs_window {
	LIST_ENTRY(verbs_window) on_region;
	struct verbs_region *region; /* NULL when it was released */
	struct verbs_dev *dev;
	bool queued; /* to be bound, or bound */
	unsigned int pieces;
	struct verbs_hold {
		struct ibv_mw *mw;
		struct ibv_mr *mr;
		uint32_t rkey; /* that it will have once it is bound */
	} piece[];
};

struct verbs_region {
	struct pst_region *base;
	uint64_t chunk;
	unsigned int pieces;
	LIST_HEAD(, verbs_window) windows;
	struct verbs_mr *_Atomic mr[]; /* per device, NULL until it is used there */
};

/* Something in a cq's epoll set. */
struct verbs_source {
	int fd;
	void (*ready)(struct verbs_source *src);
};

/* A cq on one device. */
struct verbs_ccq {
	struct verbs_source src; /* the completion channel */
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct verbs_source async; /* of the device; the same fd in every cq */
	uint32_t size, used;	   /* entries; used: promised to queue pairs */
	uint32_t unacked;	   /* events */
	bool armed;		   /* the next completion is an event */
};

struct verbs_link;
struct verbs_rail;

struct verbs_cq {
	struct pst_cq base;
	int epfd;
	struct verbs_source wake, cm_src;
	struct rdma_event_channel *cm;
	_Atomic bool async;  /* some rail has verbs_rail.async set */
	_Atomic bool called; /* by pst_cq_wake */
	bool woken;
	unsigned int polls;	    /* since the sockets were looked at */
	unsigned int skip, skipped; /* polls that do not look at the clock */
	int64_t looked;		    /* and when, in coarse ns */
	int64_t tick_at;	    /* ms */
	unsigned int nccq, nrails, generation;
	struct verbs_rail **rail; /* by the low bits of its number */
	TAILQ_HEAD(, verbs_link) links;
	TAILQ_HEAD(verbs_ready_list, verbs_link) ready; /* with something for the caller */
	TAILQ_HEAD(, verbs_link) gave;			/* gave something in the last poll */
	TAILQ_HEAD(, verbs_listener) listeners;
	TAILQ_HEAD(, verbs_rail) rails, reposts;
	struct verbs_ccq ccq[];
};

enum verbs_wqe_kind {
	WQE_CTRL,  /* nobody waits for it */
	WQE_DATA,  /* a slice: off, len */
	WQE_FRAME, /* off: its seq */
	WQE_BIND,
};

struct verbs_wqe {
	uint64_t off, len;
	uint32_t req; /* its place in the ring */
	uint8_t kind;
	bool signaled;
};

enum verbs_rail_state {
	RAIL_SETUP, /* being connected, or not yet let in */
	RAIL_UP,
	RAIL_DYING, /* its queue pair is in error, what was under way is coming back */
	RAIL_DEAD,
};

struct verbs_rail {
	TAILQ_ENTRY(verbs_rail) on_cq;	   /* all */
	TAILQ_ENTRY(verbs_rail) on_link;   /* of a link, from when it is UP */
	TAILQ_ENTRY(verbs_rail) on_repost; /* with receives to post */
	struct verbs_cq *cq;
	struct verbs_dev *dev;
	struct verbs_ccq *ccq;
	struct verbs_link *link;
	struct rdma_cm_id *id;
	struct ibv_qp *qp;
	uint32_t number; /* low half of its wr_ids */
	uint8_t way;
	uint8_t state;
	bool reposting, connected;
	bool orphan;		/* nothing is left of it but its connection */
	bool broken;		/* something came back in error */
	_Atomic uint32_t async; /* enum pst_cause that its device spoke of */
	int64_t deadline;	/* ms: SETUP, DYING */
	uint32_t cause;
	char code[96]; /* in the device's words */
	char name[80]; /* for people: "rail 0 (rxe0)" */

	/* sending */
	struct verbs_wqe *wqe;
	uint32_t sq_size, sq_head, sq_tail, sq_back; /* back: came back in error, or well */
	uint32_t quiet;				     /* posted since the last signaled one */
	uint64_t quiet_bytes;
	bool owed;	  /* some of them are waited for */
	uint32_t signals; /* signaled ones under way */
	uint32_t reads;	  /* place behind the last read */
	bool has_reads;
	uint32_t max_inline;
	uint32_t mtu;
	uint64_t msg_max;  /* bytes of one work request */
	uint32_t slices;   /* pieces of data under way, of links with several rails */
	uint64_t load;	   /* and their bytes */
	int64_t moved;	   /* ms: when something came back last */
	uint32_t moved_at; /* sq_back then */

	/* measured on links with several rails */
	int64_t busy_since; /* ns */
	uint64_t carried;   /* bytes since then */
	double rate;	    /* bytes per ns */

	/* memory: receives, then ctrl */
	unsigned char *bufs;
	struct ibv_mr *bufs_mr, *slots_mr;
	uint32_t ctrl_next;
	uint32_t ctrl_wqe[VERBS_CTRL]; /* place behind the one that used it last */
	uint32_t recvs;		       /* posted */
	uint32_t nrepost;
	uint16_t repost[VERBS_RECVS];
	uint32_t nlent, held;	    /* held: messages in its buffers, not yet given back */
	uint16_t lent[VERBS_RECVS]; /* in the caller's hands until the next poll */
	uint32_t nearly;
	struct verbs_early {
		uint32_t len, imm;
		uint16_t buf;
		bool is_imm;
	} early[VERBS_RECVS]; /* came before the link was made */

	/* set-up */
	struct verbs_listener *listener;
	TAILQ_ENTRY(verbs_rail) on_listener;
	struct pst_handshake hs;
	struct pst_link_hello hello;
	bool client, settled; /* settled: @result says how it went */
	int result;
	struct pst_error err;
};

enum verbs_req_kind { REQ_SEND, REQ_GRANT, REQ_DATA, REQ_BIND };

struct verbs_taken;

struct verbs_req {
	uint64_t id;
	union {
		struct {
			struct pst_region *local;
			char *local_addr;
		};
		struct {			 /* BIND */
			struct verbs_rail *rail; /* as it was when it was asked for */
			struct verbs_window *window;
		};
	};
	struct verbs_taken *taken;
	uint64_t remote_off, len;
	uint64_t next;	  /* DATA: bytes issued; BIND: pieces */
	uint64_t seq;	  /* of its frame or immediate */
	uint32_t pending; /* work requests under way, or to be done again */
	uint32_t imm;
	int32_t status;
	uint32_t cause;
	uint16_t op, flags;
	uint8_t kind;
	bool frame;  /* a frame ends it */
	bool issued; /* nothing is left to post */
	bool spread; /* over several rails */
	uint8_t way; /* BIND */
};

struct verbs_done {
	uint64_t id;
	int32_t status;
	uint32_t cause;
	uint16_t op;
};

/* A region that the peer granted. */
struct verbs_taken {
	struct pst_key key;
	uint64_t len, addr, chunk;
	uint32_t access, pieces;
	uint32_t *rkey; /* [way * pieces + piece]; 0: none on this way */
};

/* A region that this side granted. */
struct verbs_given {
	struct pst_key key;
	struct pst_region *region;
	uint64_t region_id;
	uint32_t access;
	bool due; /* the peer is to be told */
	struct verbs_window *window[PST_RAILS_MAX];
};

enum verbs_held_state { HELD_NONE, HELD_MISSING, HELD_FULL };

/* Something numbered that came, by its number. */
struct verbs_held {
	uint64_t seq;
	struct verbs_rail *rail;
	uint32_t imm, len;
	uint16_t buf;
	uint8_t state;
	uint16_t type; /* PST_FRAME_* */
};

/* Something numbered that was sent. */
struct verbs_sent {
	uint32_t len;  /* 0: a hardware immediate */
	uint32_t owes; /* 1 + the place of its request, when it is to be sent again for that */
};

enum verbs_link_state {
	LINK_LIVE,
	LINK_DYING, /* rails come to their end; what arrived before is still handed out */
	LINK_DEAD,  /* nothing is under way any more */
	LINK_DOWN,  /* PST_WC_DOWN was handed out */
};

/* A way that is down, on the side that connects. */
struct verbs_retry {
	int64_t at; /* ms; 0: not wanted */
	uint32_t pause;
	struct verbs_rail *rail; /* while it is being set up */
};

/* What every request looks at stands together, so that it is in few lines and pages. */
struct verbs_link {
	struct pst_link base;
	TAILQ_ENTRY(verbs_link) on_cq, on_ready, on_gave;
	bool is_ready, is_gave, announce, closing;
	bool want_room; /* a post was cut short */
	uint8_t ways;	/* rails that it was made for */
	uint8_t state;
	bool crc;
	struct verbs_rail *primary;
	TAILQ_HEAD(, verbs_rail) rails;	       /* UP or DYING */
	struct verbs_rail *way[PST_RAILS_MAX]; /* UP, or NULL */

	/* requests: head (oldest) <= next (to be issued) <= tail */
	uint32_t head, next, tail;
	uint32_t done_head, done_tail, owed_done; /* owed: signaled ones in the ring */
	struct verbs_req *req;
	struct verbs_done *done;
	struct verbs_wqe *replay; /* slices to be done again */
	uint32_t nreplay;

	unsigned int ntaken, ngiven, last, ndue;
	struct verbs_taken *taken;
	struct verbs_given *given;

	/* frames */
	uint32_t window; /* numbered ones that may be under way */
	uint64_t tx_seq, tx_acked;
	uint64_t resend_at; /* frames from here to the last issued are to be sent again; 0: none */
	uint64_t tx_issued;
	uint64_t rx_came, rx_seen, rx_given, rx_ack, rx_told; /* told: the last ack that was sent */
	uint64_t asked;					      /* AGAIN was sent for this one */
	unsigned int asks;
	bool ping_due, pinged, credit_due;
	unsigned char *slots; /* VERBS_WINDOW of VERBS_FRAME */
	struct verbs_sent sent[VERBS_WINDOW];
	struct verbs_held held[VERBS_RECVS];

	/* how it came to be, and to its end */
	uint32_t timeout_ms;
	uint64_t number; /* the handshake's name for it */
	struct verbs_listener *listener;
	struct pst_url *url; /* connector: where its ways go */
	struct pst_link_hello hello;
	struct verbs_retry retry[PST_RAILS_MAX];
	uint32_t why; /* enum pst_cause */
	char why_rail[80], why_code[96];
};

struct verbs_listener {
	struct pst_listener base;
	TAILQ_ENTRY(verbs_listener) on_cq;
	unsigned int nids, nlinks;
	struct rdma_cm_id *id[PST_RAILS_MAX];
	TAILQ_HEAD(, verbs_rail) setups; /* oldest first */
};

static inline struct verbs_cq *verbs_cq(struct pst_cq *base)
{
	return pst_container(base, struct verbs_cq, base);
}

static inline struct verbs_link *verbs_link(struct pst_link *base)
{
	return pst_container(base, struct verbs_link, base);
}

static inline struct verbs_cq *verbs_cq_of(const struct verbs_link *link)
{
	return verbs_cq(link->base.cq);
}

static inline struct verbs_fabric *verbs_fabric(const struct pst_fabric *fab)
{
	return fab->priv;
}

static inline struct verbs_req *verbs_req(const struct verbs_link *link, uint32_t at)
{
	return &link->req[at % VERBS_REQS];
}

static inline uint32_t verbs_sq_room(const struct verbs_rail *rail)
{
	uint32_t used = rail->sq_tail - rail->sq_head + VERBS_SQ_SPARE;

	return used < rail->sq_size ? rail->sq_size - used : 0;
}

/* Is there room in the rings for a request, and if @done also for its completion? */
static inline bool verbs_ring_room(const struct verbs_link *link, bool done)
{
	return link->tail - link->head < VERBS_REQS - VERBS_SPARE &&
	       (!done || link->done_tail - link->done_head + link->owed_done < VERBS_DONE);
}

/* Is there something for the caller? */
static inline bool verbs_has_news(const struct verbs_link *link)
{
	return link->done_head != link->done_tail || link->rx_given != link->rx_seen ||
	       link->announce || link->state == LINK_DEAD;
}

/* verbs.c */
int64_t pst_verbs_now(void);	/* monotonic ms */
int64_t pst_verbs_now_ns(void); /* and ns */

/* dev.c */
/* Every device that @set allows; fab->priv is set. -ENODEV with the reason. */
int pst_verbs_devs_open(struct pst_fabric *fab, struct pst_error *err);
void pst_verbs_devs_close(struct pst_fabric *fab);
struct verbs_dev *pst_verbs_dev(struct pst_fabric *fab, struct ibv_device *device);
bool pst_verbs_port_is_active(struct ibv_context *ctx, uint8_t port);
/* An address of @dev, to connect from. */
bool pst_verbs_dev_address(const struct verbs_dev *dev, int family, struct sockaddr_storage *out);

/* region.c */
int pst_verbs_region_register(struct pst_region *region, struct pst_error *err);
void pst_verbs_region_release(struct pst_region *region);
/* As @dev knows it, registered there if it was not. NULL: see *rc. */
struct verbs_mr *pst_verbs_region_on(struct pst_region *region, struct verbs_dev *dev, int *rc);
static inline uint64_t verbs_piece_len(const struct verbs_region *r, unsigned int piece)
{
	uint64_t left = r->base->len - piece * r->chunk;

	return left < r->chunk ? left : r->chunk;
}

/* cq.c */
int pst_verbs_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err);
void pst_verbs_cq_destroy(struct pst_cq *cq);
int pst_verbs_cq_poll(struct pst_cq *cq, struct pst_wc *wc, int n);
int pst_verbs_cq_wait(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms);
void pst_verbs_cq_wake(struct pst_cq *cq);
void pst_verbs_cq_news(struct verbs_cq *cq); /* its rails have verbs_rail.async; any thread */
int pst_verbs_watch(struct verbs_cq *cq, struct verbs_source *src);
/* Take in what came, hand out nothing. How many completions there were. */
int pst_verbs_progress(struct verbs_cq *cq);
/* The same, sleeping up to @timeout_ms where nothing came. 0 or -EINTR. */
int pst_verbs_turn(struct verbs_cq *cq, int64_t timeout_ms);
/* The cq on @dev with room for @entries more. NULL: see *rc. */
struct verbs_ccq *pst_verbs_ccq(struct verbs_cq *cq, struct verbs_dev *dev, uint32_t entries,
				int *rc);
void pst_verbs_ready(struct verbs_link *link);

/* rail.c */
struct verbs_rail *pst_verbs_rail_new(struct verbs_cq *cq);
/* The queue pair and its buffers, on the device that rail->id has; receives are posted. */
int pst_verbs_rail_open(struct verbs_rail *rail);
/*
 * For good; it is no link's any more. Of one whose port is down the connection is kept until it is
 * up, or the cq goes: a goodbye through a port that is down breaks the connection manager of rxe.
 */
void pst_verbs_rail_free(struct verbs_rail *rail);
void pst_verbs_rail_end(struct verbs_rail *rail); /* the same, whatever its port is */
/* It is to end: its queue pair goes to error, and when all came back it is dead. */
void pst_verbs_rail_fail(struct verbs_rail *rail, uint32_t cause, const char *code);
void pst_verbs_rail_tick(struct verbs_rail *rail, int64_t now);
/* Its queue pair to @state, with so many reads at once taken and asked. */
int pst_verbs_rail_move(struct verbs_rail *rail, enum ibv_qp_state state, uint8_t in, uint8_t out);
void pst_verbs_rail_recvs(struct verbs_rail *rail); /* post what is to be posted again */
void pst_verbs_rail_return(struct verbs_rail *rail, uint16_t buf);
/* Something that was received, of a rail that is a link's. */
void pst_verbs_rail_take(struct verbs_rail *rail, const struct verbs_early *e);
void pst_verbs_rail_wc(struct verbs_cq *cq, const struct ibv_wc *wc);
/* A write of nothing: it comes back if the peer's device lives. */
void pst_verbs_rail_probe(struct verbs_rail *rail);
/* A buffer for a frame that is not numbered, NULL if all are in use. */
void *pst_verbs_rail_ctrl(struct verbs_rail *rail);
void pst_verbs_rail_send_ctrl(struct verbs_rail *rail, void *buf, uint32_t len);

#define VERBS_CHAIN 32

/* Work requests that are posted together. */
struct verbs_chain {
	struct verbs_rail *rail;
	unsigned int n;
	struct ibv_send_wr wr[VERBS_CHAIN];
	struct ibv_sge sge[VERBS_CHAIN];
};

/* The next of them, on @rail, for @wqe; the caller fills in what to do. There must be room. */
struct ibv_send_wr *pst_verbs_chain(struct verbs_chain *chain, struct verbs_rail *rail,
				    const struct verbs_wqe *wqe, bool wanted);
void pst_verbs_chain_post(struct verbs_chain *chain);
/* The same for one by itself, filled in but for its wr_id and whether it is signaled. */
void pst_verbs_rail_post(struct verbs_rail *rail, struct ibv_send_wr *wr,
			 const struct verbs_wqe *wqe, bool wanted);

/* cm.c */
void pst_verbs_cm_ready(struct verbs_source *src);
/* Begin to connect; rail->settled in the end. */
int pst_verbs_rail_connect(struct verbs_rail *rail, const char *host, uint16_t port,
			   int64_t deadline);
/* It came to nothing, with a sentence in rail->err. */
void pst_verbs_settle(struct verbs_rail *rail, int result);
/* Take a message of the handshake, say what is to be said. */
void pst_verbs_handshake(struct verbs_rail *rail, const void *msg, size_t len);
void pst_verbs_handshake_say(struct verbs_rail *rail);
int pst_verbs_resolve(const char *host, uint16_t port, struct sockaddr_storage *out,
		      struct pst_error *err);
/* Let the other side connect, which asked for so much. */
int pst_verbs_rail_accept(struct verbs_rail *rail, const struct rdma_conn_param *asked);

/* setup.c */
int pst_verbs_listen(struct pst_cq *cq, const char *url, struct pst_listener **out,
		     struct pst_error *err);
void pst_verbs_listener_close(struct pst_listener *listener);
void pst_verbs_listeners_close(struct verbs_cq *cq);
/* A connection came: @id is its own. */
void pst_verbs_request(struct verbs_listener *l, struct rdma_cm_id *id,
		       const struct rdma_conn_param *param);
/* The client has the key: its link, or one more way of it. 0, or what it is refused for. */
/* Free those that came to nothing. */
void pst_verbs_setups_tick(struct verbs_cq *cq);
/* @pid, if it is a process of this host, going by its address; else 0. */
int pst_verbs_pid_here(const struct sockaddr *peer, uint32_t pid);
int pst_verbs_admit(struct verbs_rail *rail, const char **why);

/* connect.c */
int pst_verbs_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		      struct pst_error *err);
void pst_verbs_retry_later(struct verbs_link *link, uint8_t way);
void pst_verbs_retry_tick(struct verbs_link *link, int64_t now);
/* Some way is as good as there: what the other side says last is on its way. */
bool pst_verbs_retry_comes(const struct verbs_link *link);

/* link.c */
struct verbs_link *pst_verbs_link_new(struct verbs_cq *cq, uint8_t ways);
/* The frames that may be under way, given the other side's receive buffers. -EPROTO: too few. */
int pst_verbs_link_window(struct verbs_link *link, uint32_t recv);
int pst_verbs_link_join(struct verbs_link *link, struct verbs_rail *rail);
void pst_verbs_link_close(struct pst_link *link);
int pst_verbs_link_post(struct pst_link *link, const struct pst_wr *wr, int n);
int pst_verbs_link_room(struct pst_link *link, int timeout_ms);
int pst_verbs_link_info(const struct pst_link *link, struct pst_link_info *out);
bool pst_verbs_link_has_room(struct verbs_link *link);
int pst_verbs_link_collect(struct verbs_link *link, struct pst_wc *wc, int n);
void pst_verbs_link_fail(struct verbs_link *link, uint32_t cause, const char *rail,
			 const char *code);
void pst_verbs_link_tick(struct verbs_link *link, int64_t now);
/* One of the work requests of the request at place @at has ended. */
static inline void verbs_req_ended(const struct verbs_link *link, uint32_t at)
{
	verbs_req(link, at)->pending--;
}
/* Requests that have ended leave the ring. */
void pst_verbs_retire(struct verbs_link *link);
/* @rail is dead: what it had under way is done again elsewhere, or fails. */
void pst_verbs_link_lost(struct verbs_link *link, struct verbs_rail *rail);
/* A new request at the ring's end; there must be room. */
struct verbs_req *pst_verbs_req_add(struct verbs_link *link);

/* issue.c */
void pst_verbs_issue(struct verbs_link *link);
/* @wr at once, if nothing is in its way and one work request carries it; else nothing: false. */
bool pst_verbs_issue_alone(struct verbs_link *link, const struct pst_wr *wr);

/* frame.c */
/* The slot of the next numbered frame, to be filled in behind its header. */
struct pst_frame *pst_verbs_frame_new(struct verbs_link *link, uint16_t type, uint32_t size,
				      uint64_t *seq);
static inline struct pst_frame *verbs_slot(const struct verbs_link *link, uint64_t seq)
{
	return (struct pst_frame *)(link->slots + seq % VERBS_WINDOW * VERBS_FRAME);
}
static inline uint64_t verbs_frame_room(const struct verbs_link *link)
{
	return link->window - (link->tx_seq - link->tx_acked);
}
void pst_verbs_frame_seal(struct verbs_link *link, struct pst_frame *frame); /* ack, crc */
void pst_verbs_frame_came(struct verbs_rail *rail, uint16_t buf, uint32_t len);
void pst_verbs_imm_came(struct verbs_rail *rail, uint32_t imm);
bool pst_verbs_frame_say(struct verbs_link *link, uint16_t type, uint64_t seq);
void pst_verbs_frame_ack(struct verbs_link *link); /* after buffers were posted again */
void pst_verbs_frame_tick(struct verbs_link *link);

/* grant.c */
int pst_verbs_link_grant(struct pst_link *link, struct pst_region *region, uint32_t access,
			 struct pst_key *out);
void pst_verbs_grant_flush(struct verbs_link *link); /* queue what is due, while there is room */
void pst_verbs_grant_rejoin(struct verbs_link *link, uint8_t way);
void pst_verbs_grant_lost(struct verbs_link *link, uint8_t way);
/* A frame came. False: it is none. */
bool pst_verbs_take(struct verbs_link *link, const struct pst_frame *frame);
struct verbs_taken *pst_verbs_find(struct verbs_link *link, const struct pst_key *key);
void pst_verbs_grants_drop(struct verbs_link *link);

/* async.c */
void pst_verbs_async_add(struct verbs_rail *rail);
void pst_verbs_async_del(struct verbs_rail *rail);
void pst_verbs_async_ready(struct verbs_source *src);

/* cause.c */
uint32_t pst_verbs_wc_cause(enum ibv_wc_status status);
/* Why making something failed, from errno. */
uint32_t pst_verbs_errno_cause(int error);

#endif /* PST_VERBS_H */
