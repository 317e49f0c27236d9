/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep_index.h - a memfd of records: which kept descriptor is which entry, and what is known of it.
 *
 * A record is written beside the one that it replaces, which goes after it is whole; each has a
 * version and a checksum. So whoever is killed at whatever instruction leaves one or the other.
 */
#ifndef DAEMON_KEEP_INDEX_H
#define DAEMON_KEEP_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEEP_MAX   1024 /* entries */
#define KEEP_NAME  64	/* bytes of a name, with its NUL */
#define KEEP_ABOUT 4096 /* bytes of JSON */

struct keep_index {
	int fd; /* -1: there is none */
	uint64_t version;
	bool used[KEEP_MAX + 1];
};

/* All but @name and @about is the index's. */
struct keep_record {
	char name[KEEP_NAME];
	uint64_t number; /* of the descriptor; never used again */
	uint64_t version;
	uint32_t slot;
	uint32_t about_len;
	char about[KEEP_ABOUT]; /* no NUL */
};

/* An empty one. -errno. */
int keep_index_new(struct keep_index *x);
void keep_index_close(struct keep_index *x);

/* Write @r to a slot that is free, and store which. -errno, -ENOSPC. */
int keep_index_write(struct keep_index *x, struct keep_record *r);
void keep_index_clear(struct keep_index *x, uint32_t slot);

/*
 * Take over the index in @fd (which is its own from then on): @fn for every record that is whole
 * and the latest of its name. -EBADMSG: it is no index. @fn may keep no pointer to the record.
 */
typedef void keep_index_fn(void *ctx, const struct keep_record *r);
int keep_index_adopt(struct keep_index *x, int fd, keep_index_fn *fn, void *ctx);

#endif /* DAEMON_KEEP_INDEX_H */
