/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib.h - libibverbs and librdmacm, loaded when the first verbs fabric is opened, so that one
 * build runs with and without them.
 *
 * pst_ibv.create_cq() is ibv_create_cq(), pst_cm.connect() is rdma_connect(). What the headers
 * define inline (post, poll, windows) needs no entry.
 */
#ifndef PST_VERBS_LIB_H
#define PST_VERBS_LIB_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#define PST_IBV_CALLS(X)        \
	X(ack_async_event)      \
	X(ack_cq_events)        \
	X(alloc_pd)             \
	X(close_device)         \
	X(create_comp_channel)  \
	X(create_cq)            \
	X(create_qp)            \
	X(dealloc_pd)           \
	X(dereg_mr)             \
	X(destroy_comp_channel) \
	X(destroy_cq)           \
	X(destroy_qp)           \
	X(free_device_list)     \
	X(get_async_event)      \
	X(get_cq_event)         \
	X(get_device_list)      \
	X(get_device_name)      \
	X(modify_qp)            \
	X(open_device)          \
	X(query_device)         \
	X(query_gid)            \
	X(query_port)           \
	X(reg_dmabuf_mr)        \
	X(reg_mr_iova2)         \
	X(resize_cq)            \
	X(wc_status_str)

#define PST_CM_CALLS(X)          \
	X(accept)                \
	X(ack_cm_event)          \
	X(bind_addr)             \
	X(connect)               \
	X(create_event_channel)  \
	X(create_id)             \
	X(destroy_event_channel) \
	X(destroy_id)            \
	X(disconnect)            \
	X(establish)             \
	X(get_cm_event)          \
	X(get_src_port)          \
	X(init_qp_attr)          \
	X(listen)                \
	X(reject)                \
	X(resolve_addr)          \
	X(resolve_route)

struct pst_ibv_calls {
#define X(name) __typeof__(&ibv_##name) name;
	PST_IBV_CALLS(X)
#undef X
};

struct pst_cm_calls {
#define X(name) __typeof__(&rdma_##name) name;
	PST_CM_CALLS(X)
#undef X
};

extern struct pst_ibv_calls pst_ibv;
extern struct pst_cm_calls pst_cm;

/* Load them, once. NULL, or what is missing, as the loader says it. Any thread. */
const char *pst_verbs_load(void);

#endif /* PST_VERBS_LIB_H */
