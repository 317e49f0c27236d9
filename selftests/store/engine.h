/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - an engine that speaks to one server word by word, so that it can say wrong ones. */
#ifndef PST_SELFTEST_ENGINE_H
#define PST_SELFTEST_ENGINE_H

#include "runtime/store/region.h"
#include "runtime/store/rpc.h"
#include "runtime/store/view.h"
#include "selftests/store/store.h"

struct engine {
	struct pst_fabric *fabric;
	struct pst_inbox *inbox;
	struct pst_view *view;
	struct pst_link *link;
	struct pst_rpc_call call;
	struct pst_msg_answer answer;
	struct pst_msg_slot_opened slot;
	struct pst_slot_head head;
	struct pst_key key; /* of the slot */
	char *base;	    /* of the slot, or of its mirror */
	struct pst_error err;
	/* far: the slot's mirror, and copies of what the server publishes */
	uint64_t bytes;
	struct pst_pool *mirror;
	struct pst_region *mirror_region;
	struct pst_copies *copies;
};

static inline void engine_connect(struct engine *e, const char *url)
{
	*e = (struct engine){0};
	e->fabric = open_fabric();
	ASSERT_OK(pst_inbox_create(e->fabric, 0, &e->inbox, &e->err), &e->err);
	ASSERT_OK(pst_view_connect(e->inbox, url, STORE_TIMEOUT_MS, &e->view, &e->err), &e->err);
	e->link = pst_view_link(e->view);
}

static inline void engine_close(struct engine *e)
{
	pst_view_close(e->view);
	pst_inbox_destroy(e->inbox);
	pst_copies_destroy(e->copies);
	if (e->mirror_region)
		pst_region_release(e->mirror_region);
	pst_pool_destroy(e->mirror);
	pst_fabric_close(e->fabric);
}

/* Ask and wait; the answer's code, its sentence in e->err. */
static inline int engine_ask(struct engine *e, void *msg, size_t size, uint16_t type, void *answer,
			     size_t len)
{
	struct pst_msg *hdr = msg;

	memset(&e->err, 0, sizeof(e->err));
	hdr->size = (uint32_t)size;
	hdr->type = type;
	return pst_rpc(e->inbox, e->link, hdr, answer, len, STORE_TIMEOUT_MS, &e->err);
}

#define ENGINE_ASK(e, msg, type, answer) \
	engine_ask(e, msg, sizeof(*(msg)), type, answer, sizeof(*(answer)))

static inline int engine_stat(struct engine *e)
{
	struct pst_msg m = {0};
	struct pst_msg_stated stated;

	return ENGINE_ASK(e, &m, PST_MSG_STAT, &stated);
}

/* Far: move a part of the slot between it and its mirror; the status. In place: nothing to do. */
static inline int engine_try_move(struct engine *e, uint16_t op, uint64_t offset, uint64_t len)
{
	struct pst_wr wr = {
		.op = op,
		.local = e->mirror_region,
		.local_addr = e->base + offset,
		.key = e->key,
		.remote_off = offset,
		.len = len,
	};
	struct pst_batch b;

	if (!e->mirror)
		return 0;
	pst_batch_begin(e->inbox, &b);
	pst_batch_post(e->inbox, &b, e->link, &wr, 1);
	return pst_batch_wait(e->inbox, &b, &e->err);
}

static inline void engine_move(struct engine *e, uint16_t op, uint64_t offset, uint64_t len)
{
	ASSERT_OK(engine_try_move(e, op, offset, len), &e->err);
}

/* What the server has, and the server is to have what is here. */
static inline void engine_fetch(struct engine *e)
{
	engine_move(e, PST_WR_READ, 0, e->bytes);
}

static inline void engine_flush(struct engine *e)
{
	engine_move(e, PST_WR_WRITE, sizeof(e->head), e->bytes - sizeof(e->head));
}

static inline void engine_make_mirror(struct engine *e)
{
	struct pst_pool_options po = {.size = sizeof(po), .name = "mirror", .node = -1};

	ASSERT_OK(pst_view_peek(e->view, e->key, 0, &e->head, sizeof(e->head), &e->err), &e->err);
	for (size_t i = 0; i < pst_view_count(e->view); i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(e->view, i);

		if (e->head.gradients + t->offset + t->bytes > e->bytes)
			e->bytes = e->head.gradients + t->offset + t->bytes;
	}
	po.bytes = e->bytes;
	ASSERT_OK(pst_pool_create(&po, &e->mirror, &e->err), &e->err);
	ASSERT_OK(
		pst_pool_region(e->fabric, e->mirror, PST_ACCESS_READ, &e->mirror_region, &e->err),
		&e->err);
	e->base = pst_pool_base(e->mirror);
	engine_fetch(e);
}

/* The view is open. */
static inline void engine_map_slot(struct engine *e)
{
	uint64_t len;
	void *addr;

	memcpy(&e->key, &e->slot.key, sizeof(e->key));
	if (is_far()) {
		engine_make_mirror(e);
		return;
	}
	ASSERT_EQ(0, pst_link_map(e->link, e->key, PST_ACCESS_WRITE, &addr, &len));
	e->base = addr;
	memcpy(&e->head, addr, sizeof(e->head));
}

