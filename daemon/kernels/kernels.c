/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/kernels/kernels_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(PST_OP_COUNT < FIRST_LOADED, "ids of built-in kernels");

struct kernel *kernel_find(const struct kernels *ks, uint32_t id)
{
	struct kernel *k;

	TAILQ_FOREACH(k, &ks->all, on_list)
	if (k->id == id)
		return k;
	return NULL;
}

static void insert(struct kernels *ks, struct kernel *k)
{
	struct kernel *at;

	ks->count++;
	TAILQ_FOREACH(at, &ks->all, on_list)
	if (at->id > k->id) {
		TAILQ_INSERT_BEFORE(at, k, on_list);
		return;
	}
	TAILQ_INSERT_TAIL(&ks->all, k, on_list);
}

struct kernel *kernel_new(struct kernels *ks, uint32_t id, const struct manifest *m, int image)
{
	struct kernel *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	if (!id)
		id = ++ks->last_id;
	else if (id > ks->last_id)
		ks->last_id = id;
	k->id = id;
	k->state = PST_KERNEL_TESTED;
	k->kind = m->kind;
	k->op = pst_op_find(m->op);
	memcpy(k->name, m->name, sizeof(k->name));
	memcpy(k->hash, m->sha256, sizeof(k->hash));
	k->image = image;
	insert(ks, k);
	return k;
}

void kernel_free(struct kernels *ks, struct kernel *k)
{
	TAILQ_REMOVE(&ks->all, k, on_list);
	ks->count--;
	if (k->builtin)
		return;
	close(k->image);
	free(k);
}

const char *kernel_label(const struct kernel *k, char text[96])
{
	snprintf(text, 96, "kernel %u (%s, op %s)", k->id, k->name, pst_op_name(k->op));
	return text;
}

/* Workers */

/* One that begins has what is built in; one of an earlier daemon may have anything that was loaded.
 */
static void on_hello(struct children_listener *l, uint32_t id, uint32_t kind)
{
	struct kernels *ks = OF(struct kernels, listener, l);
	bool loaded[PST_OP_COUNT] = {false};
	struct kernel *k;

	TAILQ_FOREACH(k, &ks->all, on_list)
	if (!k->builtin && k->kind == kind)
		loaded[k->op] = true;
	for (int op = 0; op < PST_OP_COUNT; op++)
		if (loaded[op])
			slot_tell_one(&ks->slot[op], id);
}

/* What code does to its own process. A SIGKILL comes from others. */
static bool is_crash(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
	       sig == SIGABRT || sig == SIGTRAP || sig == SIGSYS;
}

/* Of those that serve, the one that was bound last, if it may be to blame. */
static struct kernel *newest(const struct kernels *ks)
{
	uint64_t calm = loop_now_ms() < ks->calm_until_ms ? ks->calm_bound : 0;
	struct kernel *last = NULL;

	for (int op = 0; op < PST_OP_COUNT; op++) {
		struct kernel *k = slot_serving(&ks->slot[op]);

		if (!k->builtin && k->bound > calm && (!last || k->bound > last->bound))
			last = k;
	}
	return last;
}

static void on_died(struct children_listener *l, uint32_t id, int sig, bool hung)
{
	struct kernels *ks = OF(struct kernels, listener, l);
	struct kernel *k = newest(ks);
	const char *name = sigabbrev_np(sig);
	char why[96];

	if (!k || (!hung && !is_crash(sig)))
		return;
	if (hung)
		snprintf(why, sizeof(why), "worker %u hung while it served", id);
	else
		snprintf(why, sizeof(why), "worker %u crashed while it served: SIG%s", id,
			 name ? name : "?");
	kernel_take_back(ks, k, why);
}

/* Asked */

static uint32_t count_workers(struct kernels *ks)
{
	struct pst_cmd_worker_stat w = {.size = sizeof(w)};
	uint32_t n = 0;

	for (; ks->d->children && !children_worker(ks->d->children, true, &w);)
		n += w.out_state == PST_WORKER_SERVING || w.out_state == PST_WORKER_DRAINING;
	return n;
}

