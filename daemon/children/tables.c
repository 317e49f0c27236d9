/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct table {
	TAILQ_ENTRY(table) on_all; /* by id */
	uint32_t id, server;
	struct pst_leash_table said;
};

struct tables {
	TAILQ_HEAD(, table) all;
	uint32_t n, last_id;
};

int tables_new(struct tables **out)
{
	struct tables *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	TAILQ_INIT(&t->all);
	*out = t;
	return 0;
}

static void drop(struct tables *t, struct table *one)
{
	TAILQ_REMOVE(&t->all, one, on_all);
	t->n--;
	free(one);
}

void tables_free(struct tables *t)
{
	struct table *one;

	if (!t)
		return;
	while ((one = TAILQ_FIRST(&t->all)))
		drop(t, one);
	free(t);
}

static struct table *find(const struct tables *t, uint32_t server, uint32_t number)
{
	struct table *one;

	TAILQ_FOREACH(one, &t->all, on_all)
	if (one->server == server && one->said.number == number)
		return one;
	return NULL;
}

int tables_tell(struct tables *t, uint32_t id, const struct pst_leash_table *m)
{
	struct table *one = find(t, id, m->number);

	if (m->gone) {
		if (one)
			drop(t, one);
		return 0;
	}
	if (!one) {
		if (t->n >= TABLES_MAX)
			return -ENOSPC;
		one = calloc(1, sizeof(*one));
		if (!one)
			return -ENOMEM;
		one->id = ++t->last_id;
		one->server = id;
		TAILQ_INSERT_TAIL(&t->all, one, on_all);
		t->n++;
	}
	one->said = *m;
	return 0;
}

void tables_forget(struct tables *t, uint32_t id)
{
	struct table *one, *after;

	for (one = TAILQ_FIRST(&t->all); one; one = after) {
		after = TAILQ_NEXT(one, on_all);
		if (one->server == id)
			drop(t, one);
	}
}

int tables_stat(const struct tables *t, bool next, struct pst_cmd_table_stat *io)
{
	const struct table *one;

	TAILQ_FOREACH(one, &t->all, on_all)
	if (next ? one->id > io->id : one->id == io->id)
		break;
	if (!one)
		return -ENOENT;
	io->id = one->id;
	io->out_server = one->server;
	io->out_tensors = one->said.tensors;
	io->out_clients = one->said.clients;
	io->out_bytes = one->said.bytes;
	io->out_state_bytes = one->said.state_bytes;
	io->out_version = one->said.version;
	io->out_pushed_bytes = one->said.pushed;
	memcpy(io->out_name, one->said.name, sizeof(io->out_name));
	return 0;
}
