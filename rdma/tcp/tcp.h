/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp.h - the inside of the tcp fabric: its objects and which file does what.
 *
 *	tcp.c		the table of functions; the fabric, regions
 *	cq.c		polling, sleeping and waking; the timer
 *	progress.c	the thread that serves peers while the owner computes
 *	link.c		a link: its life, its end, what it hands out
 *	post.c		requests: taking them, cutting them up, completing them
 *	grant.c		keys: granting, taking in, checking
 *	in.c		what comes from a socket, and where to
 *	frame.c		frames that came
 *	out.c		what goes to a socket, in which order
 *	setup.c		listener and the set-up of what it accepts
 *	connect.c	the connector's side of it
 *	sock.c		addresses and sockets
 *	epoll.c uring.c	how sockets are driven
 *
 * Who may do what, when: all of a cq, its links and their connections is under cq->lock, held by
 * the owner while it is in a call (also while it sleeps in one) and by the progress thread while
 * it drives the sockets in the owner's stead. What the thread reads for the owner waits in the
 * link, bounded by the window.
 *
 * Order: numbered frames go by way 0, whole requests below SPREAD bytes too, so the stream keeps
 * them in order. A request that goes by another way makes later numbered frames wait until it is
 * done, and a request that overlaps one under way is not taken until that is done.
 *
 * Nothing is copied: what a WRITE or DATA frame brings is received into the region. So a read
 * from the socket never asks for more bytes than are sure to be no such data (STAGE).
 */
#ifndef PST_TCP_H
#define PST_TCP_H

#include "rdma/ops.h"
#include "rdma/secret.h"

#include <assert.h>
#include <penstock/link.h>
#include <pthread.h>
#include <stdalign.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/types.h>

#define TCP_WINDOW     64   /* numbered frames that the peer's owner has not taken */
#define TCP_REQS       1024 /* requests that were not handed out as completions */
#define TCP_PARTS      256  /* reads and writes under way on one connection */
#define TCP_OWN	       512  /* parts and numbered frames that wait for their turn there */
#define TCP_OUTS       32   /* frames that go out by one system call */
#define TCP_GRANTS_MAX 256
#define TCP_CONNS_MAX  PST_RAILS_MAX
#define TCP_DATA_MAX   (1u << 20)   /* data in one frame, so that others come between */
#define TCP_SPREAD     (32u << 10)  /* larger requests go by any way */
#define TCP_SLICE      (256u << 10) /* and in slices of at least this by all of them */
#define TCP_INLINE     64	    /* data that goes out as a part of its head, by one piece */
#define TCP_STAGE      sizeof(struct pst_frame_range)

struct tcp_cq;
struct tcp_conn;
struct tcp_link;

/* A file descriptor that is only waited for: wake-ups, listeners, set-ups. */
struct tcp_source {
	int fd;
	void (*ready)(struct tcp_source *src);
	void *io; /* the driver's own */
};

/* How sockets are driven. All under the cq's lock. */
struct tcp_io {
	const char *name;
	int (*open)(struct tcp_cq *cq);
	void (*close)(struct tcp_cq *cq);
	int (*watch)(struct tcp_cq *cq, struct tcp_source *src);
	void (*unwatch)(struct tcp_cq *cq, struct tcp_source *src);
	int (*add)(struct tcp_conn *conn);
	/* When it returns nothing of @conn is under way any more. */
	void (*remove)(struct tcp_conn *conn);
	/* There may be something to send. */
	void (*push)(struct tcp_conn *conn);
	/* Do what can be done; if there is nothing, wait up to @timeout_ms. 0 or -EINTR. */
	int (*turn)(struct tcp_cq *cq, int timeout_ms);
};

extern const struct tcp_io pst_tcp_epoll, pst_tcp_uring;

/* May this process use io_uring, and has it all that we need? 0 or -errno. */
int pst_tcp_uring_allowed(void);

struct tcp_buf {
	struct tcp_buf *next;
	unsigned int refs;
	alignas(16) unsigned char data[PST_MSG_MAX];
};

union tcp_head {
	struct pst_frame frame;
	struct pst_frame_range range;
	struct pst_frame_done done;
	unsigned char grant[sizeof(struct pst_frame_grant)]; /* which has no end of its own */
	unsigned char message[sizeof(struct pst_frame) + TCP_INLINE];
};

/* A frame on its way into the socket. */
struct tcp_out {
	union tcp_head head;
	uint32_t head_len;
	bool answer; /* it ends the oldest answer */
	const void *data;
	uint64_t len;
	struct tcp_buf *buf; /* that the data is in, or NULL */
};

/* What waits for its turn: a numbered frame, or a part of a request. */
struct tcp_own {
	bool numbered;
	uint64_t what;	/* seq, or index of a part */
	uint64_t after; /* numbered: spread requests before this one must be done */
};

