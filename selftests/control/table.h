/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - all commands as callers know them, and one good struct for each: what a door is held
 * to, whichever it is. Written down beside the headers, not made from what the daemon does.
 */
#ifndef TEST_TABLE_H
#define TEST_TABLE_H

#include <penstock/door.h>
#include <stdbool.h>
#include <stddef.h>

#define NO_SUCH_ID 0x40000000u

struct table_row {
	const char *name;
	__u32 cmd, size, min; /* @min: bytes without which it means nothing */
	__u32 flags;	      /* that are known */
	bool changes;	      /* for who may change things only */
	int id;		      /* where the id of an object is; 0: nowhere */
	int reserved;	      /* 4 bytes of zeros, 0: none */
	int text, text_bytes; /* a name; 0: none */
	int out_fd;	      /* 0: none */
	int rc; /* of the good struct, where there is no worker, pool or kernel image */
	void (*good)(void *arg); /* fill zeros up to something that is checked and then is @rc */
};

extern const struct table_row table[];
extern const unsigned int table_rows;

union table_arg {
	unsigned char bytes[PST_DOOR_MAX + 8];
	__aligned_u64 aligned;
};

/* The good struct with its size. Names that must differ do. */
void table_good(const struct table_row *row, union table_arg *arg);
/* What a call that succeeded gave: its descriptor is closed. */
void table_drop(const struct table_row *row, const union table_arg *arg);

#endif /* TEST_TABLE_H */
