/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants: the owner of a region tells the peer its key, length and access, in
 * order with the messages. Both sides check every request: the one who asks, so
 * that a mistake fails that request alone; the one who serves, against what it
 * gave, since the other may be hostile.
 *
 * A key is random and stands in this link's table only, so it opens nothing on
 * another link and nothing when the link is gone.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define ALL (PST_ACCESS_READ | PST_ACCESS_WRITE)

static struct tcp_link *to_link(struct pst_link *base)
{
	return pst_container(base, struct tcp_link, base);
}

static bool same(const struct pst_key *a, const struct pst_key *b)
{
	return a->k[0] == b->k[0] && a->k[1] == b->k[1];
}

static bool inside(uint64_t off, uint64_t len, uint64_t whole)
{
	return off <= whole && len <= whole - off;
}

void pst_tcp_grants_go(struct tcp_link *link)
{
	while (link->grants_sent < link->ngiven && link->seq_last - link->seq_acked < TCP_WINDOW) {
		struct tcp_sent *s = pst_tcp_number(link, PST_FRAME_GRANT, 0);

		s->grant = link->grants_sent++;
	}
}

static int give(struct tcp_link *link, const struct pst_region *region, uint32_t access,
		struct pst_key *out)
{
	struct tcp_given *g = &link->given[link->ngiven];
	struct pst_key key;

	for (unsigned int i = 0; i < link->ngiven; i++) {
		g = &link->given[i];
		if (g->region_id == region->id && g->access == access) {
			*out = g->key;
			return 0;
		}
	}
	if (link->ngiven == TCP_GRANTS_MAX)
		return -ENOSPC;
	if (getrandom(&key, sizeof(key), 0) != sizeof(key))
		return -EIO;
	link->given[link->ngiven++] = (struct tcp_given){.key = key,
							 .region_id = region->id,
							 .addr = region->addr,
							 .len = region->len,
							 .access = access};
	*out = key;
	return 1;
}

int pst_tcp_link_grant(struct pst_link *base, struct pst_region *region, uint32_t access,
		       struct pst_key *out)
{
	struct tcp_link *link = to_link(base);
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	int rc;

	pst_tcp_enter(cq);
	rc = link->state == TCP_LIVE ? give(link, region, access, out) : -ENOTCONN;
	if (rc > 0) {
		pst_tcp_grants_go(link);
		cq->io->push(link->conn[0]);
		rc = 0;
	}
	pst_tcp_leave(cq);
	return rc;
}

static const struct tcp_taken *find_taken(struct tcp_link *link, const struct pst_key *key)
{
	/* from the last one that was used, round */
	for (unsigned int i = 0; i < link->ntaken; i++) {
		unsigned int at = (link->last_taken + i) % link->ntaken;

		if (same(&link->taken[at].key, key)) {
			link->last_taken = at;
			return &link->taken[at];
		}
	}
	return NULL;
}

uint32_t pst_tcp_check_wr(struct tcp_link *link, const struct pst_wr *wr)
{
	const struct tcp_taken *t = find_taken(link, &wr->key);

	if (!t) {
		/* the key may have come another way, before the grant was read */
		pst_tcp_cq_of(link)->io->turn(pst_tcp_cq_of(link), 0);
		t = find_taken(link, &wr->key);
	}
	if (!t)
		return PST_CAUSE_NO_KEY;
	if (wr->op == PST_WR_WRITE && !(t->access & PST_ACCESS_WRITE))
		return PST_CAUSE_READ_ONLY;
	return inside(wr->remote_off, wr->len, t->len) ? PST_CAUSE_NONE : PST_CAUSE_RANGE;
}

static const struct tcp_given *find_given(struct tcp_link *link, const struct pst_key *key)
{
	for (unsigned int i = 0; i < link->ngiven; i++) {
		unsigned int at = (link->last_given + i) % link->ngiven;

		if (same(&link->given[at].key, key)) {
			link->last_given = at;
			return &link->given[at];
		}
	}
	return NULL;
}

unsigned char *pst_tcp_check_range(struct tcp_link *link, const struct pst_frame_range *range,
				   uint32_t access)
{
	const struct pst_key key = {{range->key[0], range->key[1]}};
	const struct tcp_given *g = find_given(link, &key);

	if (!g || access & ~g->access || !range->len || !inside(range->offset, range->len, g->len))
		return NULL;
	return g->addr + range->offset;
}

int pst_tcp_take_grant(struct tcp_link *link, const union tcp_head *head)
{
	struct pst_frame_grant g;
	struct pst_key key;

	memcpy(&g, head, sizeof(g));
	memcpy(&key, g.key, sizeof(key));
	if (link->ntaken == TCP_GRANTS_MAX || !g.len || g.pieces || g.addr || g.chunk ||
	    (g.access != PST_ACCESS_READ && g.access != ALL) || find_taken(link, &key))
		return -EPROTO;
	link->taken[link->ntaken++] =
		(struct tcp_taken){.key = key, .len = g.len, .access = g.access};
	return 0;
}