/* A request's share of one connection. */
struct tcp_part {
	uint64_t req;
	uint16_t op;
	bool done;
	uint64_t number; /* of its last frame; 0 until that went out */
	struct pst_key key;
	uint64_t remote_off;
	unsigned char *local;
	uint64_t len;
	uint64_t moved; /* WRITE: given to the socket; READ: received */
};

/* A READ of the peer's that is being answered. */
struct tcp_answer {
	const unsigned char *from;
	uint64_t len, sent, number;
};

enum { TCP_DUE_PING = 1, TCP_DUE_CREDIT = 2, TCP_DUE_DONE = 4, TCP_DUE_BYE = 8 };

struct tcp_conn {
	struct tcp_link *link;
	int fd;
	unsigned int way;
	void *io; /* the driver's own */
	char rail[48];
	bool want_out;	/* epoll: waits for room */
	int64_t heard;	/* ms; when anything came last */
	int64_t pinged; /* ms; 0: what was heard is recent enough */

	/* in: the beginnings of frames, and the rest of one frame that goes elsewhere */
	alignas(8) unsigned char stage[TCP_STAGE];
	unsigned int staged;
	union tcp_head in; /* the frame that is being received */
	unsigned char *body;
	uint64_t body_left;
	struct tcp_buf *in_buf;
	uint64_t asked;	     /* number of the peer's last request */
	uint64_t served;     /* of its last write that was carried out */
	uint64_t told;	     /* of the last DONE */
	uint64_t told_bytes; /* written since then */
	unsigned int untold;

	/* out */
	struct tcp_out out[TCP_OUTS];
	unsigned int out_head, out_tail;
	uint64_t out_at;    /* bytes of the first that are gone */
	uint64_t out_bytes; /* in all of them */
	unsigned int due;   /* TCP_DUE_* */
	bool answer_next;
	struct tcp_own own[TCP_OWN];
	unsigned int own_head, own_tail;
	struct tcp_answer answer[TCP_PARTS];
	unsigned int answer_head, answer_tail;
	struct tcp_part part[TCP_PARTS];
	unsigned int part_head, part_tail;
	uint64_t number;      /* of the last request that was given one */
	uint64_t number_gone; /* and whose frame is all in the socket */
};

struct tcp_req {
	uint64_t id;
	uint16_t op, flags;
	uint16_t parts; /* that are under way */
	bool spread;
	int32_t status;
	uint32_t cause;
	struct pst_key key;
	uint64_t remote_off, len;
};

/* A numbered frame of this side, until the peer has taken it. */
struct tcp_sent {
	uint16_t type;
	uint16_t len;
	uint32_t imm;
	struct tcp_buf *buf;
	unsigned int grant;
};

/* A numbered frame of the peer's, until the owner has taken it. */
struct tcp_came {
	bool here;
	uint16_t type;
	uint16_t len;
	uint32_t imm;
	uint64_t after; /* answers that go out before the owner sees it */
	struct tcp_buf *buf;
};

struct tcp_taken {
	struct pst_key key;
	uint64_t len;
	uint32_t access;
};

struct tcp_given {
	struct pst_key key;
	uint64_t region_id;
	unsigned char *addr;
	uint64_t len;
	uint32_t access;
};

enum { TCP_WANT_WINDOW = 1, TCP_WANT_PART = 2, TCP_WANT_REQ = 4 };

enum tcp_state {
	TCP_LIVE,
	TCP_DYING, /* what came before is still handed out */
	TCP_DOWN,  /* PST_WC_DOWN was handed out */
};

struct tcp_link {
	struct pst_link base;
	TAILQ_ENTRY(tcp_link) on_cq;
	TAILQ_ENTRY(tcp_link) on_ready; /* there is something to hand out */
	TAILQ_ENTRY(tcp_link) on_owing; /* the peer is to be told what was done and taken */
	bool is_ready, is_owing, has_room;
	bool announce; /* PST_WC_CONNECTED is due */
	bool accepted;
	unsigned int want; /* TCP_WANT_*: a post was cut short for want of it */
	bool crc;
	enum tcp_state state;
	uint32_t timeout_ms;
	int64_t progress; /* ms; when a request of this side last moved */

	uint32_t cause; /* why it is no longer live */
	unsigned int cause_way;
	char cause_code[64];

	unsigned int nconns;
	struct tcp_conn *conn[TCP_CONNS_MAX];
	unsigned int next_way;

	/* Requests. [req_head, req_tail) were posted and not handed out. */
	struct tcp_req req[TCP_REQS];
	uint64_t req_head, req_tail;
	uint64_t spread_clear; /* no spread request before this one is under way */
	unsigned int parts;    /* under way on all connections */
	unsigned int reads;    /* of them */

