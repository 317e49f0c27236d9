/* SPDX-License-Identifier: Apache-2.0 */
/* The side that measures: links, the words before and after a run, completions. */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 5000
#define ANSWER_MS  30000

int perf_client_bad(struct perf_client *c, const struct pst_wc *wc)
{
	const char *why = wc->link ? pst_link_why(wc->link) : "";
	const char *peer = wc->link ? pst_link_peer(wc->link) : "the server";

	if (wc->kind == PST_WC_DOWN || wc->kind == PST_WC_DONE) {
		int rc = wc->status ? wc->status : -EIO;

		return pst_fail(c->err, rc, "%s: %s%s%s", peer,
				wc->kind == PST_WC_DOWN ? "the link is lost" : "a request failed",
				*why ? ": " : "", *why ? why : strerror(-rc));
	}
	return pst_fail(c->err, -EPROTO, "%s said something that no penstock-perf server says",
			peer);
}

int perf_client_poll(struct perf_client *c, struct pst_wc *wc, int n)
{
	int got;

	if (!c->plan->event)
		return pst_cq_poll(c->cq, wc, n);
	got = pst_cq_wait(c->cq, wc, n, 1000);
	return got == -EINTR ? 0 : got;
}

int perf_client_post(struct perf_client *c, struct perf_remote *r, const struct pst_wr *wr)
{
	for (;;) {
		struct pst_wc wc;
		int rc = pst_link_post(r->link, wr, 1);

		if (rc > 0)
			return 0;
		if (rc < 0)
			return pst_fail(c->err, rc, "%s: %s", pst_link_peer(r->link),
					*pst_link_why(r->link) ? pst_link_why(r->link)
							       : strerror(-rc));
		if (pst_cq_poll(c->cq, &wc, 1) > 0)
			return perf_client_bad(c, &wc);
	}
}

/* The one message that is due on @r, of exactly @size bytes. */
static int hear(struct perf_client *c, struct perf_remote *r, enum perf_wire_type type, void *msg,
		size_t size)
{
	uint64_t end = perf_now_ns() + ANSWER_MS * 1000000ull;

	while (perf_now_ns() < end) {
		struct perf_hdr hdr;
		struct pst_wc wc;
		int rc = pst_cq_wait(c->cq, &wc, 1, 100);

		if (rc == -EINTR || !rc)
			continue;
		if (rc < 0)
			return pst_fail(c->err, rc, "waiting for the server: %s", strerror(-rc));
		if (wc.kind != PST_WC_MESSAGE || wc.link != r->link || wc.len != size)
			return perf_client_bad(c, &wc);
		memcpy(&hdr, wc.msg, sizeof(hdr));
		if (hdr.mark != PERF_MARK || hdr.type != type || hdr.version != PERF_VERSION ||
		    hdr.size != size)
			return perf_client_bad(c, &wc);
		memcpy(msg, wc.msg, size);
		return 0;
	}
	return pst_fail(c->err, -ETIMEDOUT, "%s did not answer within %d s", pst_link_peer(r->link),
			ANSWER_MS / 1000);
}

static int say(struct perf_client *c, struct perf_remote *r, const void *msg, size_t size)
{
	int rc = pst_link_send(r->link, msg, size, ANSWER_MS);

	return rc ? pst_fail(c->err, rc, "%s: %s", pst_link_peer(r->link), strerror(-rc)) : 0;
}

static int greet(struct perf_client *c, struct perf_remote *r, const struct perf_want *want)
{
	struct perf_hello hello = {
		.hdr = PERF_HDR(PERF_HELLO, hello),
		.test = want->test,
		.slots = want->slots,
		.remote = want->remote,
		.base = (uint64_t)(r->at - c->memory.at),
		.local = want->local,
		.work = want->work,
		.page = (uint32_t)c->plan->page,
		.sleep = c->plan->event || want->idle,
	};
	struct perf_ready ready;
	int rc;

	rc = pst_link_grant(r->link, c->memory.region, PST_ACCESS_WRITE, &hello.key);
	if (rc)
		return pst_fail(c->err, rc, "%s: granting memory: %s", pst_link_peer(r->link),
				strerror(-rc));
	rc = say(c, r, &hello, sizeof(hello));
	if (!rc)
		rc = hear(c, r, PERF_READY, &ready, sizeof(ready));
	if (rc)
		return rc;
	ready.text[sizeof(ready.text) - 1] = 0;
	if (ready.code)
		return pst_fail(c->err, ready.code, "%s refuses: %s", pst_link_peer(r->link),
				ready.text);
	r->key = ready.key;
	r->len = ready.len;
	if (r->len < want->remote)
		return pst_fail(c->err, -EPROTO, "%s gives %llu bytes of memory instead of %llu",
				pst_link_peer(r->link), (unsigned long long)r->len,
				(unsigned long long)want->remote);
	return 0;
}

