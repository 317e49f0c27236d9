/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listener's side: connections wait beside everything else until they have proved themselves,
 * so nobody who connects and says nothing holds up the others; there are so many at the most, and
 * the oldest goes when one more comes.
 */
#include "rdma/fail.h"
#include "rdma/verbs/verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define BACKLOG 128

static void drop_setup(struct verbs_rail *rail)
{
	struct verbs_listener *l = rail->listener;

	TAILQ_REMOVE(&l->setups, rail, on_listener);
	rail->listener = NULL;
}

static int accept_rail(struct verbs_rail *rail, const struct rdma_conn_param *asked)
{
	int rc = pst_verbs_rail_open(rail);

	if (!rc)
		rc = pst_handshake_begin(&rail->hs, PST_HANDSHAKE_SERVER,
					 verbs_fabric(rail->cq->base.fab)->secret, NULL);
	return rc ? rc : pst_verbs_rail_accept(rail, asked);
}

/* How many may wait: half of what the device's completion queue takes is for links. */
static int most_setups(const struct verbs_cq *cq, const struct rdma_cm_id *id)
{
	const struct verbs_dev *dev = pst_verbs_dev(cq->base.fab, id->verbs->device);
	int fit = dev ? dev->attr.max_cqe / (2 * (VERBS_RECVS + VERBS_SQ)) : 1;

	return fit < 1 ? 1 : fit < VERBS_SETUPS ? fit : VERBS_SETUPS;
}

/* One more comes: the oldest go, if there are too many. */
static void make_room(struct verbs_listener *l, int most)
{
	struct verbs_rail *rail;
	int waiting = 0;

	TAILQ_FOREACH(rail, &l->setups, on_listener)
	{
		waiting += !rail->settled;
	}
	TAILQ_FOREACH(rail, &l->setups, on_listener)
	{
		if (waiting < most)
			break;
		waiting -= !rail->settled;
		pst_verbs_settle(rail, -ETIMEDOUT);
	}
}

void pst_verbs_request(struct verbs_listener *l, struct rdma_cm_id *id,
		       const struct rdma_conn_param *param)
{
	struct verbs_cq *cq = verbs_cq(l->base.cq);
	struct verbs_rail *rail = pst_verbs_rail_new(cq);

	if (!rail) {
		pst_cm.reject(id, NULL, 0);
		pst_cm.destroy_id(id);
		return;
	}
	rail->id = id;
	id->context = rail;
	rail->deadline = pst_verbs_now() + cq->base.fab->set.timeout_ms;
	cq->tick_at = 0;
	make_room(l, most_setups(cq, id));
	if (accept_rail(rail, param)) {
		pst_cm.reject(id, NULL, 0);
		pst_verbs_rail_free(rail);
		pst_count(&cq->base.fab->count.links_refused, 1);
		return;
	}
	rail->listener = l;
	TAILQ_INSERT_TAIL(&l->setups, rail, on_listener);
}

static void free_settled(struct verbs_listener *l)
{
	struct verbs_rail *rail, *next;

	for (rail = TAILQ_FIRST(&l->setups); rail; rail = next) {
		next = TAILQ_NEXT(rail, on_listener);
		if (!rail->settled || (rail->state == RAIL_DYING && rail->qp))
			continue;
		drop_setup(rail);
		pst_verbs_rail_free(rail);
	}
}

void pst_verbs_setups_tick(struct verbs_cq *cq)
{
	struct verbs_listener *l;

	TAILQ_FOREACH(l, &cq->listeners, on_cq)
	{
		free_settled(l);
	}
}

static struct verbs_link *find_link(struct verbs_cq *cq, uint64_t number)
{
	struct verbs_link *link;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (link->number == number && link->listener && link->state == LINK_LIVE)
			return link;
	}
	return NULL;
}

