/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * DOC: What penstockd and its children say to each other.
 *
 * A child (penstock-worker, penstock-ps) has one end of a seqpacket socket pair, its
 * leash; the daemon has the other. A packet is one message; each begins with
 * struct pst_leash. Orders carry a number that their answer repeats. A message that is longer
 * than the struct that is known is taken by its beginning; a shorter one, or a type that
 * is not known, ends the leash.
 *
 * The daemon may die and another one take its end over: a child never waits for the
 * other side, drops what finds no room, and says HELLO again, and all of its experts and
 * tables, when it is asked. When nobody has the other end any more, it goes on until nobody
 * needs it.
 *
 *	child to daemon		HELLO, BEAT, EXPERT, TABLE, CHECKED, ANSWER, FAIL
 *	daemon to child		ASK, DRAIN, STOP, BIND, CHECK, PLACE
 */
#ifndef _UAPI_PENSTOCK_LEASH_H
#define _UAPI_PENSTOCK_LEASH_H

#include <linux/types.h>
#include <penstock/error.h>
#include <penstock/ioctl.h>

#define PST_LEASH_MAX 1024 /* bytes of the longest message */

/* Types; numbers are never used again. */
enum {
	PST_LEASH_HELLO = 1,
	PST_LEASH_BEAT = 2,
	PST_LEASH_EXPERT = 3,
	PST_LEASH_TABLE = 4,
	PST_LEASH_CHECKED = 5,
	PST_LEASH_ANSWER = 6,
	PST_LEASH_FAIL = 7,

	PST_LEASH_ASK = 32,
	PST_LEASH_DRAIN = 33,
	PST_LEASH_STOP = 34,
	PST_LEASH_BIND = 35,
	PST_LEASH_CHECK = 36,
	PST_LEASH_PLACE = 37,
};

/**
 * struct pst_leash - how every message begins; whole: ASK, DRAIN, STOP
 * @size: Bytes of the whole message
 * @type: PST_LEASH_*
 * @seq: Of an order, repeated by its answer; else 0
 *
 * DRAIN and STOP are answered when they are done, just before the child ends.
 */
struct pst_leash {
	__u32 size;
	__u32 type;
	__aligned_u64 seq;
};

enum {
	PST_LEASH_WORKER = 1,
	PST_LEASH_SERVER = 2,
};

/**
 * struct pst_leash_hello - it listens; said once, again to ASK, and when the note changes
 * @hdr: HELLO
 * @role: PST_LEASH_WORKER or PST_LEASH_SERVER
 * @pid: Its process
 * @threads: That compute
 * @node: NUMA node, PST_ANY
 * @kernels: Which are built in, "avx2"
 * @url: Where it listens
 * @note: What is worse than asked, and what mends it; or empty
 */
struct pst_leash_hello {
	struct pst_leash hdr;
	__u32 role;
	__u32 pid;
	__u32 threads;
	__s32 node;
	__u8 kernels[16];
	__u8 url[PST_URL_BYTES];
	__u8 note[256];
};

/**
 * struct pst_leash_beat - every half second: it lives, and what it did since it began
 * @hdr: BEAT
 * @engines: Links that it serves
 * @draining: 1: it takes nothing new
 * @busy_ms: For how long what it computes now has been running; 0: it computes nothing
 * @tables: Of a server
 * @rows: Rows that a worker computed
 * @calls: Requests that were served
 * @busy_ns: Time of computing
 * @pulled: Bytes of weights used
 * @moved: Bytes that crossed a link
 * @copied: Bytes that were moved more than once
 * @pool_bytes: Bytes in its pools
 * @read_bytes: Bytes read from disk
 */
struct pst_leash_beat {
	struct pst_leash hdr;
	__u32 engines;
	__u32 draining;
	__u32 busy_ms;
	__u32 tables;
	__aligned_u64 rows;
	__aligned_u64 calls;
	__aligned_u64 busy_ns;
	__aligned_u64 pulled;
	__aligned_u64 moved;
	__aligned_u64 copied;
	__aligned_u64 pool_bytes;
	__aligned_u64 read_bytes;
};

