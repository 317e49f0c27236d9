/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - a table spread over servers, as the engine that trains it sees it.
 *
 * The model
 *   client   links to all servers of one table; a slot on each for gradients.
 *   tensors  in one order (that of the list it was made from). Which server has
 *            which follows from sizes and count alone: units (an expert's
 *            tensors stay together) go to the server with the least so far.
 *   step     begin gives pointers: weights in the servers' snapshots, gradients
 *            in the slots. Where these can be mapped (shm) both are used in
 *            place: nothing is pulled or pushed but what kernels read and write
 *            there. Elsewhere begin pulls this engine's own tensors into local copies, once
 *            per version, and gradients are local until commit writes them into the slots
 *            and has the servers agree to each. commit tells the
 *            servers which gradients are there and sums their squares in the
 *            order of the table; apply does the optimizer step.
 *
 * Order of calls: open; create; init or load; then begin, commit, apply per
 * step; save between steps; close.
 *
 * Threads: one.
 */
#ifndef PST_CLIENT_H
#define PST_CLIENT_H

#include "rdma/fabric.h"

#include <penstock/wire.h>

struct pst_client;

struct pst_client_options {
	size_t size; /* sizeof(struct pst_client_options) */
	struct pst_fabric *fabric;
	const char *const *urls;
	unsigned int servers;
	int timeout_ms; /* for a server to appear */
	const struct pst_wire_tensor *tensors;
	const uint32_t *unit; /* of each tensor; tensors of a unit are neighbours */
	size_t count;
	uint64_t copy_bytes; /* budget of local copies, 0: what this engine's tensors take */
};

/* Connect to all servers and make the table there (no values yet). */
int pst_client_open(const struct pst_client_options *opts, struct pst_client **out,
		    struct pst_error *err);
void pst_client_close(struct pst_client *client);

int pst_client_init(struct pst_client *client, uint64_t seed, struct pst_error *err);

struct pst_client_loaded {
	uint64_t read_bytes, copied_bytes;
	char note[256];
};

/* Every server reads its own tensors from @dir, which all of them can reach. */
int pst_client_load(struct pst_client *client, const char *dir, bool optimizer, uint64_t version,
		    struct pst_client_loaded *out, struct pst_error *err);

/* Open a push slot on every server; before the first commit. */
int pst_client_train(struct pst_client *client, struct pst_error *err);

/*
 * Pointers for the current version, for tensors with @mine[i]; others get NULL. They are
 * valid until the next begin. @grads may be NULL; what is behind its pointers is undefined until it
 * is written. *version is what workers are told.
 */
int pst_client_begin(struct pst_client *client, const uint8_t *mine, const float **weights,
		     float **grads, uint64_t *version, struct pst_error *err);

/*
 * @has[i]: tensor i has a gradient in this step, put there by this engine
 * (@mine[i]) or by a worker. *norm_sq: sum of squares over all tensors.
 */
int pst_client_commit(struct pst_client *client, const uint8_t *mine, const uint8_t *has,
		      double *norm_sq, struct pst_error *err);

/* @apply: hdr and version are filled in here. */
int pst_client_apply(struct pst_client *client, struct pst_msg_apply *apply, struct pst_error *err);

/* Every server writes its files into @dir (which exists); then the indices. *bytes of tensors. */
int pst_client_save(struct pst_client *client, const char *dir, uint64_t *bytes,
		    struct pst_error *err);

/* What workers need to reach server @i and push into this engine's slot. */
void pst_client_describe(const struct pst_client *client, unsigned int i,
			 struct pst_wire_server *out);

int pst_client_stat(struct pst_client *client, unsigned int server, struct pst_msg_stated *out,
		    struct pst_error *err);

/*
 * 0 while all servers can be reached, as far as is known here; -EHOSTDOWN and who has gone. Between
 * the calls of a step, too.
 */
int pst_client_check(struct pst_client *client, struct pst_error *err);

/* What this engine moved itself; all 0 where memory is mapped. */
struct pst_client_moved {
	uint64_t pulled_bytes, pull_hits; /* weights; tensors that were here already */
	uint64_t pushed_bytes;		  /* gradients and masks */
	uint64_t crc_bad, resent;	  /* pushes that a server did not agree to; written again */
};

void pst_client_moved(const struct pst_client *client, struct pst_client_moved *out);

/*
 * Memory that weights and gradients are in, as the last begin left it: piece @i of a few, counted
 * from 0. *at NULL: this one is not there. Of what is @read_only a view is mapped. -ENOENT: there
 * are no more.
 */
int pst_client_memory(const struct pst_client *client, size_t i, const void **at, uint64_t *bytes,
		      bool *read_only);

#endif /* PST_CLIENT_H */
