/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - a ring of messages in shared memory: one producer, one consumer,
 * who may be hostile to each other.
 *
 * A slot is full when its @seq is its index + 1, counted from the ring's birth,
 * and empty when it still has the value of the lap before; so the message and
 * the word that says it is there travel in one cache line, and the consumer
 * never looks at a shared tail. The consumer gives slots back by @head.
 * Positions are kept in private memory (struct shm_tx, struct shm_rx); what is
 * read from the ring is checked against them, and copied before it is used.
 *
 * Sleeping: two flags, one in each direction, both of the form "I set my flag,
 * then look at your word; you write your word, then look at my flag":
 *
 *	consumer that would sleep	producer
 *	A1 sleeping = 1			B1 slot.seq = index + 1
 *	A2 read slot.seq		B2 read sleeping
 *
 * All four are seq_cst, so they stand in one order that agrees with the order
 * within each thread. If B2 reads 0, B2 comes before A1 there, hence B1 before
 * A2, and A2 sees the message: the consumer does not sleep. If B2 reads 1, the
 * producer sends a doorbell, which stays readable on the socket until it is
 * read: the consumer's epoll_wait returns, however late it was begun. So there
 * is no order in which a message is there and the consumer sleeps for good. The
 * same with (wake_at, head) for a producer that waits for room: @wake_at is not
 * 1 but the head at which waking it pays, and as the consumer takes all there
 * is before it sleeps, it gets there.
 */
#ifndef PST_SHM_RING_H
#define PST_SHM_RING_H

#include "rdma/fabric.h"

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>

#define SHM_RING_SLOTS 128 /* a power of two */

enum shm_kind {
	SHM_MESSAGE = 1,
	SHM_IMM = 2,
};

/* 65 cache lines, an odd number, so that the slots' heads spread over all cache sets. */
struct shm_slot {
	_Atomic uint64_t seq;
	_Atomic uint64_t desc; /* imm << 32 | kind << 16 | len */
	unsigned char data[PST_MSG_MAX];
	unsigned char pad[112];
};

struct shm_ring {
	alignas(128) _Atomic uint64_t head;	/* consumer writes: slots before it are free */
	alignas(128) _Atomic uint32_t sleeping; /* consumer sets, producer clears */
	alignas(128) _Atomic uint64_t wake_at;	/* producer sets, consumer clears */
	alignas(128) struct shm_slot slot[SHM_RING_SLOTS];
};

/* What the memfd of a link holds: [0] from the connector, [1] to it. */
struct shm_area {
	struct shm_ring ring[2];
};

static_assert(sizeof(struct shm_slot) == 4160, "layout of the link");
static_assert(offsetof(struct shm_slot, data) == 16, "layout of the link");
static_assert(offsetof(struct shm_ring, sleeping) == 128, "layout of the link");
static_assert(offsetof(struct shm_ring, wake_at) == 256, "layout of the link");
static_assert(offsetof(struct shm_ring, slot) == 384, "layout of the link");
static_assert(sizeof(struct shm_area) == 2 * (384 + 128 * 4160), "layout of the link");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "atomics must work between processes");

struct shm_tx {
	struct shm_ring *ring;
	uint64_t tail; /* next to write */
	uint64_t head; /* the consumer's, as last seen */
};

struct shm_rx {
	struct shm_ring *ring;
	uint64_t head;	   /* next to read */
	uint64_t released; /* the head that the producer knows */
};

struct shm_item {
	uint16_t kind;
	uint16_t len;
	uint32_t imm;
};

/* Free slots, or -EPROTO when the consumer's head is impossible. */
int pst_shm_tx_room(struct shm_tx *tx);

/* There is room: put one item in and make it visible. */
void pst_shm_tx_put(struct shm_tx *tx, struct shm_item item, const void *data);

/* After puts: does the consumer sleep, so that it needs a doorbell? */
bool pst_shm_tx_rouse(struct shm_tx *tx);

/* The ring is full: ask for a doorbell when a quarter of it is free. As tx_room. */
int pst_shm_tx_want(struct shm_tx *tx);

/* Take one item, its data to @buf (PST_MSG_MAX bytes). 1, 0 if empty, -EPROTO. */
int pst_shm_rx_get(struct shm_rx *rx, struct shm_item *item, void *buf);

/* A look that costs little: true if there is nothing to take, and nothing to give back. */
static inline bool pst_shm_rx_idle(const struct shm_rx *rx)
{
	const struct shm_slot *slot = &rx->ring->slot[rx->head % SHM_RING_SLOTS];
	uint64_t old = rx->head < SHM_RING_SLOTS ? 0 : rx->head + 1 - SHM_RING_SLOTS;

	return rx->released == rx->head &&
	       atomic_load_explicit(&slot->seq, memory_order_acquire) == old;
}

/* Items that were taken and not given back. */
static inline unsigned int pst_shm_rx_taken(const struct shm_rx *rx)
{
	return (unsigned int)(rx->head - rx->released);
}

/* Give back what was taken. Does the producer wait, so that it needs a doorbell? */
bool pst_shm_rx_release(struct shm_rx *rx);

/* About to sleep: true if there is nothing to take. To be undone by rx_disarm. */
bool pst_shm_rx_arm(struct shm_rx *rx);
void pst_shm_rx_disarm(struct shm_rx *rx);

#endif /* PST_SHM_RING_H */