static inline void engine_open_slot(struct engine *e)
{
	struct pst_msg m = {0};

	ASSERT_OK(pst_view_open(e->view, &e->err), &e->err);
	ASSERT_OK(ENGINE_ASK(e, &m, PST_MSG_SLOT_OPEN, &e->slot), &e->err);
	engine_map_slot(e);
}

static inline int engine_try_join(struct engine *e, uint64_t token)
{
	struct pst_msg_slot_attach m = {.token = token};

	return ENGINE_ASK(e, &m, PST_MSG_SLOT_ATTACH, &e->slot);
}

static inline void engine_join(struct engine *e, uint64_t token)
{
	ASSERT_OK(pst_view_open(e->view, &e->err), &e->err);
	ASSERT_OK(engine_try_join(e, token), &e->err);
	engine_map_slot(e);
}

/* A tensor as of @version, in place or pulled. */
static inline const float *engine_weight(struct engine *e, uint32_t i, uint64_t version)
{
	struct pst_copies_options o = {
		.size = sizeof(o), .fabric = e->fabric, .bytes = 16 << 20, .node = -1};

	if (!pst_view_mapped(e->view) && !e->copies) {
		ASSERT_OK(pst_copies_create(&o, &e->copies, &e->err), &e->err);
		pst_view_keep(e->view, e->copies);
	}
	ASSERT_OK(pst_view_need(e->view, &i, 1, version, &e->err), &e->err);
	return pst_view_weight(e->view, i, version);
}

static inline float *engine_gradient(struct engine *e, size_t i)
{
	return (float *)(e->base + e->head.gradients + pst_view_tensor(e->view, i)->offset);
}

static inline const double *engine_norms(const struct engine *e)
{
	return (const double *)(e->base + e->head.norms);
}

/* Put gradients of @salt for the tensors of @mask into the slot, and that; nothing is announced. */
static inline void engine_put(struct engine *e, const uint8_t *mask, uint64_t version,
			      uint64_t salt)
{
	for (size_t i = 0; i < pst_view_count(e->view); i++)
		if (mask[i])
			make_gradient(pst_view_tensor(e->view, i), version, salt,
				      engine_gradient(e, i));
	memcpy(e->base + e->head.mask, mask, pst_view_count(e->view));
	engine_flush(e);
}

static inline void engine_announce(struct engine *e, size_t i, uint64_t version)
{
	ASSERT_EQ(0, pst_rpc_announce(e->inbox, e->link, PST_IMM(e->slot.slot, version, i)));
}

static inline void engine_announce_all(struct engine *e, const uint8_t *mask, uint64_t version)
{
	for (size_t i = 0; i < pst_view_count(e->view); i++)
		if (mask[i])
			engine_announce(e, i, version);
}

/* Say that tensor @i (or the mask) was pushed, with @crc; the answer's code. */
static inline int engine_tell(struct engine *e, uint32_t slot, uint32_t i, uint32_t crc,
			      uint64_t version, bool *bad)
{
	union {
		struct pst_msg_pushed m;
		char bytes[sizeof(struct pst_msg_pushed) + sizeof(struct pst_wire_pushed)];
	} ask = {.m = {.version = version, .slot = slot, .count = 1}};
	struct pst_msg_pushed_answer answer;
	int rc;

	ask.m.item[0] = (struct pst_wire_pushed){i, crc};
	rc = ENGINE_ASK(e, &ask, PST_MSG_PUSHED, &answer);
	*bad = !rc && answer.bad[0] & 1;
	return rc;
}

/* Send a commit; its answer is waited for by engine_committed(). */
static inline void engine_commit(struct engine *e, uint64_t version)
{
	struct pst_msg_commit m = {.hdr = {.size = sizeof(m), .type = PST_MSG_COMMIT},
				   .version = version};

	memset(&e->err, 0, sizeof(e->err));
	ASSERT_OK(pst_rpc_send(e->inbox, &e->call, e->link, &m.hdr, &e->answer, sizeof(e->answer),
			       &e->err),
		  &e->err);
}

static inline int engine_committed(struct engine *e)
{
	return pst_rpc_wait(e->inbox, &e->call, 1, STORE_TIMEOUT_MS, &e->err);
}

/*
 * Whether the commit is still unanswered. What the server was told before this
 * stat over the same link it has looked at when the stat is answered.
 */
static inline bool engine_waits(struct engine *e)
{
	EXPECT_EQ(0, engine_stat(e));
	return e->call.status == -EINPROGRESS;
}

static inline int engine_apply(struct engine *e, uint64_t version)
{
	struct pst_msg_apply m = some_apply(version);

	return ENGINE_ASK(e, &m, PST_MSG_APPLY, &e->answer);
}

#endif /* PST_SELFTEST_ENGINE_H */
