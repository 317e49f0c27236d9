/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/worker_priv.h"

#include "rdma/fail.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPU_MS 30000 /* that a request may take there */

static int answer_plain(struct pst_link *link, const struct pst_msg *req,
			const struct pst_error *err)
{
	struct pst_msg_answer answer;

	return pst_rpc_answer(link, req, &answer, sizeof(answer), err);
}

static int take_seat(struct pst_worker *w, struct pst_session *session, struct pst_error *err)
{
	struct seat *seat = malloc(sizeof(*seat));

	if (!seat) {
		pst_session_close(session);
		return pst_fail(err, -ENOMEM, "no memory for a session");
	}
	*seat = (struct seat){session, w->seats};
	w->seats = seat;
	atomic_fetch_add(&w->tally.engines, 1);
	return 0;
}

/* Close @session, or all of them when it is NULL. */
static void leave_seat(struct pst_worker *w, const struct pst_session *session)
{
	for (struct seat **at = &w->seats; *at;) {
		struct seat *seat = *at;

		if (session && seat->session != session) {
			at = &seat->next;
			continue;
		}
		*at = seat->next;
		pst_session_close(seat->session);
		free(seat);
		atomic_fetch_sub(&w->tally.engines, 1);
	}
}

static int going(const struct pst_worker *w, struct pst_error *err)
{
	return pst_fail(err, -ESHUTDOWN, "%s: drains, ask another worker", w->config.url);
}

static void setup(struct pst_worker *w, struct pst_link *link, const struct pst_msg *hdr)
{
	struct pst_session *old = pst_link_user(link), *session = NULL;
	struct pst_session_host host = {
		.inbox = w->inbox,
		.device = w->device,
		.gpu = w->gpu,
		.tally = &w->tally,
		.node = w->config.node,
		.pool_flags = w->config.pool_flags,
		.copy_bytes = w->config.copy_bytes,
	};
	struct pst_error err = {0};

	if (atomic_load(&w->draining))
		going(w, &err);
	else if (old)
		pst_fail(&err, -EEXIST, "%s: is set up already", w->config.url);
	else if (!pst_session_open(&host, link, (const void *)hdr, &session, &err) &&
		 !take_seat(w, session, &err))
		pst_link_set_user(link, session);
	answer_plain(link, hdr, &err);
}

/* It is dead, or hangs with work that may still write into an engine's memory. */
static bool gpu_lost(const struct pst_worker_gpu *g)
{
	return pst_gpu_dead(pst_worker_gpu_device(g), NULL) ||
	       pst_gpu_mlp_stuck(pst_worker_gpu_mlp(g));
}

static int experts(struct pst_worker *w, struct pst_link *link, const struct pst_msg *hdr,
		   struct pst_error *why)
{
	struct pst_session *session = pst_link_user(link);
	const struct pst_msg_experts *m = (const void *)hdr;
	struct pst_error err = {0};

	if (atomic_load(&w->draining))
		going(w, &err);
	else if (!session)
		pst_fail(&err, -EINVAL, "experts asked for before the set-up");
	else if (m->count > PST_EXPERTS_MAX ||
		 hdr->size != sizeof(*m) + m->count * sizeof(*m->item))
		pst_fail(&err, -EINVAL, "a request for experts whose length is wrong");
	else
		pst_session_run(session, m, &err);
	if (err.code && w->gpu && gpu_lost(w->gpu))
		return pst_fail(why, err.code, "%s", err.text);
	if (!err.code)
		pst_tally_add(&w->tally.calls, 1);
	answer_plain(link, hdr, &err);
	return 0;
}

static void stated(struct pst_worker *w, struct pst_link *link, const struct pst_msg *hdr)
{
	struct pst_msg_stated a = {
		.pid = (uint32_t)getpid(),
		.threads = pst_device_threads(w->device),
		.node = w->config.node,
	};
	struct pst_fabric_stat fs;

	pst_fabric_stat(w->fabric, &fs);
	a.moved_bytes = fs.read_bytes + fs.write_bytes;
	a.copied_bytes = fs.copied_bytes;
	memcpy(a.kernels, w->kernels, sizeof(a.kernels));
	if (pst_link_user(link))
		pst_session_stat(pst_link_user(link), &a);
	pst_rpc_answer(link, hdr, &a.answer, sizeof(a), NULL);
}

/* 0, or what ends the worker. */
static int message(struct pst_worker *w, const struct pst_wc *wc, struct pst_error *why)
{
	const struct pst_msg *hdr = pst_rpc_check(wc->msg, wc->len, sizeof(*hdr));
	struct pst_error err = {0};

	if (!hdr)
		return 0;
	if (hdr->type == PST_MSG_WORKER_SETUP && wc->len >= sizeof(struct pst_msg_worker_setup))
		setup(w, wc->link, hdr);
	else if (hdr->type == PST_MSG_EXPERTS && wc->len >= sizeof(struct pst_msg_experts))
		return experts(w, wc->link, hdr, why);
	else if (hdr->type == PST_MSG_STAT)
		stated(w, wc->link, hdr);
	else {
		pst_fail(&err, -ENOTTY, "a worker does not know request %u of %u bytes", hdr->type,
			 wc->len);
		answer_plain(wc->link, hdr, &err);
	}
	return 0;
}

