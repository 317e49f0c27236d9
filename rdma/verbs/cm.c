/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting a rail, without ever blocking: librdmacm finds the device, the GID, the MTU and the
 * way, then both sides prove that they have the key, by SENDs on the new queue pair.
 */
#include "rdma/fail.h"
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#define REJ_NO_SUCH 8 /* IB specification, volume 1, table 108: invalid service ID */
#define RESOLVE_MS  1000
#define READS_MAX   128

int pst_verbs_resolve(const char *host, uint16_t port, struct sockaddr_storage *out,
		      struct pst_error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list;
	char service[8];
	int rc;

	snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc)
		return pst_fail(err, -EHOSTUNREACH, "verbs: no address for host \"%s\": %s", host,
				gai_strerror(rc));
	memcpy(out, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return 0;
}

void pst_verbs_settle(struct verbs_rail *rail, int result)
{
	if (rail->settled)
		return;
	rail->settled = true;
	rail->result = result;
	rail->deadline = result && rail->state == RAIL_SETUP ? 0 : rail->deadline;
	rail->cq->tick_at = 0;
	if (result == -ETIMEDOUT)
		pst_fail(&rail->err, result, "the other side did not answer in time");
}

static void fail_settle(struct verbs_rail *rail, int rc, const char *what)
{
	pst_fail(&rail->err, rc, "%s", what);
	pst_verbs_settle(rail, rc);
}

void pst_verbs_handshake_say(struct verbs_rail *rail)
{
	const void *msg;
	size_t len;

	while ((len = pst_handshake_next(&rail->hs, &msg))) {
		void *buf = pst_verbs_rail_ctrl(rail);

		if (!buf) {
			pst_verbs_rail_fail(rail, PST_CAUSE_PEER_BROKE, "handshake");
			return;
		}
		memcpy(buf, msg, len);
		pst_verbs_rail_send_ctrl(rail, buf, (uint32_t)len);
	}
}

/* The server is satisfied: a link, a further way, or a refusal after all. */
static void admit(struct verbs_rail *rail)
{
	const char *why = "";
	int rc = pst_verbs_admit(rail, &why);

	if (rc)
		pst_handshake_refuse(&rail->hs, rc, why);
	pst_verbs_handshake_say(rail);
	if (rc)
		pst_count(&rail->cq->base.fab->count.links_refused, 1);
	else
		pst_verbs_settle(rail, 0);
}

void pst_verbs_handshake(struct verbs_rail *rail, const void *msg, size_t len)
{
	int rc;

	if (rail->settled)
		return;
	rc = pst_handshake_take(&rail->hs, msg, len, &rail->err);
	if (rc < 0)
		pst_handshake_refuse(&rail->hs, rc, NULL); /* of a server */
	if (rc == 1 && rail->client)
		pst_verbs_settle(rail, 0);
	else if (rc == 1)
		admit(rail);
	else
		pst_verbs_handshake_say(rail);
	if (rc >= 0)
		return;
	if (rail->client)
		pst_verbs_settle(rail, rc);
	else
		pst_count(&rail->cq->base.fab->count.links_refused, 1);
	/* The server's rail stays until the refusal is there: the client ends it, or the deadline.
	 */
}

static void addr_resolved(struct verbs_rail *rail)
{
	const struct verbs_dev *dev = pst_verbs_dev(rail->cq->base.fab, rail->id->verbs->device);

	if (!dev) {
		pst_fail_cause(&rail->err, PST_CAUSE_WAY_DEV,
			       pst_ibv.get_device_name(rail->id->verbs->device), "%s", rail->name);
		pst_verbs_settle(rail, -ENODEV);
	} else if (!pst_verbs_port_is_active(dev->ctx, rail->id->port_num)) {
		pst_fail_cause(&rail->err, PST_CAUSE_PORT_DOWN, NULL, "%s (%s)", rail->name,
			       dev->name);
		pst_verbs_settle(rail, -ENETDOWN);
	} else if (pst_cm.resolve_route(rail->id, RESOLVE_MS)) {
		fail_settle(rail, -errno, strerror(errno));
	}
}

static void established(struct verbs_rail *rail)
{
	int rc;

	rail->connected = true;
	rc = pst_handshake_begin(&rail->hs, PST_HANDSHAKE_CLIENT,
				 verbs_fabric(rail->cq->base.fab)->secret, &rail->hello);
	if (rc)
		fail_settle(rail, rc, "no random numbers");
	else
		pst_verbs_handshake_say(rail);
}

/* Reads that this device takes (in) or asks (out) at once; @most: as the other side has it. */
static uint8_t reads(int mine, uint8_t most)
{
	return mine < most ? (uint8_t)mine : most;
}

static void route_resolved(struct verbs_rail *rail)
{
	struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 7};
	int rc = pst_verbs_rail_open(rail);

	if (rc) {
		rc = pst_fail_cause(&rail->err, pst_verbs_errno_cause(-rc), strerror(-rc), "%s",
				    rail->name);
		pst_verbs_settle(rail, rc);
		return;
	}
	param.responder_resources = reads(rail->dev->attr.max_qp_rd_atom, READS_MAX);
	param.initiator_depth = reads(rail->dev->attr.max_qp_init_rd_atom, READS_MAX);
	param.qp_num = rail->qp->qp_num;
	if (pst_cm.connect(rail->id, &param))
		fail_settle(rail, -errno, strerror(errno));
}