static const struct kernel *next_above(const struct kernels *ks, uint32_t id)
{
	struct kernel *k;

	TAILQ_FOREACH(k, &ks->all, on_list)
	if (k->id > id)
		return k;
	return NULL;
}

int kernels_stat(struct kernels *ks, bool next, struct pst_cmd_kernel_stat *io)
{
	const struct kernel *k = next ? next_above(ks, io->id) : kernel_find(ks, io->id);

	if (!k)
		return -ENOENT;
	io->id = k->id;
	io->out_state = k->state;
	io->out_kind = k->kind;
	io->out_builtin = k->builtin;
	io->out_workers = slot_serving(&ks->slot[k->op]) == k ? count_workers(ks) : 0;
	io->out_speed = k->speed;
	io->out_checks = k->checks;
	io->out_error_ppb = k->error_ppb;
	memset(io->out_op, 0, sizeof(io->out_op));
	snprintf((char *)io->out_op, sizeof(io->out_op), "%s", pst_op_name(k->op));
	memcpy(io->out_name, k->name, sizeof(io->out_name));
	memcpy(io->out_hash, k->hash, sizeof(io->out_hash));
	return 0;
}

uint32_t kernels_count(const struct kernels *ks)
{
	return ks->count;
}

bool kernels_signed(const struct kernels *ks)
{
	return !ks->d->config.unsigned_ok;
}

/* From beginning to end */

static void add_builtin(struct kernels *ks, enum pst_op op)
{
	const struct pst_ops *ops = pst_ops_cpu();
	bool own = pst_ops_get(ops, op) != pst_ops_get(pst_ops_ref(), op);
	struct kernel *k = &ks->builtin[op];

	*k = (struct kernel){.id = op + 1,
			     .state = PST_KERNEL_BOUND,
			     .kind = PST_DEVICE_CPU,
			     .builtin = true,
			     .op = op,
			     .image = -1};
	snprintf(k->name, sizeof(k->name), "%s", own ? ops->kernels : "ref");
	insert(ks, k);
	ks->slot[op] = (struct slot){.ks = ks, .op = op, .at = {k}, .n = 1};
}

int kernels_open(struct penstockd *d, struct kernels **out, struct pst_error *err)
{
	struct kernels *ks = calloc(1, sizeof(*ks));

	if (!ks)
		return pst_fail(err, -ENOMEM, "no memory for kernels");
	ks->d = d;
	ks->last_id = FIRST_LOADED - 1;
	ks->listener = (struct children_listener){.hello = on_hello, .died = on_died};
	TAILQ_INIT(&ks->all);
	TAILQ_INIT(&ks->loads);
	for (int op = 0; op < PST_OP_COUNT; op++)
		add_builtin(ks, (enum pst_op)op);
	kernels_bring_back(ks);
	if (d->children)
		children_listen(d->children, &ks->listener);
	check_again(ks);
	*out = ks;
	return 0;
}

static void destroy(struct kernels *ks)
{
	struct kernel *k;

	while ((k = TAILQ_FIRST(&ks->all)))
		kernel_free(ks, k);
	free(ks);
}

/* Answers that are still to come find it closed; the last takes it away. */
void kernels_close(struct kernels *ks)
{
	if (!ks)
		return;
	ks->closed = true;
	kernels_wait(ks);
	if (ks->d->children)
		children_listen(ks->d->children, NULL);
	loop_cancel(ks->d->loop, &ks->check);
	loads_end(ks);
	changes_end(ks);
	kernels_waited(ks);
}

void kernels_wait(struct kernels *ks)
{
	ks->waits++;
}

void kernels_waited(struct kernels *ks)
{
	if (!--ks->waits && ks->closed)
		destroy(ks);
}
