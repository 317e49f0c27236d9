/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * DOC: What Penstock's processes say to each other.
 *
 * Small messages travel over a link (see rdma/fabric.h); each begins with
 * struct pst_msg. A request carries a sequence number that its answer repeats;
 * an answer has PST_MSG_ANSWER set in its type and begins with struct
 * pst_msg_answer. Everything is little-endian, naturally aligned, without
 * hidden holes. @size is the size of the whole message: a receiver takes a
 * message that is at least as long as the struct it knows, and refuses shorter
 * ones. Reserved fields are zero and are checked.
 *
 * Payload never travels in messages: it lies in regions, and messages name it
 * by key and offset. Where a region can be mapped (shm) its reader uses it in
 * place, and so does its writer; elsewhere both copy, one-sidedly:
 *
 *	what                   who copies it                     how it is known to be whole
 *	snapshot of a server   engine and worker, one-sided read  held[] is the same after it
 *	gradients, mask        engine and worker, one-sided write  PST_MSG_PUSHED: CRC-32C
 *	norms                  engine, one-sided read              after the commit's answer
 *	rows of an engine      worker, one-sided read              named by PST_MSG_EXPERTS
 *	results for an engine  worker, one-sided write             before its answer
 *	directory of a table   server, one-sided read              before its answer
 *
 * Roles: an engine asks servers to make a table, to commit and to apply steps,
 * and asks workers to compute experts. A worker asks servers for a table's snapshot
 * and for the engine's push slot.
 */
#ifndef _UAPI_PENSTOCK_WIRE_H
#define _UAPI_PENSTOCK_WIRE_H

#include <linux/types.h>
#include <penstock/error.h>

/* Types of requests; numbers are never used again. */
enum {
	PST_MSG_TABLE_CREATE = 1,  /* engine to server */
	PST_MSG_TABLE_INIT = 2,	   /* engine to server */
	PST_MSG_TABLE_LOAD = 3,	   /* engine to server */
	PST_MSG_TABLE_OPEN = 4,	   /* anyone to server */
	PST_MSG_SLOT_OPEN = 5,	   /* engine to server */
	PST_MSG_SLOT_ATTACH = 6,   /* worker to server */
	PST_MSG_COMMIT = 7,	   /* engine to server */
	PST_MSG_APPLY = 8,	   /* engine to server */
	PST_MSG_SAVE = 9,	   /* engine to server */
	PST_MSG_STAT = 10,	   /* anyone to anyone */
	PST_MSG_WORKER_SETUP = 11, /* engine to worker */
	PST_MSG_EXPERTS = 12,	   /* engine to worker */
	PST_MSG_PUSHED = 13,	   /* engine or worker to server */
	PST_MSG_ANSWER = 0x8000,
};

/**
 * struct pst_msg - how every message begins
 * @size: bytes of the whole message
 * @type: PST_MSG_*
 * @flags: 0
 * @seq: repeated by the answer
 */
struct pst_msg {
	__u32 size;
	__u16 type;
	__u16 flags;
	__aligned_u64 seq;
};

/**
 * struct pst_msg_answer - how every answer begins; whole where nothing else is said
 * @hdr: type | PST_MSG_ANSWER and the request's seq
 * @error: code 0, or what went wrong in words
 */
struct pst_msg_answer {
	struct pst_msg hdr;
	struct pst_error error;
};

struct pst_wire_key {
	__aligned_u64 k[2];
};

/* How a tensor gets its first values. */
enum {
	PST_INIT_ZERO = 0,
	PST_INIT_ONE = 1,
	PST_INIT_NORMAL = 2, /* mean 0, deviation @init_std, stream chosen by (seed, name) */
};

enum {
	PST_TENSOR_DECAY = 1, /* weight decay applies */
	PST_TENSOR_LOAD = 2,  /* a load bias: w -= bias_rate * g, no moments, not in the norm */
};

#define PST_WIRE_NAME 96
#define PST_WIRE_DIMS 4

/**
 * struct pst_wire_tensor - one tensor of a table
 * @name: Hugging Face name, ends in a NUL
 * @dtype: enum pst_dtype; masters and snapshots are F32 for now
 * @ndim: 1 to 4
 * @shape: elements per dimension, 0 behind @ndim
 * @init: PST_INIT_*
 * @flags: PST_TENSOR_*
 * @init_std: for PST_INIT_NORMAL
 * @order: its place among all tensors of the table; rises within a shard
 * @offset: of its data in a snapshot buffer and in a push slot (set by the server)
 * @bytes: of its data (set by the server)
 */
struct pst_wire_tensor {
	char name[PST_WIRE_NAME];
	__u32 dtype;
	__u32 ndim;
	__aligned_u64 shape[PST_WIRE_DIMS];
	__u32 init;
	__u32 flags;
	double init_std;
	__aligned_u64 order;
	__aligned_u64 offset;
	__aligned_u64 bytes;
};

