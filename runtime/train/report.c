/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - what a trainer can say of itself. */
#include "runtime/train/trainer.h"

#include "runtime/describe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Bytes that servers and workers moved and copied by themselves. */
static void add_parts(struct pst_trainer *t, struct pst_traffic *out)
{
	struct pst_msg_stated s;

	for (uint32_t i = 0; i < t->o.servers; i++)
		if (!pst_client_stat(t->client, i, &s, NULL)) {
			out->moved += s.moved_bytes;
			out->copied += s.copied_bytes;
		}
	for (uint32_t i = 0; i < t->o.workers; i++)
		if (!pst_moe_worker_stat(t->moe, i, &s)) {
			out->moved += s.moved_bytes;
			out->copied += s.copied_bytes;
		}
}

void pst_trainer_traffic(struct pst_trainer *t, struct pst_traffic *out)
{
	struct pst_fabric_stat fs;
	struct pst_moe_stat ms;

	pst_fabric_stat(t->fabric, &fs);
	pst_moe_stat(t->moe, &ms);
	*out = t->traffic;
	out->pulled_workers = ms.weight_bytes;
	out->pushed_workers = ms.grad_bytes;
	out->dispatched = ms.rows_bytes;
	out->combined = ms.results_bytes;
	out->moved = fs.read_bytes + fs.write_bytes;
	out->copied += fs.copied_bytes;
	out->worker_restarts = ms.restarts;
	out->experts_resent = ms.resent;
	add_parts(t, out);
}

void pst_trainer_model(const struct pst_trainer *t, struct pst_model_info *out)
{
	pst_model_describe(&t->config, out);
	out->train_bytes = t->corpus.train;
	out->heldout_bytes = t->corpus.bytes - t->corpus.train;
	out->files = t->corpus.files;
}

static void describe_engine(struct pst_trainer *t, struct pst_part_info *p)
{
	struct pst_pool_stat ps;
	char of_gpu[256];

	pst_pool_stat(t->pool, &ps);
	p->pid = (uint32_t)getpid();
	p->threads = pst_device_threads(t->device);
	p->node = ps.node;
	p->locked = (uint32_t)ps.locked;
	p->page_bytes = ps.page_bytes;
	p->pool_bytes = ps.bytes;
	snprintf(p->role, sizeof(p->role), "engine");
	snprintf(p->kernels, sizeof(p->kernels), "%.15s",
		 t->gpu ? pst_launch_device(t->launch) : pst_device_ops(t->device)->kernels);
	pst_engine_gpu_note(t->gpu, of_gpu);
	memcpy(p->note, t->note[0] ? t->note : of_gpu[0] ? of_gpu : ps.note, sizeof(p->note));
}

static void describe_part(const struct pst_msg_stated *s, const char *role, const char *url,
			  struct pst_part_info *p)
{
	snprintf(p->role, sizeof(p->role), "%s", role);
	snprintf(p->url, sizeof(p->url), "%s", url);
	snprintf(p->kernels, sizeof(p->kernels), "%.*s", (int)sizeof(s->kernels), s->kernels);
	snprintf(p->note, sizeof(p->note), "%.*s", (int)sizeof(s->note) - 1, s->note);
	p->pid = s->pid;
	p->threads = s->threads;
	p->node = s->node;
	p->locked = s->locked;
	p->page_bytes = s->page_bytes;
	p->pool_bytes = s->pool_bytes;
}

int pst_trainer_part(struct pst_trainer *t, unsigned int i, struct pst_part_info *out)
{
	struct pst_part_info p = {0};
	struct pst_msg_stated s = {0};
	int rc = 0;

	if (i == 0) {
		describe_engine(t, &p);
	} else if (i - 1 < t->o.servers) {
		rc = pst_client_stat(t->client, i - 1, &s, NULL);
		describe_part(&s, "server", pst_launch_server(t->launch, i - 1), &p);
	} else if (i - 1 - t->o.servers < t->o.workers) {
		unsigned int w = i - 1 - t->o.servers;

		rc = pst_moe_worker_stat(t->moe, w, &s);
		describe_part(&s, "worker", pst_launch_worker(t->launch, w), &p);
	} else {
		return -ENOENT;
	}
	if (rc < 0)
		snprintf(p.note, sizeof(p.note), "does not answer: %s", strerror(-rc));
	*out = p;
	return 0;
}
