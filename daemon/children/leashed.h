/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leashed.h - a child's end of its leash (penstock/leash.h): a thread that says how the child
 * does and obeys orders, while another one serves.
 *
 * The daemon may die and another take over: then this goes on. When nobody can take the leash over
 * any more, the child is told to leave as soon as nobody needs it. Orders are carried out in this
 * thread, so that one that hangs is silence, which the daemon hears.
 */
#ifndef DAEMON_LEASHED_H
#define DAEMON_LEASHED_H

#include <penstock/error.h>
#include <penstock/leash.h>
#include <stdint.h>

struct leashed;

/*
 * What a child can do, called from the leash's thread. Headers of messages are filled in here.
 * Required: tell, end, leave.
 */
struct leashed_ops {
	/* @hello without role, pid and url, and what it did till now */
	void (*tell)(void *object, struct pst_leash_hello *hello, struct pst_leash_beat *beat);
	void (*end)(void *object);   /* at once */
	void (*leave)(void *object); /* is said again and again */
	void (*drain)(void *object);
	/* the next behind (@io->layer, @io->index), (~0, ~0) begins; -ENOENT */
	int (*expert)(void *object, struct pst_leash_expert *io);
	/* the next above @io->number; -ENOENT */
	int (*table)(void *object, struct pst_leash_table *io);
	int (*place)(void *object, const struct pst_leash_place *how, struct pst_error *err);
	int (*bind)(void *object, const char *op, int image, struct pst_error *err);
	int (*check)(void *object, const char *op, uint64_t seed, double *error,
		     struct pst_error *err);
};

/*
 * @sock, one end of a seqpacket pair, belongs to it from now on, also on failure; @role:
 * PST_LEASH_WORKER or PST_LEASH_SERVER. @object and @url stay until leashed_end().
 */
int leashed_begin(int sock, uint32_t role, const char *url, const struct leashed_ops *ops,
		  void *object, struct leashed **out, struct pst_error *err);
/* The child ends: well, or with @err. NULL is fine. */
void leashed_end(struct leashed *l, const struct pst_error *err);

/* Without a thread yet: why it ends before it listens. 0: it was said. */
int leashed_fail(int sock, const struct pst_error *err);

#endif /* DAEMON_LEASHED_H */