/**
 * struct pst_leash_expert - one that was used since the last beat, or whose copy changed
 * @hdr: EXPERT
 * @layer: Its layer
 * @index: Its index there
 * @bytes: Of its weights; 0: no engine that it serves has such an expert any more
 * @rows: Computed with it since the worker began
 * @pulled: Bytes of it that came over a link, since then
 * @copied: 1: here is a copy, or it is mapped
 * @pinned: 1: it is kept
 */
struct pst_leash_expert {
	struct pst_leash hdr;
	__u32 layer;
	__u32 index;
	__aligned_u64 bytes;
	__aligned_u64 rows;
	__aligned_u64 pulled;
	__u32 copied;
	__u32 pinned;
};

/**
 * struct pst_leash_table - a server's part of a table that changed since the last beat
 * @hdr: TABLE
 * @number: Which one, for this server
 * @gone: 1: it is no more
 * @tensors: In the part
 * @clients: Links that use it
 * @bytes: Of the snapshot
 * @state_bytes: Of what the optimizer keeps
 * @version: Published last
 * @pushed: Bytes of gradients that came in
 * @name: Its name
 */
struct pst_leash_table {
	struct pst_leash hdr;
	__u32 number;
	__u32 gone;
	__u32 tensors;
	__u32 clients;
	__aligned_u64 bytes;
	__aligned_u64 state_bytes;
	__aligned_u64 version;
	__aligned_u64 pushed;
	__u8 name[PST_NAME_MAX];
};

/**
 * struct pst_leash_answer - to an order: ANSWER; of its own accord: FAIL, before it ends
 * @hdr: ANSWER with the order's seq, or FAIL with 0
 * @error: Code 0, or what went wrong in words
 */
struct pst_leash_answer {
	struct pst_leash hdr;
	struct pst_error error;
};

/**
 * struct pst_leash_bind - BIND: serve an op by another kernel from the next call on
 * @hdr: BIND; with it comes the image (SCM_RIGHTS), none for what is built in
 * @kernel: Id, for CHECKED; 0 with what is built in
 * @__reserved: 0
 * @op: Which op
 */
struct pst_leash_bind {
	struct pst_leash hdr;
	__u32 kernel;
	__u32 __reserved;
	__u8 op[PST_NAME_MAX];
};

/**
 * struct pst_leash_check - CHECK: hold what serves an op against ref; answered by CHECKED
 * @hdr: CHECK
 * @seed: For inputs
 * @op: Which op
 */
struct pst_leash_check {
	struct pst_leash hdr;
	__aligned_u64 seed;
	__u8 op[PST_NAME_MAX];
};

/**
 * struct pst_leash_checked - what came of it
 * @hdr: CHECKED with the order's seq
 * @kernel: Which one served the op
 * @__reserved: 0
 * @error_ppb: Worst relative error, in parts per billion
 * @op: Which op
 * @error: Code 0, or -EDOM and how it disagrees
 */
struct pst_leash_checked {
	struct pst_leash hdr;
	__u32 kernel;
	__u32 __reserved;
	__aligned_u64 error_ppb;
	__u8 op[PST_NAME_MAX];
	struct pst_error error;
};

/**
 * struct pst_leash_place - PLACE: as PST_CMD_EXPERT_PLACE
 * @hdr: PLACE
 * @layer: Of the expert
 * @index: In the layer
 * @order: PST_EXPERT_*
 * @__reserved: 0
 */
struct pst_leash_place {
	struct pst_leash hdr;
	__u32 layer;
	__u32 index;
	__u32 order;
	__u32 __reserved;
};

#endif /* _UAPI_PENSTOCK_LEASH_H */
