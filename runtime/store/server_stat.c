/* SPDX-License-Identifier: Apache-2.0 */
/* server_stat.c - what a server tells of itself: to peers in a message, and to threads here. */
#include "runtime/store/server_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void pst_server_facts_init(struct facts *f)
{
	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
}

void pst_server_facts_destroy(struct facts *f)
{
	pthread_mutex_destroy(&f->lock);
}

/* Memory that it holds now, for the table and its slots. */
static uint64_t pools(const struct pst_server *s)
{
	struct pst_pool_stat ps;
	uint64_t bytes = 0;

	if (!s->shard)
		return 0;
	pst_pool_stat(pst_shard_masters(s->shard), &ps);
	bytes = ps.bytes;
	pst_pool_stat(pst_shard_snapshot(s->shard), &ps);
	bytes += ps.bytes;
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i]) {
			pst_pool_stat(s->slot[i]->pool, &ps);
			bytes += ps.bytes;
		}
	return bytes;
}

void pst_server_tell_pools(struct pst_server *s)
{
	atomic_store(&s->facts.pool_bytes, pools(s));
}

void pst_server_tell_table(struct pst_server *s, uint32_t shard, uint32_t shards)
{
	struct facts *f = &s->facts;
	struct pst_pool_stat ps;

	pst_pool_stat(pst_shard_masters(s->shard), &ps);
	pthread_mutex_lock(&f->lock);
	f->number++;
	f->there = true;
	f->node = ps.node;
	f->tensors = (uint32_t)pst_shard_count(s->shard);
	f->bytes = pst_shard_buffer_bytes(s->shard);
	f->state_bytes = ps.used;
	memcpy(f->note, ps.note, sizeof(f->note));
	snprintf(f->name, sizeof(f->name), "part %u of %u", shard + 1, shards);
	pst_server_tell_version(s);
	atomic_store(&f->pushed, 0);
	pthread_mutex_unlock(&f->lock);
	pst_server_tell_pools(s);
}

void pst_server_tell_gone(struct pst_server *s)
{
	pthread_mutex_lock(&s->facts.lock);
	s->facts.there = false;
	s->facts.note[0] = 0;
	pthread_mutex_unlock(&s->facts.lock);
	pst_server_tell_pools(s);
}

uint64_t pst_server_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Any thread */

void pst_server_facts(struct pst_server *s, struct pst_server_facts *out)
{
	struct facts *f = &s->facts;

	*out = (struct pst_server_facts){
		.pool_bytes = atomic_load(&f->pool_bytes),
		.read_bytes = atomic_load(&f->read_bytes),
		.calls = atomic_load(&f->calls),
		.busy_ns = atomic_load(&f->busy_ns),
		.clients = atomic_load(&f->clients),
		.threads = pst_device_threads(s->device),
		.node = s->config.node,
	};
	pthread_mutex_lock(&f->lock);
	out->tables = f->there;
	if (f->there)
		out->node = f->node;
	memcpy(out->note, f->note, sizeof(out->note));
	pthread_mutex_unlock(&f->lock);
}

int pst_server_next_table(struct pst_server *s, struct pst_table_facts *io)
{
	struct facts *f = &s->facts;
	int rc = -ENOENT;

	pthread_mutex_lock(&f->lock);
	if (f->there && f->number > io->number) {
		*io = (struct pst_table_facts){
			.number = f->number,
			.tensors = f->tensors,
			.clients = atomic_load(&f->clients),
			.bytes = f->bytes,
			.state_bytes = f->state_bytes,
			.version = atomic_load(&f->version),
			.pushed = atomic_load(&f->pushed),
		};
		memcpy(io->name, f->name, sizeof(io->name));
		rc = 0;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* In a message */

int pst_server_stated(struct pst_server *s, struct request *r)
{
	struct pst_msg_stated a = {
		.pid = (uint32_t)getpid(),
		.threads = pst_device_threads(s->device),
		.node = s->config.node,
	};
	struct pst_fabric_stat fs;
	struct pst_pool_stat ps;

	pst_fabric_stat(s->fabric, &fs);
	a.moved_bytes = fs.read_bytes + fs.write_bytes;
	a.copied_bytes = fs.copied_bytes;
	snprintf(a.kernels, sizeof(a.kernels), "%s", pst_device_ops(s->device)->kernels);
	if (s->shard) {
		pst_pool_stat(pst_shard_masters(s->shard), &ps);
		a.node = ps.node;
		a.locked = (uint32_t)ps.locked;
		a.page_bytes = ps.page_bytes;
		a.pool_bytes = ps.bytes;
		a.pool_used = ps.used;
		memcpy(a.note, ps.note, sizeof(a.note));
		pst_pool_stat(pst_shard_snapshot(s->shard), &ps);
		a.pool_bytes += ps.bytes;
		a.pool_used += ps.bytes;
	}
	a.crc_bad = s->crc_bad;
	return pst_rpc_answer(r->link, r->msg, &a.answer, sizeof(a), &r->err);
}