static void link_down(struct pst_worker *w, struct pst_link *link)
{
	const struct pst_session *session = pst_link_user(link);

	pst_inbox_close(w->inbox, link);
	if (session)
		leave_seat(w, session);
}

static bool serves(const struct pst_worker *w)
{
	return !atomic_load(&w->stop) && (w->seats || !atomic_load(&w->draining));
}

static int serve(struct pst_worker *w, struct pst_error *err)
{
	struct pst_wc wc;

	while (serves(w)) {
		int rc;

		pst_worker_obey(w);
		rc = pst_inbox_next(w->inbox, &wc, -1);
		if (rc < 0 && rc != -EINTR)
			return pst_fail(err, rc, "%s: %s", w->config.url, strerror(-rc));
		if (rc <= 0)
			continue;
		if (wc.kind == PST_WC_MESSAGE)
			rc = message(w, &wc, err);
		else if (wc.kind == PST_WC_DOWN)
			link_down(w, wc.link);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int pst_worker_serve(struct pst_worker *w, struct pst_error *err)
{
	int rc;

	pst_worker_open_orders(w, true);
	rc = serve(w, err);
	pst_worker_open_orders(w, false);
	/* who comes now finds nobody, at once */
	if (atomic_load(&w->draining) && w->listener) {
		pst_listener_close(w->listener);
		w->listener = NULL;
	}
	return rc;
}

const char *pst_worker_at(const struct pst_worker *w)
{
	return w->config.url;
}

void pst_worker_stop(struct pst_worker *w)
{
	atomic_store(&w->stop, true);
	pst_cq_wake(pst_inbox_cq(w->inbox));
}

void pst_worker_leave(struct pst_worker *w)
{
	atomic_store(&w->draining, true);
	pst_cq_wake(pst_inbox_cq(w->inbox));
}

void pst_worker_facts(struct pst_worker *w, struct pst_worker_facts *out)
{
	struct pst_fabric_stat fs;

	pst_fabric_stat(w->fabric, &fs);
	*out = (struct pst_worker_facts){
		.moved = fs.read_bytes + fs.write_bytes,
		.copied = fs.copied_bytes,
		.threads = pst_device_threads(w->device),
		.draining = atomic_load(&w->draining),
		.node = w->config.node,
		.kernels = w->kernels,
	};
	pst_tally_stat(&w->tally, &out->tally);
}

int pst_worker_next_expert(struct pst_worker *w, struct pst_tally_expert_stat *io)
{
	return pst_tally_next(&w->tally, io);
}

/* The cores that go with a GPU are those that it is attached to. */
static int open_devices(struct pst_worker *w, struct pst_error *err)
{
	const char *device = w->config.device;
	struct pst_gpu_info info;
	int rc;

	if (device && strcmp(device, "cpu")) {
		rc = pst_worker_gpu_open(device, GPU_MS, &w->gpu, err);
		if (rc)
			return rc;
		pst_gpu_info(pst_worker_gpu_device(w->gpu), &info);
		if (w->config.node < 0)
			w->config.node = info.node;
	}
	return pst_device_open_cpu(w->config.node, w->config.threads, &w->device, err);
}

static void name_kernels(struct pst_worker *w)
{
	struct pst_gpu_info info;

	if (w->gpu)
		pst_gpu_info(pst_worker_gpu_device(w->gpu), &info);
	snprintf(w->kernels, sizeof(w->kernels), "%s",
		 w->gpu ? info.target : pst_device_ops(w->device)->kernels);
}

int pst_worker_create(const struct pst_worker_config *config, struct pst_worker **out,
		      struct pst_error *err)
{
	struct pst_worker *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return pst_fail(err, -ENOMEM, "no memory for a worker");
	pst_tally_init(&w->tally);
	pthread_mutex_init(&w->orders.lock, NULL);
	pthread_cond_init(&w->orders.done, NULL);
	w->config = *config;
	w->config.url = strdup(config->url);
	rc = w->config.url ? open_devices(w, err)
			   : pst_fail(err, -ENOMEM, "no memory for a worker");
	if (!rc)
		rc = pst_fabric_open(config->url, &w->fabric, err);
	if (!rc)
		rc = pst_inbox_create(w->fabric, PST_INBOX_KEEP, &w->inbox, err);
	if (!rc)
		rc = pst_listen(pst_inbox_cq(w->inbox), config->url, &w->listener, err);
	if (!rc) {
		/* as others know it: with the port that it has, without the settings */
		free((char *)w->config.url);
		w->config.url = strdup(pst_listener_url(w->listener));
		rc = w->config.url ? 0 : pst_fail(err, -ENOMEM, "no memory for a URL");
	}
	if (rc < 0) {
		pst_worker_destroy(w);
		return rc;
	}
	name_kernels(w);
	*out = w;
	return 0;
}

void pst_worker_destroy(struct pst_worker *w)
{
	if (!w)
		return;
	pst_inbox_destroy(w->inbox);
	leave_seat(w, NULL);
	if (w->fabric)
		pst_fabric_close(w->fabric);
	pst_worker_gpu_close(w->gpu);
	if (w->device)
		pst_device_close(w->device);
	pthread_cond_destroy(&w->orders.done);
	pthread_mutex_destroy(&w->orders.lock);
	pst_tally_destroy(&w->tally);
	free((char *)w->config.url);
	free(w);
}