/* The other side took the connection: make the queue pair ready, and say so. */
static void responded(struct verbs_rail *rail, const struct rdma_conn_param *param)
{
	uint8_t in = reads(rail->dev->attr.max_qp_rd_atom, param->initiator_depth);
	uint8_t out = reads(rail->dev->attr.max_qp_init_rd_atom, param->responder_resources);
	int rc = pst_verbs_rail_move(rail, IBV_QPS_RTR, in, out);

	if (!rc)
		rc = pst_verbs_rail_move(rail, IBV_QPS_RTS, in, out);
	if (!rc && pst_cm.establish(rail->id))
		rc = -errno;
	if (rc)
		fail_settle(rail, rc, strerror(-rc));
	else
		established(rail);
}

int pst_verbs_rail_accept(struct verbs_rail *rail, const struct rdma_conn_param *asked)
{
	struct rdma_conn_param param = {
		.responder_resources =
			reads(rail->dev->attr.max_qp_rd_atom, asked->initiator_depth),
		.initiator_depth =
			reads(rail->dev->attr.max_qp_init_rd_atom, asked->responder_resources),
		.rnr_retry_count = 7,
		.qp_num = rail->qp->qp_num,
	};
	uint8_t in = param.responder_resources, out = param.initiator_depth;
	int rc = pst_verbs_rail_move(rail, IBV_QPS_RTR, in, out);

	if (!rc)
		rc = pst_verbs_rail_move(rail, IBV_QPS_RTS, in, out);
	if (!rc && pst_cm.accept(rail->id, &param))
		rc = -errno;
	return rc;
}

static void rejected(struct verbs_rail *rail, int status)
{
	if (status == REJ_NO_SUCH)
		fail_settle(rail, -ECONNREFUSED, "nobody listens there; start the server");
	else
		fail_settle(rail, -EAGAIN, "the server takes no more connections at the moment");
}

static void disconnected(struct verbs_rail *rail)
{
	bool ended = rail->state >= RAIL_DYING; /* then it answers our own goodbye */

	/* What its queue pair said before is the better reason. */
	pst_verbs_progress(rail->cq);
	if (rail->state == RAIL_SETUP && !rail->settled)
		fail_settle(rail, -ECONNRESET, "the other side hung up");
	/* A peer that is gone does not answer: that it went is the better reason. */
	if (rail->cause == PST_CAUSE_RETRY_EXC || (rail->cause == PST_CAUSE_FLUSHED && !ended))
		rail->cause = PST_CAUSE_PEER_CLOSED;
	pst_verbs_rail_fail(rail, PST_CAUSE_PEER_CLOSED, NULL);
}

static void rail_event(struct verbs_rail *rail, enum rdma_cm_event_type type, int status,
		       const struct rdma_conn_param *param)
{
	if (rail->settled && rail->result)
		return;
	switch (type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		addr_resolved(rail);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		route_resolved(rail);
		break;
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
		responded(rail, param);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		rail->connected = true;
		break;
	case RDMA_CM_EVENT_REJECTED:
		rejected(rail, status);
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		disconnected(rail);
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		pst_verbs_rail_fail(rail, PST_CAUSE_DEVICE_GONE, NULL);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		fail_settle(rail, status < 0 && status != -EINVAL ? status : -EHOSTUNREACH,
			    "no RDMA device of this host has a way there; ip route get ADDRESS and "
			    "rdma link show what there is");
		break;
	default:
		break;
	}
}

void pst_verbs_cm_ready(struct verbs_source *src)
{
	struct verbs_cq *cq = pst_container(src, struct verbs_cq, cm_src);
	struct rdma_cm_event *event;

	while (!pst_cm.get_cm_event(cq->cm, &event)) {
		enum rdma_cm_event_type type = event->event;
		struct rdma_conn_param param = event->param.conn;
		struct rdma_cm_id *id = event->id;
		void *listener = event->listen_id ? event->listen_id->context : NULL;
		int status = event->status;

		pst_cm.ack_cm_event(event);
		if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
			pst_verbs_request(listener, id, &param);
		else if (id->context && !listener)
			rail_event(id->context, type, status, &param);
	}
}

/* Its zone says by which device. */
static bool is_link_local(const struct sockaddr_storage *to)
{
	return to->ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)to)->sin6_addr);
}

int pst_verbs_rail_connect(struct verbs_rail *rail, const char *host, uint16_t port,
			   int64_t deadline)
{
	struct verbs_fabric *vf = verbs_fabric(rail->cq->base.fab);
	struct sockaddr_storage to, from;
	int rc = pst_verbs_resolve(host, port, &to, &rail->err);
	bool bound;

	if (rc)
		return rc;
	rail->client = true;
	rail->deadline = deadline;
	snprintf(rail->name, sizeof(rail->name), "rail %u", rail->way);
	if (pst_cm.create_id(rail->cq->cm, &rail->id, rail, RDMA_PS_TCP))
		return pst_fail(&rail->err, -errno, "rdma_cm: %s", strerror(errno));
	bound = vf->named &&
		pst_verbs_dev_address(&vf->dev[rail->way % vf->ndevs], to.ss_family, &from) &&
		!is_link_local(&to);
	if (vf->named && !bound && !is_link_local(&to))
		return pst_fail_cause(&rail->err, PST_CAUSE_PORT_DOWN, NULL, "%s",
				      vf->dev[rail->way % vf->ndevs].name);
	if (pst_cm.resolve_addr(rail->id, bound ? (struct sockaddr *)&from : NULL,
				(struct sockaddr *)&to, RESOLVE_MS))
		return pst_fail(&rail->err, -errno, "no RDMA device has a way to %s: %s", host,
				strerror(errno));
	return 0;
}