int pst_verbs_pid_here(const struct sockaddr *peer, uint32_t pid)
{
	struct sockaddr_storage to;
	socklen_t len = peer->sa_family == AF_INET ? sizeof(struct sockaddr_in)
						   : sizeof(struct sockaddr_in6);
	int sock, rc;

	memcpy(&to, peer, len);
	if (peer->sa_family == AF_INET)
		((struct sockaddr_in *)&to)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&to)->sin6_port = 0;
	sock = socket(peer->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return 0;
	rc = bind(sock, (struct sockaddr *)&to, len);
	close(sock);
	return rc ? 0 : (int)pid;
}

static void name_peer(struct verbs_link *link, const struct verbs_rail *rail)
{
	const struct sockaddr *sa = &rail->id->route.addr.dst_addr;
	char text[INET6_ADDRSTRLEN] = "?";

	if (sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)sa)->sin_addr, text, sizeof(text));
	else if (sa->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)sa)->sin6_addr, text,
			  sizeof(text));
	snprintf(link->base.peer, sizeof(link->base.peer), "verbs://%s pid %u", text,
		 rail->hs.hello.pid);
	link->base.pid = pst_verbs_pid_here(sa, rail->hs.hello.pid);
}

static int new_link(struct verbs_rail *rail, struct verbs_link **out, const char **why)
{
	struct verbs_listener *l = rail->listener;
	struct verbs_cq *cq = rail->cq;
	struct verbs_link *link;

	*why = "the server has as many links as links= allows";
	if (l->nlinks >= cq->base.fab->set.links)
		return -EUSERS;
	*why = "the server is out of memory";
	link = pst_verbs_link_new(cq, rail->hs.hello.ways);
	if (!link)
		return -ENOMEM;
	if (getrandom(&link->number, sizeof(link->number), 0) != sizeof(link->number)) {
		pst_verbs_link_close(&link->base);
		return -EIO;
	}
	link->number |= 1;
	link->listener = l;
	l->nlinks++;
	link->crc = cq->base.fab->set.crc || rail->hs.hello.crc;
	link->timeout_ms = cq->base.fab->set.timeout_ms;
	if (link->timeout_ms < rail->hs.hello.timeout_ms)
		link->timeout_ms = rail->hs.hello.timeout_ms;
	name_peer(link, rail);
	*out = link;
	return 0;
}

static void welcome(struct verbs_rail *rail, const struct verbs_link *link)
{
	struct pst_link_welcome *w = &rail->hs.welcome;

	w->link = link->number;
	w->recv = VERBS_RECVS;
	w->timeout_ms = link->timeout_ms;
	w->crc = link->crc;
	w->pid = (uint32_t)getpid();
}

int pst_verbs_admit(struct verbs_rail *rail, const char **why)
{
	const struct pst_link_hello *hello = &rail->hs.hello;
	struct verbs_link *link = NULL;
	bool fresh = !hello->link;
	int rc;

	rail->way = hello->way;
	*why = "that was a hello of another fabric";
	if (hello->fabric != 'v')
		return -EPROTO;
	*why = "there is no such link any more";
	if (!fresh)
		link = find_link(rail->cq, hello->link);
	if (!fresh && (!link || hello->ways != link->ways))
		return -ENOTCONN;
	if (fresh) {
		rc = new_link(rail, &link, why);
		if (rc)
			return rc;
	}
	*why = "the client has too few receive buffers, or the server is out of memory";
	rc = pst_verbs_link_window(link, hello->recv);
	if (!rc && link->way[rail->way])
		pst_verbs_rail_fail(link->way[rail->way], PST_CAUSE_PEER_CLOSED, NULL);
	if (!rc)
		rc = pst_verbs_link_join(link, rail);
	if (rc && fresh)
		pst_verbs_link_close(&link->base);
	if (rc)
		return rc;
	drop_setup(rail);
	welcome(rail, link);
	if (fresh) {
		link->announce = true;
		pst_verbs_ready(link);
	}
	return 0;
}

