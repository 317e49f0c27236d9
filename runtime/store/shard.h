/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard.h - the part of a table that one server owns.
 *
 * The model
 *   master    the fp32 truth of a tensor, private, beside its Adam moments.
 *   snapshot  what readers see: one region with a head, a directory and two
 *             buffers (penstock/wire.h). An optimizer step writes the next
 *             version straight into the buffer that is not current and then
 *             flips, so that a reader never sees a torn version.
 *   gradients come from outside as a base address; tensor i's lie at its
 *             directory offset, for the tensors that a mask names.
 *
 * Order of calls: create; init or load; then norms and apply per step; save at any time between.
 *
 * Numbers: initial values depend on (seed, name) alone; AdamW on one tensor at
 * a time, cut at fixed places. So neither shards nor threads change a bit.
 *
 * Threads: one; it uses the device's team.
 */
#ifndef PST_SHARD_H
#define PST_SHARD_H

#include "runtime/device/device.h"
#include "runtime/mem/pool.h"

#include <penstock/wire.h>

struct pst_shard;

struct pst_shard_options {
	size_t size; /* sizeof(struct pst_shard_options) */
	const struct pst_wire_tensor *tensors;
	size_t count;
	uint32_t shard, shards;
	struct pst_device *device;
	int node;
	uint32_t pool_flags; /* enum pst_pool_flags */
};

/*
 * Checks every descriptor (they come from a peer): names unique and ended,
 * F32, dims and product sane, order rising. -EINVAL with a sentence.
 */
int pst_shard_create(const struct pst_shard_options *opts, struct pst_shard **out,
		     struct pst_error *err);
void pst_shard_destroy(struct pst_shard *shard);

int pst_shard_init(struct pst_shard *shard, uint64_t seed, struct pst_error *err);

struct pst_shard_loaded {
	uint64_t read_bytes, copied_bytes;
	char note[256];
};

/*
 * Read the shard's tensors by name from the checkpoint in @dir (any number of
 * files, F32 or BF16), with the moments if @optimizer, and publish them as
 * @version. Missing tensors, other shapes, NaN and infinity are refused by name.
 */
int pst_shard_load(struct pst_shard *shard, const char *dir, bool optimizer, uint64_t version,
		   struct pst_shard_loaded *out, struct pst_error *err);

/* Write model and optimizer files of this shard into @dir; *bytes written. */
int pst_shard_save(struct pst_shard *shard, const char *dir, uint64_t *bytes,
		   struct pst_error *err);

/* The name of the file that a shard's @stem ("model", "optimizer") is saved to; @dir may be "". */
void pst_shard_file(char *path, size_t len, const char *dir, const char *stem, uint32_t shard,
		    uint32_t shards);

/* norms[i] = sum of squares of gradient i where mask[i], else 0. */
void pst_shard_norms(struct pst_shard *shard, const uint8_t *mask, const float *grads,
		     double *norms);

/*
 * One step with the current version's gradients. -EINVAL: @apply is for another
 * version; -EDOM: a number in it makes no sense. Nothing was changed then.
 */
int pst_shard_apply(struct pst_shard *shard, const uint8_t *mask, const float *grads,
		    const struct pst_msg_apply *apply);

size_t pst_shard_count(const struct pst_shard *shard);
uint64_t pst_shard_version(const struct pst_shard *shard);
/* Bytes of one buffer, which are those of a slot's gradients. */
uint64_t pst_shard_buffer_bytes(const struct pst_shard *shard);
struct pst_pool *pst_shard_snapshot(const struct pst_shard *shard);
struct pst_pool *pst_shard_masters(const struct pst_shard *shard);
uint64_t pst_shard_tensor_bytes(const struct pst_shard *shard, size_t i);
uint64_t pst_shard_tensor_offset(const struct pst_shard *shard, size_t i);

#endif /* PST_SHARD_H */