/**
 * struct pst_snapshot_head - first page of a server's published region
 * @magic: PST_SNAPSHOT_MAGIC
 * @tensors: how many struct pst_wire_tensor follow at @directory
 * @directory: offset of the directory in the region
 * @buffer: offsets of the two buffers in the region
 * @buffer_bytes: of each
 * @current: version that readers should take, in buffer @current & 1
 * @held: version that each buffer holds, PST_VERSION_NONE while it is written.
 *	A reader that keeps using a buffer checks @held afterwards: the same as
 *	before means that nothing was torn.
 *
 * Read-only for everybody but the server.
 */
struct pst_snapshot_head {
	__aligned_u64 magic;
	__aligned_u64 tensors;
	__aligned_u64 directory;
	__aligned_u64 buffer[2];
	__aligned_u64 buffer_bytes;
	__aligned_u64 current;
	__aligned_u64 held[2];
};

#define PST_SNAPSHOT_MAGIC 0x31304b434f545350ull /* "PSTOCK01" */
#define PST_VERSION_NONE   (~0ull)

/**
 * struct pst_slot_head - first bytes of a client's push slot, written by both
 * @gradients: offset of gradient data; tensor i's is at @gradients + its @offset
 * @mask: offset of the mask, one byte per tensor: 1 = it has a gradient in this
 *	step (the client writes it before it commits; others count as zero)
 * @norms: offset of one double per tensor, the sum of squares of its gradient
 *	(the server writes it before it answers a commit)
 */
struct pst_slot_head {
	__aligned_u64 gradients;
	__aligned_u64 mask;
	__aligned_u64 norms;
};

/*
 * In immediates to a server: whose slot, for which version (its lowest bit: a
 * worker that died may be heard late), and which tensor has arrived there. They are for
 * gradients that were computed in place, or pushed without a CRC. A server takes them
 * only from a link that opened or joined the slot.
 */
#define PST_IMM(slot, version, tensor) \
	((__u32)(slot) << 25 | ((__u32)(version)&1) << 24 | (__u32)(tensor))
#define PST_IMM_SLOT(imm)    ((imm) >> 25)
#define PST_IMM_VERSION(imm) ((imm) >> 24 & 1)
#define PST_IMM_TENSOR(imm)  ((imm)&0xffffff)
#define PST_MAX_SLOTS	     128
#define PST_MAX_TENSORS	     (1u << 24)

/**
 * struct pst_msg_table_create - make this server's shard of a table
 * @key, @offset: region of the client where @tensors descriptors lie
 * @tensors: at least 1
 * @shard, @shards: which part of the table this is; only for names of files
 *
 * The table belongs to the link that made it: when that ends, the table and all slots go, and
 * the links that used them are closed. EEXIST: the server has a table of another link.
 */
struct pst_msg_table_create {
	struct pst_msg hdr;
	struct pst_wire_key key;
	__aligned_u64 offset;
	__aligned_u64 tensors;
	__u32 shard;
	__u32 shards;
};

/* Fill the shard with first values; publishes version 0. */
struct pst_msg_table_init {
	struct pst_msg hdr;
	__aligned_u64 seed;
};

#define PST_WIRE_PATH 1024

enum {
	PST_LOAD_OPTIMIZER = 1, /* moments too; without it they are zero */
};

/**
 * struct pst_msg_table_load - fill the shard from a checkpoint on disk
 * @version: what it is published as
 * @flags: PST_LOAD_*
 * @path: directory, absolute
 */
struct pst_msg_table_load {
	struct pst_msg hdr;
	__aligned_u64 version;
	__u32 flags;
	__u32 reserved;
	char path[PST_WIRE_PATH];
};

/**
 * struct pst_msg_table_loaded - answer to PST_MSG_TABLE_LOAD
 * @read_bytes: from the drive
 * @copied_bytes: of those, through a bounce buffer
 * @note: what was slower than it could be, or empty
 */
struct pst_msg_table_loaded {
	struct pst_msg_answer answer;
	__aligned_u64 read_bytes;
	__aligned_u64 copied_bytes;
	char note[256];
};

/**
 * struct pst_msg_table_opened - answer to PST_MSG_TABLE_OPEN (a bare struct pst_msg)
 * @snapshot: read-only key of the published region
 */
struct pst_msg_table_opened {
	struct pst_msg_answer answer;
	struct pst_wire_key snapshot;
};

/**
 * struct pst_msg_slot_opened - answer to PST_MSG_SLOT_OPEN (a bare struct pst_msg)
 * @key: writable key of the slot
 * @token: lets others push into it
 * @slot: its number, for immediates
 */