static int bind_host(struct verbs_listener *l, const char *host, uint16_t *port, const char *url,
		     struct pst_error *err)
{
	struct verbs_cq *cq = verbs_cq(l->base.cq);
	struct sockaddr_storage at;
	struct rdma_cm_id *id;
	int rc = pst_verbs_resolve(host, *port, &at, err);

	if (rc)
		return rc;
	if (pst_cm.create_id(cq->cm, &id, l, RDMA_PS_TCP))
		return pst_fail(err, -errno, "listen on %s: %s", url, strerror(errno));
	if (pst_cm.bind_addr(id, (struct sockaddr *)&at) || pst_cm.listen(id, BACKLOG)) {
		rc = -errno;
		pst_cm.destroy_id(id);
		return pst_fail(err, rc, "listen on %s: %s: %s%s", url, host, strerror(-rc),
				rc == -EADDRINUSE ? "; somebody else serves it"
				: rc == -ENODEV || rc == -EADDRNOTAVAIL
					? "; rdma link shows the devices, ip addr their addresses"
					: "");
	}
	*port = ntohs(pst_cm.get_src_port(id));
	if (id->verbs) {
		struct verbs_dev *dev = pst_verbs_dev(cq->base.fab, id->verbs->device);

		if (dev)
			dev->used = true;
	}
	l->id[l->nids++] = id;
	return 0;
}

static void free_listener(struct verbs_listener *l)
{
	while (l->nids)
		pst_cm.destroy_id(l->id[--l->nids]);
	free(l);
}

/* @url without settings, with the port that it has. */
static void name_listener(struct verbs_listener *l, const struct pst_url *url, uint16_t port)
{
	char *at = l->base.url, *end = at + sizeof(l->base.url);

	at += snprintf(at, (size_t)(end - at), "verbs://");
	for (unsigned int i = 0; i < url->hosts && at < end; i++)
		at += snprintf(at, (size_t)(end - at),
			       strchr(url->host[i], ':') ? "%s[%s]" : "%s%s", i ? "," : "",
			       url->host[i]);
	if (at < end)
		snprintf(at, (size_t)(end - at), ":%u", port);
}

int pst_verbs_listen(struct pst_cq *base, const char *text, struct pst_listener **out,
		     struct pst_error *err)
{
	struct verbs_cq *cq = verbs_cq(base);
	struct verbs_listener *l;
	struct pst_url url;
	uint16_t port;
	int rc = pst_url_parse(text, &url, err);

	if (rc)
		return rc;
	l = calloc(1, sizeof(*l));
	if (!l)
		return pst_fail(err, -ENOMEM, "listen on %s: out of memory", text);
	l->base.cq = base;
	TAILQ_INIT(&l->setups);
	port = url.port;
	for (unsigned int i = 0; i < url.hosts; i++) {
		rc = bind_host(l, url.host[i], &port, text, err);
		if (rc) {
			free_listener(l);
			return rc;
		}
	}
	name_listener(l, &url, port);
	TAILQ_INSERT_TAIL(&cq->listeners, l, on_cq);
	*out = &l->base;
	return 0;
}

void pst_verbs_listener_close(struct pst_listener *base)
{
	struct verbs_listener *l = pst_container(base, struct verbs_listener, base);
	struct verbs_cq *cq = verbs_cq(base->cq);
	struct verbs_rail *rail;
	struct verbs_link *link;

	while ((rail = TAILQ_FIRST(&l->setups))) {
		drop_setup(rail);
		pst_verbs_rail_free(rail);
	}
	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (link->listener == l)
			link->listener = NULL;
	}
	TAILQ_REMOVE(&cq->listeners, l, on_cq);
	free_listener(l);
}

void pst_verbs_listeners_close(struct verbs_cq *cq)
{
	struct verbs_listener *l;

	while ((l = TAILQ_FIRST(&cq->listeners)))
		pst_verbs_listener_close(&l->base);
}
