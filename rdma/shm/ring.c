/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/shm/ring.h"

#include <errno.h>
#include <string.h>

static struct shm_slot *slot_at(struct shm_ring *ring, uint64_t index)
{
	return &ring->slot[index % SHM_RING_SLOTS];
}

static int tx_refresh(struct shm_tx *tx)
{
	uint64_t head = atomic_load(&tx->ring->head);

	/* Heads only grow, and never past what was written. */
	if (head - tx->head > tx->tail - tx->head)
		return -EPROTO;
	tx->head = head;
	return (int)(SHM_RING_SLOTS - (tx->tail - head));
}

int pst_shm_tx_room(struct shm_tx *tx)
{
	int room = (int)(SHM_RING_SLOTS - (tx->tail - tx->head));

	return room > 0 ? room : tx_refresh(tx);
}

void pst_shm_tx_put(struct shm_tx *tx, struct shm_item item, const void *data)
{
	struct shm_slot *slot = slot_at(tx->ring, tx->tail++);
	uint64_t desc = (uint64_t)item.imm << 32 | (uint64_t)item.kind << 16 | item.len;

	if (item.len)
		memcpy(slot->data, data, item.len);
	atomic_store_explicit(&slot->desc, desc, memory_order_relaxed);
	atomic_store(&slot->seq, tx->tail);
}

bool pst_shm_tx_rouse(struct shm_tx *tx)
{
	/* Read first: the flag is mostly clear, and a read leaves its line shared. */
	return atomic_load(&tx->ring->sleeping) && atomic_exchange(&tx->ring->sleeping, 0);
}

int pst_shm_tx_want(struct shm_tx *tx)
{
	int room;

	atomic_store(&tx->ring->wake_at, tx->tail - SHM_RING_SLOTS + SHM_RING_SLOTS / 4);
	room = tx_refresh(tx);
	if (room)
		atomic_store_explicit(&tx->ring->wake_at, 0, memory_order_relaxed);
	return room;
}

int pst_shm_rx_get(struct shm_rx *rx, struct shm_item *item, void *buf)
{
	struct shm_slot *slot = slot_at(rx->ring, rx->head);
	uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
	uint64_t old = rx->head < SHM_RING_SLOTS ? 0 : rx->head + 1 - SHM_RING_SLOTS;
	uint64_t desc;

	if (seq != rx->head + 1)
		return seq == old ? 0 : -EPROTO;
	/* One read: the producer may change it while we look. */
	desc = atomic_load_explicit(&slot->desc, memory_order_relaxed);
	*item = (struct shm_item){
		.kind = desc >> 16 & 0xffff, .len = desc & 0xffff, .imm = desc >> 32};
	if (item->kind == SHM_MESSAGE ? item->len > PST_MSG_MAX
				      : item->kind != SHM_IMM || item->len)
		return -EPROTO;
	memcpy(buf, slot->data, item->len);
	rx->head++;
	return 1;
}

bool pst_shm_rx_release(struct shm_rx *rx)
{
	uint64_t at;

	if (rx->released == rx->head)
		return false;
	rx->released = rx->head;
	atomic_store(&rx->ring->head, rx->head);
	at = atomic_load(&rx->ring->wake_at);
	return at && rx->head >= at && atomic_exchange(&rx->ring->wake_at, 0);
}

bool pst_shm_rx_arm(struct shm_rx *rx)
{
	struct shm_slot *slot = slot_at(rx->ring, rx->head);
	uint64_t old = rx->head < SHM_RING_SLOTS ? 0 : rx->head + 1 - SHM_RING_SLOTS;

	atomic_store(&rx->ring->sleeping, 1);
	return atomic_load(&slot->seq) == old;
}

void pst_shm_rx_disarm(struct shm_rx *rx)
{
	atomic_store_explicit(&rx->ring->sleeping, 0, memory_order_relaxed);
}