	/* Numbered frames out: [acked + 1, last] are kept. */
	struct tcp_sent sent[TCP_WINDOW];
	uint64_t seq_acked, seq_gone, seq_last;
	uint64_t again; /* a bit for each slot that is to go out once more */
	unsigned int agains;
	unsigned int grants_sent;

	/* Numbered frames in: all up to @seq_in came, [taken + 1, ...] are kept. */
	struct tcp_came came[TCP_WINDOW];
	uint64_t seq_top, seq_in, seq_taken, seq_told;
	uint64_t missing;   /* a bit for each slot that was asked for again */
	uint64_t again_due; /* and for each that is to be asked for */
	uint64_t answers_in, answers_out;

	unsigned int ntaken, ngiven, last_taken, last_given;
	struct tcp_taken taken[TCP_GRANTS_MAX];
	struct tcp_given given[TCP_GRANTS_MAX];
};

struct tcp_cq {
	struct pst_cq base;
	const struct tcp_io *io;
	pthread_mutex_t lock;
	struct tcp_source wake;
	bool woken;
	unsigned int rooms; /* links that were full for the last post and can take more */
	unsigned int polls;
	int64_t ticked, beat; /* ms: the last tick, and between ticks */
	int64_t spin_ns;
	TAILQ_HEAD(, tcp_link) links, ready, owing;
	TAILQ_HEAD(, tcp_listener) listeners;
	unsigned int nconns, accepted;
	struct tcp_buf *lent, *spare; /* messages that the owner looks at; free ones */
	unsigned int spares;

	/* the driver's */
	int pollfd; /* readable when a turn would find something */
	void *driver;

	pthread_t thread;
	int kick;		/* eventfd: wakes the thread */
	_Atomic uint64_t calls; /* of the owner */
	_Atomic bool asleep;	/* the owner sleeps in a call, and drives the sockets itself */
	_Atomic bool parked, stop;
};

struct tcp_fabric {
	struct pst_secret *secret;
};

/* tcp.c */
int64_t pst_tcp_now(void); /* monotonic ms */

static inline struct tcp_cq *pst_tcp_cq_of(const struct tcp_link *link)
{
	return pst_container(link->base.cq, struct tcp_cq, base);
}

static inline struct pst_fabric_counters *pst_tcp_counters(struct tcp_link *link)
{
	return &link->base.cq->fab->count;
}

/* cq.c */
int pst_tcp_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err);
void pst_tcp_cq_destroy(struct pst_cq *cq);
int pst_tcp_cq_poll(struct pst_cq *cq, struct pst_wc *wc, int n);
int pst_tcp_cq_wait(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms);
void pst_tcp_cq_wake(struct pst_cq *cq);
void pst_tcp_enter(struct tcp_cq *cq); /* the owner takes the lock */
void pst_tcp_leave(struct tcp_cq *cq);
/* The owner sleeps, with the lock: one turn. */
int pst_tcp_doze(struct tcp_cq *cq, int timeout_ms);
struct tcp_buf *pst_tcp_buf_get(struct tcp_cq *cq); /* with one reference; NULL: no memory */
void pst_tcp_buf_put(struct tcp_cq *cq, struct tcp_buf *buf);
/* Pings, silences, listeners; does something every few milliseconds at the most. */
void pst_tcp_tick(struct tcp_cq *cq);
int pst_tcp_tick_ms(struct tcp_cq *cq); /* how long one may sleep at a time, -1: for ever */
/* Say what has been carried out and taken, as far as nobody was told. */
void pst_tcp_settle(struct tcp_cq *cq);

/* progress.c */
int pst_tcp_progress_start(struct tcp_cq *cq);
void pst_tcp_progress_stop(struct tcp_cq *cq);
void pst_tcp_progress_kick(struct tcp_cq *cq);

/* link.c */
struct tcp_terms {
	const int *fd;
	unsigned int nfds;
	uint32_t timeout_ms;
	bool crc;
};
/* A link over connected sockets; on success they are the link's. */
int pst_tcp_link_new(struct tcp_cq *cq, const struct tcp_terms *terms, struct tcp_link **out);
void pst_tcp_link_close(struct pst_link *link);
void pst_tcp_link_free(struct tcp_link *link); /* the same under the lock */
int pst_tcp_link_poll(struct tcp_link *link, struct pst_wc *wc, int n);
void pst_tcp_ready(struct tcp_link *link); /* it has something to hand out */
void pst_tcp_owe(struct tcp_link *link);   /* it has something to tell the peer */
/* Numbered frames up to @ack were taken. 0, or -ENOTCONN: they were never sent. */
int pst_tcp_acked(struct tcp_conn *conn, uint64_t ack);
/* What came in order and nobody has to look at is taken. */
void pst_tcp_skip(struct tcp_link *link);
/* It is over: by which connection, why, in the system's words or NULL. Returns -ENOTCONN. */
int pst_tcp_fail(struct tcp_link *link, unsigned int way, uint32_t cause, const char *code);
/* The peer asked for something that it may not, or said what makes no sense. */
int pst_tcp_broke(struct tcp_conn *conn, const char *what);
/* An errno of a socket. */
int pst_tcp_fail_errno(struct tcp_conn *conn, int rc);
void pst_tcp_link_tick(struct tcp_link *link, int64_t now);

