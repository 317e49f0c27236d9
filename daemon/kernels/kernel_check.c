/* SPDX-License-Identifier: Apache-2.0 */
/* What is bound is held against ref again, on fresh inputs, in one worker after the other. */
#include "daemon/kernels/kernels_priv.h"

#include "daemon/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct check {
	struct kernels *ks;
	uint32_t worker;
};

static void judge(struct kernels *ks, uint32_t worker, int rc, const struct pst_error *err,
		  const struct pst_leash_checked *c)
{
	struct kernel *k = kernel_find(ks, c->kernel);
	char why[300];

	if (!k || k->builtin)
		return;
	k->checks++;
	if (c->error_ppb > k->error_ppb)
		k->error_ppb = c->error_ppb;
	if (rc != -EDOM)
		return;
	snprintf(why, sizeof(why), "it does not agree with ref in worker %u: %.200s", worker,
		 err ? err->text : "");
	kernel_take_back(ks, k, why);
}

static void checked(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct check *c = ctx;
	struct kernels *ks = c->ks;

	if (!ks->closed && answer && answer->type == PST_LEASH_CHECKED && (!rc || rc == -EDOM))
		judge(ks, c->worker, rc, err, (const struct pst_leash_checked *)answer);
	else if (!ks->closed && rc < 0)
		log_line(LOG_INFO, NULL, "a kernel was not checked: %s",
			 err ? err->text : strerror(-rc));
	free(c);
	kernels_waited(ks);
}

static void check_op(struct kernels *ks, const struct kernel *k, uint32_t worker)
{
	struct check *c = malloc(sizeof(*c));
	uint64_t seed;

	if (!c)
		return;
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = (uint64_t)loop_now_ms();
	*c = (struct check){ks, worker};
	kernels_wait(ks);
	if (children_check(ks->d->children, worker, pst_op_name(k->op), seed, checked, c) < 0) {
		free(c);
		kernels_waited(ks);
	}
}

/* The next one that serves, round and round; 0: there is none. */
static uint32_t next_worker(struct kernels *ks)
{
	struct pst_cmd_worker_stat w = {.size = sizeof(w), .id = ks->turn};
	bool around = false;

	for (;;) {
		if (children_worker(ks->d->children, true, &w)) {
			if (around)
				return 0;
			around = true;
			w.id = 0;
			continue;
		}
		if (w.out_state == PST_WORKER_SERVING) {
			ks->turn = w.id;
			return w.id;
		}
	}
}

static void fire(struct loop_timer *timer)
{
	struct kernels *ks = OF(struct kernels, check, timer);
	uint32_t worker = ks->d->children ? next_worker(ks) : 0;

	for (int op = 0; worker && op < PST_OP_COUNT; op++) {
		const struct kernel *k = slot_serving(&ks->slot[op]);

		if (!k->builtin && !ks->slot[op].telling)
			check_op(ks, k, worker);
	}
	check_again(ks);
}

void check_again(struct kernels *ks)
{
	uint32_t s = ks->d->config.check_s;

	ks->check.fire = fire;
	loop_after(ks->d->loop, &ks->check, (int)(s ? (s < 86400 ? s : 86400) * 1000 : 1000));
}