static int open_fabric(struct perf_client *c, const struct perf_want *want)
{
	int rc;

	c->fab = want->fab;
	if (c->fab)
		return 0;
	rc = pst_fabric_open(c->plan->url[0], &c->fab, c->err);
	c->own_fabric = !rc;
	return rc;
}

static int connect_all(struct perf_client *c, const struct perf_want *want)
{
	for (c->n = 0; c->n < want->links; c->n++) {
		struct perf_remote *r = &c->remote[c->n];
		const char *url = c->plan->url[want->spread ? c->n % c->plan->nurls : 0];
		int rc = pst_connect(c->cq, url, CONNECT_MS, &r->link, c->err);

		if (rc)
			return rc;
		r->at = c->memory.at + c->n * want->local;
		pst_link_set_user(r->link, r);
	}
	for (unsigned int i = 0; i < c->n; i++) {
		int rc = greet(c, &c->remote[i], want);

		if (rc)
			return rc;
	}
	return 0;
}

int perf_client_open(const struct perf_plan *plan, const struct perf_want *want,
		     struct perf_client *out, struct pst_error *err)
{
	struct perf_client c = {.plan = plan, .err = err};
	int rc = open_fabric(&c, want);

	if (!rc)
		rc = pst_cq_create(c.fab, &c.cq, err);
	if (!rc)
		rc = perf_memory_new(c.fab, want->links * want->local, plan->page, PST_ACCESS_WRITE,
				     &c.memory, err);
	if (!rc) {
		c.remote = calloc(want->links, sizeof(*c.remote));
		rc = c.remote ? 0 : pst_fail(err, -ENOMEM, "out of memory");
	}
	if (!rc)
		rc = connect_all(&c, want);
	if (rc) {
		perf_client_close(&c);
		return rc;
	}
	*out = c;
	return 0;
}

void perf_client_close(struct perf_client *c)
{
	for (unsigned int i = 0; i < c->n; i++)
		pst_link_close(c->remote[i].link);
	free(c->remote);
	perf_memory_free(&c->memory);
	pst_cq_destroy(c->cq);
	if (c->own_fabric)
		pst_fabric_close(c->fab);
	*c = (struct perf_client){0};
}

int perf_client_start(struct perf_client *c, uint64_t size, uint64_t iters)
{
	const struct perf_start start = {
		.hdr = PERF_HDR(PERF_START, start), .size = size, .iters = iters};
	struct perf_hdr go;
	int rc = 0;

	for (unsigned int i = 0; !rc && i < c->n; i++) {
		c->remote[i].posted = 0;
		c->remote[i].done = 0;
		rc = say(c, &c->remote[i], &start, sizeof(start));
		if (!rc)
			rc = hear(c, &c->remote[i], PERF_GO, &go, sizeof(go));
	}
	return rc;
}

int perf_client_stop(struct perf_client *c, struct perf_result *total)
{
	const struct perf_hdr stop = PERF_HDR(PERF_STOP, stop);
	int rc = 0;

	*total = (struct perf_result){0};
	for (unsigned int i = 0; !rc && i < c->n; i++) {
		struct perf_result one;

		rc = say(c, &c->remote[i], &stop, sizeof(stop));
		if (!rc)
			rc = hear(c, &c->remote[i], PERF_RESULT, &one, sizeof(one));
		if (rc)
			break;
		total->count += one.count;
		total->bytes += one.bytes;
		total->sum += one.sum;
	}
	return rc;
}
