/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/slot.h"

#include "rdma/crc32c.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t align_up(uint64_t n)
{
	return (n + 4095) / 4096 * 4096;
}

int pst_slot_create(const struct pst_shard *shard, struct pst_link *owner, int node,
		    uint32_t pool_flags, struct pst_slot **out, struct pst_error *err)
{
	size_t count = pst_shard_count(shard);
	struct pst_slot_head head = {.mask = sizeof(head)};
	struct pst_pool_options po = {
		.size = sizeof(po), .name = "push slot", .node = node, .flags = pool_flags};
	struct pst_slot *slot = calloc(1, sizeof(*slot));
	int rc = -ENOMEM;

	if (!slot)
		return pst_fail(err, rc, "no memory for a slot");
	head.norms = (head.mask + count + 63) / 64 * 64;
	head.gradients = align_up(head.norms + count * sizeof(double));
	po.bytes = head.gradients + pst_shard_buffer_bytes(shard);
	slot->owner = owner;
	slot->count = count;
	slot->mask = calloc(2, count);
	if (!slot->mask) {
		pst_fail(err, rc, "no memory for a slot");
		goto destroy_slot;
	}
	slot->arrived = slot->mask + count;
	if (getrandom(&slot->token, sizeof(slot->token), 0) != sizeof(slot->token)) {
		rc = pst_fail(err, -EIO, "no random token for a slot");
		goto destroy_slot;
	}
	rc = pst_pool_create(&po, &slot->pool, err);
	if (rc < 0)
		goto destroy_slot;
	memcpy(pst_pool_base(slot->pool), &head, sizeof(head));
	slot->wire_mask = (uint8_t *)pst_pool_base(slot->pool) + head.mask;
	slot->norms = (double *)((char *)pst_pool_base(slot->pool) + head.norms);
	slot->gradients = (float *)((char *)pst_pool_base(slot->pool) + head.gradients);
	*out = slot;
	return 0;
destroy_slot:
	pst_slot_destroy(slot);
	return rc;
}

void pst_slot_destroy(struct pst_slot *slot)
{
	if (!slot)
		return;
	if (slot->region)
		pst_region_release(slot->region);
	pst_pool_destroy(slot->pool);
	free(slot->mask);
	free(slot);
}

/* One message's items, checked over the team. */
struct check {
	const struct pst_slot *slot;
	const struct pst_shard *shard;
	const struct pst_wire_pushed *items;
	bool good[PST_PUSHED_MAX];
};

static void check_item(void *ctx, size_t i)
{
	struct check *c = ctx;
	uint32_t tensor = c->items[i].tensor;
	const void *at = c->slot->wire_mask;
	uint64_t bytes = c->slot->count;

	if (tensor != PST_PUSHED_MASK) {
		at = c->slot->gradients + pst_shard_tensor_offset(c->shard, tensor) / sizeof(float);
		bytes = pst_shard_tensor_bytes(c->shard, tensor);
	}
	c->good[i] = pst_crc32c(0, at, bytes) == c->items[i].crc;
}

size_t pst_slot_pushed(struct pst_slot *slot, const struct pst_shard *shard,
		       struct pst_device *device, const struct pst_wire_pushed *items, size_t n,
		       __u64 *bad)
{
	struct check c = {.slot = slot, .shard = shard, .items = items};
	size_t count = 0;

	pst_device_for(device, n, check_item, &c);
	for (size_t i = 0; i < n; i++)
		if (items[i].tensor != PST_PUSHED_MASK)
			slot->arrived[items[i].tensor] = 1;
	/* one that is named twice has to agree twice */
	for (size_t i = 0; i < n; i++) {
		if (c.good[i])
			continue;
		if (items[i].tensor != PST_PUSHED_MASK)
			slot->arrived[items[i].tensor] = 0;
		bad[i / 64] |= 1ull << i % 64;
		count++;
	}
	return count;
}

void pst_slot_commit(struct pst_slot *slot, const struct pst_msg *req)
{
	slot->commit = *req;
	slot->committed = true;
	for (size_t i = 0; i < slot->count; i++)
		slot->mask[i] = slot->wire_mask[i] != 0;
}

bool pst_slot_complete(const struct pst_slot *slot)
{
	if (!slot->committed || slot->summed)
		return slot->summed;
	for (size_t i = 0; i < slot->count; i++)
		if (slot->mask[i] && !slot->arrived[i])
			return false;
	return true;
}

void pst_slot_add(struct pst_slot *to, const struct pst_slot *from, const struct pst_shard *shard,
		  const struct pst_ops *ops)
{
	for (size_t i = 0; i < to->count; i++) {
		uint64_t at = pst_shard_tensor_offset(shard, i) / sizeof(float);
		uint64_t bytes = pst_shard_tensor_bytes(shard, i);

		if (!from->mask[i])
			continue;
		if (to->mask[i])
			ops->add(to->gradients + at, from->gradients + at, bytes / sizeof(float));
		else
			memcpy(to->gradients + at, from->gradients + at, bytes);
		to->mask[i] = 1;
	}
}

void pst_slot_inherit(struct pst_slot *to, const struct pst_slot *from,
		      const struct pst_shard *shard)
{
	memset(to->mask, 0, to->count);
	to->sum = true;
	pst_slot_add(to, from, shard, NULL); /* nothing to add to: copies */
}

void pst_slot_reset(struct pst_slot *slot)
{
	memset(slot->mask, 0, 2 * slot->count);
	slot->committed = slot->summed = slot->sum = false;
}
