/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - what the client and the server of penstock-perf say to each other.
 *
 *	client				server
 *	HELLO: test, memory wanted  ->
 *				    <-	READY: the key of that memory, or why not
 *	START: size, how often	    ->
 *				    <-	GO
 *	... the test ...
 *	STOP			    ->
 *				    <-	RESULT: what was counted
 *	START ...			and so on; the link's end is the end
 *
 * Messages of the send tests begin with a byte 0, those above with PERF_MARK. Little-endian,
 * no hidden holes, reserved fields zero; a server hangs up on whatever else it hears.
 */
#ifndef PERF_WIRE_H
#define PERF_WIRE_H

#include "rdma/fabric.h"

#include <assert.h>

#define PERF_MARK    'P'
#define PERF_VERSION 1

enum perf_wire_type {
	PERF_HELLO = 1,
	PERF_READY,
	PERF_START,
	PERF_GO,
	PERF_STOP,
	PERF_RESULT,
};

/* What the server does of its own accord. */
enum perf_wire_test {
	PERF_PASSIVE = 1, /* nothing: its memory is read or written */
	PERF_WRITE_BACK,  /* sees a write's last byte change, and writes as much back */
	PERF_ECHO,	  /* sends every message back */
	PERF_COUNT,	  /* counts messages */
	PERF_SUM,	  /* immediate s: adds slot s, of @work bytes, to its sum; s comes back */
	PERF_ANSWER,	  /* an immediate comes back */
	PERF_RETURN,	  /* immediate PERF_ROWS(s, n): n rows of slot s are written back with it */
};

struct perf_hdr {
	uint8_t mark;
	uint8_t type;
	uint16_t version;
	uint32_t size; /* of the whole message */
};

struct perf_hello {
	struct perf_hdr hdr;
	uint32_t test; /* enum perf_wire_test */
	uint32_t slots;
	uint64_t remote; /* bytes of memory that the server is to show */
	uint64_t base;	 /* in the client's memory behind @key: what this link may use */
	uint64_t local;	 /* and how many bytes of it */
	uint64_t work;	 /* SUM: bytes of a slot; RETURN: bytes of a row */
	struct pst_key key;
	uint32_t page;	/* bytes of a page, 0: usual ones */
	uint32_t sleep; /* 1: the server sleeps instead of spinning */
};

struct perf_ready {
	struct perf_hdr hdr;
	int32_t code; /* 0, or a negative errno */
	uint32_t reserved;
	uint64_t len;
	struct pst_key key;
	char text[200]; /* why not */
};

struct perf_start {
	struct perf_hdr hdr;
	uint64_t size;
	uint64_t iters; /* 0: until STOP */
};

struct perf_result {
	struct perf_hdr hdr;
	uint64_t count; /* messages, immediates or writes that were seen */
	uint64_t bytes;
	double sum; /* PERF_SUM: the first element */
};

static_assert(sizeof(struct perf_hdr) == 8, "layout of the messages");
static_assert(sizeof(struct perf_hello) == 72, "layout of the messages");
static_assert(sizeof(struct perf_ready) == 240, "layout of the messages");
static_assert(sizeof(struct perf_start) == 24, "layout of the messages");
static_assert(sizeof(struct perf_result) == 32, "layout of the messages");

/* Slot and rows in one immediate. */
#define PERF_ROWS_MAX	    ((1u << 24) - 1)
#define PERF_ROWS(slot, n)  ((uint32_t)(slot) << 24 | (uint32_t)(n))
#define PERF_ROWS_SLOT(imm) ((imm) >> 24)
#define PERF_ROWS_N(imm)    ((imm)&PERF_ROWS_MAX)

#define PERF_HDR(t, msg)                                                                     \
	{                                                                                    \
		.mark = PERF_MARK, .type = (t), .version = PERF_VERSION, .size = sizeof(msg) \
	}

#endif /* PERF_WIRE_H */