struct pst_msg_slot_opened {
	struct pst_msg_answer answer;
	struct pst_wire_key key;
	__aligned_u64 token;
	__u32 slot;
	__u32 reserved;
};

/* Join the slot of the engine that gave the token; answered as SLOT_OPEN. */
struct pst_msg_slot_attach {
	struct pst_msg hdr;
	__aligned_u64 token;
};

/**
 * struct pst_wire_pushed - what was written into a slot
 * @tensor: whose gradient, or PST_PUSHED_MASK
 * @crc: CRC-32C of it
 */
struct pst_wire_pushed {
	__u32 tensor;
	__u32 crc;
};

#define PST_PUSHED_MASK 0xffffffffu
#define PST_PUSHED_MAX	((4032 - 32) / 8) /* that fit in one message */

/**
 * struct pst_msg_pushed - these have been written into a slot, one-sidedly, before this message
 * @version: that the gradients were computed with
 * @slot: which the link opened or joined
 * @count: of @item, 1 to PST_PUSHED_MAX
 *
 * The server holds each against its CRC. Only what agrees counts as arrived.
 */
struct pst_msg_pushed {
	struct pst_msg hdr;
	__aligned_u64 version;
	__u32 slot;
	__u32 count;
	struct pst_wire_pushed item[];
};

/**
 * struct pst_msg_pushed_answer - answer to PST_MSG_PUSHED
 * @bad: bit i % 64 of word i / 64: item i does not agree, and is to be written again
 */
struct pst_msg_pushed_answer {
	struct pst_msg_answer answer;
	__aligned_u64 bad[(PST_PUSHED_MAX + 63) / 64];
};

/*
 * All gradients of a step that the mask names are there, or on their way (the
 * server waits for the immediate of each, or for its PST_MSG_PUSHED). Answered when every
 * client has committed and the norms are written.
 */
struct pst_msg_commit {
	struct pst_msg hdr;
	__aligned_u64 version; /* that the gradients were computed with */
};

/* One optimizer step over the committed gradients; publishes version + 1. */
struct pst_msg_apply {
	struct pst_msg hdr;
	__aligned_u64 version;
	double lr;
	double beta1, beta2;
	double eps;
	double weight_decay;
	double grad_scale; /* from clipping */
	double bias_rate;  /* of PST_TENSOR_LOAD tensors */
};

/**
 * struct pst_msg_save - write the shard to disk
 * @path: directory, absolute, exists
 *
 * Writes model and optimizer files named by (shard, shards), each whole and
 * synced. The table does not change meanwhile.
 */
struct pst_msg_save {
	struct pst_msg hdr;
	char path[PST_WIRE_PATH];
};

struct pst_msg_saved {
	struct pst_msg_answer answer;
	__aligned_u64 bytes;
};

/**
 * struct pst_msg_stat - answer to PST_MSG_STAT (a bare struct pst_msg)
 * @pid: of the process
 * @threads: of its device
 * @node: NUMA node of its memory, -1: any
 * @locked: 1 when its memory is locked in RAM
 * @page_bytes: of its pools
 * @pool_bytes, @pool_used: of all its pools
 * @moved_bytes: by one-sided reads and writes of this process
 * @copied_bytes: of payload, beyond the first move
 * @kernels: which it runs
 * @note: what is worse than asked, or empty
 * @pulled_bytes: of tensors, into local copies
 * @pull_hits: tensors that were needed and here
 * @crc_bad: server: pushes that did not agree with their CRC; worker: of its own
 * @resent: pushes that were written again
 */
struct pst_msg_stated {
	struct pst_msg_answer answer;
	__u32 pid;
	__u32 threads;
	__s32 node;
	__u32 locked;
	__aligned_u64 page_bytes;
	__aligned_u64 pool_bytes;
	__aligned_u64 pool_used;
	__aligned_u64 moved_bytes;
	__aligned_u64 copied_bytes;
	char kernels[16];
	char note[256];
	__aligned_u64 pulled_bytes;
	__aligned_u64 pull_hits;
	__aligned_u64 crc_bad;
	__aligned_u64 resent;
};

#define PST_WIRE_URL 120

/*
 * What a server or worker program says once it listens, with the URL and a newline behind it: to
 * the socket that is its standard input and its leash, else to standard output.
 */
#define PST_LISTENS "listening at "

/* One per server, in the region that PST_MSG_WORKER_SETUP names. */
struct pst_wire_server {
	char url[PST_WIRE_URL];
	__aligned_u64 token; /* of the engine's slot there, 0: forward only */
};

/**
 * struct pst_msg_worker_setup - make a worker ready for one engine's experts
 * @rows: region of the engine with rows to compute (read-only)
 * @results: region of the engine for what comes back (writable)
 * @servers_offset: in @rows, of @servers struct pst_wire_server
 * @hidden, @inter: of an expert
 * @layers, @experts: of the model
 * @max_rows: most rows that one layer can have
 * @servers: how many
 * @reserved: 0
 *
 * ESHUTDOWN: the worker drains, and takes no engine any more.
 */