/* post.c */
int pst_tcp_link_post(struct pst_link *link, const struct pst_wr *wr, int n);
int pst_tcp_link_room(struct pst_link *link, int timeout_ms);
int pst_tcp_link_info(const struct pst_link *link, struct pst_link_info *out);
void pst_tcp_room(struct tcp_link *link, unsigned int want); /* there is some now */
void pst_tcp_forget_room(struct tcp_link *link);
void pst_tcp_part_done(struct tcp_conn *conn, struct tcp_part *part, int status);
void pst_tcp_reqs_fail(struct tcp_link *link); /* all that are under way */
/* Are all spread requests before @req done? */
bool pst_tcp_spread_done(struct tcp_link *link, uint64_t req);
/* Append a numbered frame; there is room in the window. */
struct tcp_sent *pst_tcp_number(struct tcp_link *link, uint16_t type, uint64_t after);
bool pst_tcp_window_open(const struct tcp_link *link);

/* grant.c */
int pst_tcp_link_grant(struct pst_link *link, struct pst_region *region, uint32_t access,
		       struct pst_key *out);
void pst_tcp_grants_go(struct tcp_link *link); /* those that wait for room in the window */
/* A request of this side: PST_CAUSE_NONE, or why it cannot be. */
uint32_t pst_tcp_check_wr(struct tcp_link *link, const struct pst_wr *wr);
/* A request of the peer: where in memory, NULL if it has no right to it. */
unsigned char *pst_tcp_check_range(struct tcp_link *link, const struct pst_frame_range *range,
				   uint32_t access);
int pst_tcp_take_grant(struct tcp_link *link, const union tcp_head *head);

/* in.c */
/* Where the next bytes go: up to two pieces. */
int pst_tcp_in_iov(struct tcp_conn *conn, struct iovec iov[2]);
/* @n bytes came there, or 0: the end, or -errno. -ENOTCONN when the link is over. */
int pst_tcp_in_done(struct tcp_conn *conn, ssize_t n);

/* frame.c */
/* How long is what a frame of this type begins with? 0: there is no such type. */
unsigned int pst_tcp_head_len(uint16_t type);
/* The head of a frame is there: check it, and say where its data goes. 0 or -ENOTCONN. */
int pst_tcp_frame_begin(struct tcp_conn *conn);
/* All of it is there. */
int pst_tcp_frame_end(struct tcp_conn *conn);

/* out.c */
/* The next bytes to send: up to @n pieces; 0: nothing. */
int pst_tcp_out_iov(struct tcp_conn *conn, struct iovec *iov, int n);
/* @n bytes of them were given to the kernel, which still reads them where they are. */
void pst_tcp_out_given(struct tcp_conn *conn, size_t n);
/* @n bytes of them are gone: their memory is not looked at any more. */
void pst_tcp_out_done(struct tcp_conn *conn, size_t n);
bool pst_tcp_out_any(struct tcp_conn *conn);
void pst_tcp_out_drop(struct tcp_conn *conn); /* nothing of it is sent any more */

/* setup.c */
int pst_tcp_listen(struct pst_cq *cq, const char *url, struct pst_listener **out,
		   struct pst_error *err);
void pst_tcp_listener_close(struct pst_listener *listener);
void pst_tcp_listeners_close(struct tcp_cq *cq);
void pst_tcp_listeners_tick(struct tcp_cq *cq, int64_t now);

/* connect.c */
int pst_tcp_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		    struct pst_error *err);

/* sock.c */
struct addrinfo;
int pst_tcp_resolve(const char *url, bool passive, struct addrinfo **out, struct pst_error *err);
void pst_tcp_tune(int sock, uint32_t timeout_ms);
/* "address:port" of the other end, or of this one. */
void pst_tcp_name(int sock, bool peer, char *text, size_t size);
bool pst_tcp_same_host(int sock);

static_assert(TCP_WINDOW == 64, "a bit for each in a word");
static_assert(!(TCP_REQS & (TCP_REQS - 1)) && !(TCP_PARTS & (TCP_PARTS - 1)) &&
		      !(TCP_OWN & (TCP_OWN - 1)) && !(TCP_OUTS & (TCP_OUTS - 1)),
	      "rings");

#endif /* PST_TCP_H */
