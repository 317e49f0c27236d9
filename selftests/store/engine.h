/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - an engine that speaks to one server word by word, so that it can say wrong ones. */
#ifndef PST_SELFTEST_ENGINE_H
#define PST_SELFTEST_ENGINE_H

#include "runtime/store/rpc.h"
#include "runtime/store/view.h"
#include "selftests/store/store.h"

struct engine {
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	struct pst_view *view;
	struct pst_link *link;
	struct pst_rpc_call call;
	struct pst_msg_answer answer;
	struct pst_msg_slot_opened slot;
	struct pst_slot_head head;
	char *base; /* of the slot */
	struct pst_error err;
};

static inline void engine_connect(struct engine *e, const char *url)
{
	*e = (struct engine){0};
	ASSERT_OK(pst_fabric_open("shm://", &e->fabric, &e->err), &e->err);
	ASSERT_OK(pst_cq_create(e->fabric, &e->cq, &e->err), &e->err);
	ASSERT_OK(pst_view_connect(e->cq, url, STORE_TIMEOUT_MS, &e->view, &e->err), &e->err);
	e->link = pst_view_link(e->view);
}

static inline void engine_close(struct engine *e)
{
	pst_view_close(e->view);
	pst_cq_destroy(e->cq);
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
	return pst_rpc(e->cq, e->link, hdr, answer, len, STORE_TIMEOUT_MS, &e->err);
}

#define ENGINE_ASK(e, msg, type, answer) \
	engine_ask(e, msg, sizeof(*(msg)), type, answer, sizeof(*(answer)))

static inline int engine_stat(struct engine *e)
{
	struct pst_msg m = {0};
	struct pst_msg_stated stated;

	return ENGINE_ASK(e, &m, PST_MSG_STAT, &stated);
}

static inline void engine_map_slot(struct engine *e)
{
	struct pst_key key;
	uint64_t len;
	void *addr;

	memcpy(&key, &e->slot.key, sizeof(key));
	ASSERT_EQ(0, pst_link_map(e->link, key, PST_ACCESS_WRITE, &addr, &len));
	e->base = addr;
	memcpy(&e->head, addr, sizeof(e->head));
}

static inline void engine_open_slot(struct engine *e)
{
	struct pst_msg m = {0};

	ASSERT_OK(ENGINE_ASK(e, &m, PST_MSG_SLOT_OPEN, &e->slot), &e->err);
	engine_map_slot(e);
	ASSERT_OK(pst_view_open(e->view, &e->err), &e->err);
}

static inline float *engine_gradient(struct engine *e, size_t i)
{
	return (float *)(e->base + e->head.gradients + pst_view_tensor(e->view, i)->offset);
}

static inline const double *engine_norms(const struct engine *e)
{
	return (const double *)(e->base + e->head.norms);
}

/* Put gradients of @salt for the tensors of @mask into the slot; nothing is announced. */
static inline void engine_put(struct engine *e, const uint8_t *mask, uint64_t version,
			      uint64_t salt)
{
	for (size_t i = 0; i < pst_view_count(e->view); i++)
		if (mask[i])
			make_gradient(pst_view_tensor(e->view, i), version, salt,
				      engine_gradient(e, i));
	memcpy(e->base + e->head.mask, mask, pst_view_count(e->view));
}

static inline void engine_announce(struct engine *e, size_t i, uint64_t version)
{
	ASSERT_EQ(0, pst_rpc_announce(e->cq, e->link, PST_IMM(e->slot.slot, version, i)));
}

static inline void engine_announce_all(struct engine *e, const uint8_t *mask, uint64_t version)
{
	for (size_t i = 0; i < pst_view_count(e->view); i++)
		if (mask[i])
			engine_announce(e, i, version);
}

/* Send a commit; its answer is waited for by engine_committed(). */
static inline void engine_commit(struct engine *e, uint64_t version)
{
	struct pst_msg_commit m = {.hdr = {.size = sizeof(m), .type = PST_MSG_COMMIT},
				   .version = version};

	memset(&e->err, 0, sizeof(e->err));
	ASSERT_OK(pst_rpc_send(&e->call, e->link, &m.hdr, &e->answer, sizeof(e->answer), &e->err),
		  &e->err);
}

static inline int engine_committed(struct engine *e)
{
	return pst_rpc_wait(e->cq, &e->call, 1, STORE_TIMEOUT_MS, &e->err);
}

/*
 * Whether the commit is still unanswered. What the server was told before this
 * stat over the same link it has looked at when the stat is answered.
 */
static inline bool engine_waits(struct engine *e)
{
	struct pst_rpc_call calls[2] = {e->call};
	struct pst_msg_stated stated;
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_STAT};

	ASSERT_OK(pst_rpc_send(&calls[1], e->link, &m, &stated, sizeof(stated), &e->err), &e->err);
	while (calls[1].status == -EINPROGRESS)
		pst_rpc_wait(e->cq, calls, 2, 5, NULL);
	e->call = calls[0];
	return e->call.status == -EINPROGRESS;
}

static inline int engine_apply(struct engine *e, uint64_t version)
{
	struct pst_msg_apply m = some_apply(version);

	return ENGINE_ASK(e, &m, PST_MSG_APPLY, &e->answer);
}

#endif /* PST_SELFTEST_ENGINE_H */