struct pst_msg_worker_setup {
	struct pst_msg hdr;
	struct pst_wire_key rows;
	struct pst_wire_key results;
	__aligned_u64 servers_offset;
	__u32 servers;
	__u32 hidden;
	__u32 inter;
	__u32 layers;
	__u32 experts;
	__u32 max_rows;
};

/**
 * struct pst_wire_expert - one expert's rows
 * @expert: index in its layer
 * @row: its first row, counted from the bases of the message
 * @rows: how many
 * @reserved: 0
 */
struct pst_wire_expert {
	__u32 expert;
	__u32 row;
	__u32 rows;
	__u32 reserved;
};

enum {
	PST_EXPERTS_BACKWARD = 1, /* also dx, and weight gradients to the servers */
	PST_EXPERTS_KEEP = 2,	  /* forward: a backward of the same pass will follow */
};

/**
 * struct pst_msg_experts - compute some experts of one layer
 * @version: of the weights
 * @pass: number of the forward that the rows belong to; backward repeats it
 * @x: offset in the rows region of x [., hidden]
 * @dy: offset in the rows region of dy, backward
 * @out: offset in the results region of y (forward) or dx (backward)
 * @layer: of the model
 * @what: PST_EXPERTS_*
 * @count: of @item, experts rising
 * @reserved: 0
 *
 * Answered when the results are in place and, backward, the weight gradients
 * are on their servers, which have said so where they were pushed. ESHUTDOWN: the worker
 * drains. It has done nothing of this request and will do nothing more: the engine closes the
 * link and asks others.
 */
struct pst_msg_experts {
	struct pst_msg hdr;
	__aligned_u64 version;
	__aligned_u64 pass;
	__aligned_u64 x;
	__aligned_u64 dy;
	__aligned_u64 out;
	__u32 layer;
	__u32 what;
	__u32 count;
	__u32 reserved;
	struct pst_wire_expert item[];
};

#define PST_EXPERTS_MAX ((4032 - 72) / 16) /* that fit in one message */

#ifdef __cplusplus
#define PST_WIRE_ASSERT(cond) static_assert(cond, #cond)
#else
#define PST_WIRE_ASSERT(cond) _Static_assert(cond, #cond)
#endif

PST_WIRE_ASSERT(sizeof(struct pst_error) == 512);
PST_WIRE_ASSERT(sizeof(struct pst_msg) == 16);
PST_WIRE_ASSERT(sizeof(struct pst_msg_answer) == 528);
PST_WIRE_ASSERT(sizeof(struct pst_wire_tensor) == 176);
PST_WIRE_ASSERT(sizeof(struct pst_snapshot_head) == 72);
PST_WIRE_ASSERT(sizeof(struct pst_slot_head) == 24);
PST_WIRE_ASSERT(sizeof(struct pst_msg_table_create) == 56);
PST_WIRE_ASSERT(sizeof(struct pst_msg_table_init) == 24);
PST_WIRE_ASSERT(sizeof(struct pst_msg_table_load) == 1056);
PST_WIRE_ASSERT(sizeof(struct pst_msg_table_loaded) == 800);
PST_WIRE_ASSERT(sizeof(struct pst_msg_table_opened) == 544);
PST_WIRE_ASSERT(sizeof(struct pst_msg_slot_opened) == 560);
PST_WIRE_ASSERT(sizeof(struct pst_msg_slot_attach) == 24);
PST_WIRE_ASSERT(sizeof(struct pst_wire_pushed) == 8);
PST_WIRE_ASSERT(sizeof(struct pst_msg_pushed) == 32);
PST_WIRE_ASSERT(sizeof(struct pst_msg_pushed_answer) == 592);
PST_WIRE_ASSERT(sizeof(struct pst_msg_commit) == 24);
PST_WIRE_ASSERT(sizeof(struct pst_msg_apply) == 80);
PST_WIRE_ASSERT(sizeof(struct pst_msg_save) == 1040);
PST_WIRE_ASSERT(sizeof(struct pst_msg_saved) == 536);
PST_WIRE_ASSERT(sizeof(struct pst_msg_stated) == 888);
PST_WIRE_ASSERT(sizeof(struct pst_wire_server) == 128);
PST_WIRE_ASSERT(sizeof(struct pst_msg_worker_setup) == 80);
PST_WIRE_ASSERT(sizeof(struct pst_wire_expert) == 16);
PST_WIRE_ASSERT(sizeof(struct pst_msg_experts) == 72);

#endif /* _UAPI_PENSTOCK_WIRE_H */
