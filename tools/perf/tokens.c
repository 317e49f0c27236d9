/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch and combine: N engines, a thread each, with a link to each of M workers, which are
 * servers of their own where there are several hosts or --self is given. Expert e is at worker
 * e % M.
 *
 * A step of dispatch: the rows of an engine's tokens, in fp32, are gathered worker by worker, each
 * worker gets its own in one write with an immediate, and answers that it has them. A step of
 * combine: every worker is asked for as many rows as it got, writes them into the engine's memory
 * with an immediate, and when all are there they are summed, token by token.
 */
#include "kernels/op.h"
#include "rdma/fail.h"
#include "tools/perf/crew.h"
#include "tools/perf/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 16 }; /* routings that take turns */

/* Who gets which rows in one step. */
struct step {
	uint32_t *rows; /* of each worker */
	int32_t *token; /* tokens x topk: of each row, worker by worker */
	int32_t *slot;	/* [tokens, topk]: where the row is, counted over all workers' parts */
	uint64_t total;
};

struct engine {
	const struct perf_plan *plan;
	struct perf_client c;
	struct pst_error err;
	struct routing routing;
	struct step step[STEPS];
	float *x, *y, *weight;
	struct histogram *h;
	uint64_t done, rows; /* that were measured */
	uint64_t first, last;
	bool warm;
};

static uint64_t row_bytes(const struct perf_plan *plan)
{
	return plan->hidden * sizeof(float);
}

static uint64_t most_rows(const struct perf_plan *plan)
{
	return (uint64_t)plan->tokens * plan->topk;
}

static void route_step(struct engine *e, struct step *s, uint32_t *expert)
{
	const struct perf_plan *plan = e->plan;
	uint64_t n = most_rows(plan), at = 0;

	for (uint32_t t = 0; t < plan->tokens; t++)
		routing_next(&e->routing, expert + t * plan->topk);
	for (uint32_t w = 0; w < plan->workers; w++) {
		uint32_t rows = 0;

		for (uint64_t i = 0; i < n; i++) {
			if (expert[i] % plan->workers != w)
				continue;
			s->token[at++] = (int32_t)(i / plan->topk);
			s->slot[i] = (int32_t)(w * n + rows++);
		}
		s->rows[w] = rows;
	}
	s->total = at;
}

static int make_steps(struct engine *e)
{
	const struct perf_plan *plan = e->plan;
	uint32_t *expert = malloc(most_rows(plan) * sizeof(*expert));
	bool good = expert != NULL;

	for (int i = 0; good && i < STEPS; i++) {
		struct step *s = &e->step[i];

		s->rows = malloc(plan->workers * sizeof(*s->rows));
		s->token = malloc(most_rows(plan) * sizeof(*s->token));
		s->slot = malloc(most_rows(plan) * sizeof(*s->slot));
		good = s->rows && s->token && s->slot;
		if (good)
			route_step(e, s, expert);
	}
	free(expert);
	return good ? 0 : pst_fail(&e->err, -ENOMEM, "out of memory");
}

static int make_tokens(struct engine *e)
{
	const struct perf_plan *plan = e->plan;
	uint64_t n = (uint64_t)plan->tokens * plan->hidden;

	e->x = malloc(n * sizeof(float));
	e->y = malloc(n * sizeof(float));
	e->weight = malloc(most_rows(plan) * sizeof(float));
	e->h = calloc(1, sizeof(*e->h));
	if (!e->x || !e->y || !e->weight || !e->h)
		return pst_fail(&e->err, -ENOMEM, "out of memory");
	for (uint64_t i = 0; i < n; i++)
		e->x[i] = (float)(i % 251);
	for (uint64_t i = 0; i < most_rows(plan); i++)
		e->weight[i] = 1.0f / (float)plan->topk;
	return 0;
}

/* The rows of worker @w, gathered where they are written from. */
static void gather(struct engine *e, const struct step *s, uint32_t w, uint64_t from)
{
	pst_ops_cpu()->gather((float *)e->c.remote[w].at, e->x, s->token + from, s->rows[w],
			      e->plan->hidden);
}

static int ask(struct engine *e, const struct step *s, uint32_t w, bool send)
{
	struct perf_remote *r = &e->c.remote[w];
	struct pst_wr wr = {.op = PST_WR_WRITE,
			    .flags = PST_WR_IMM | PST_WR_UNSIGNALED,
			    .imm = PERF_ROWS(0, s->rows[w])};

	if (send) {
		wr.local = e->c.memory.region;
		wr.local_addr = r->at;
		wr.key = r->key;
		wr.len = s->rows[w] * row_bytes(e->plan);
	}
	return perf_client_post(&e->c, r, &wr);
}

static int wait_for(struct engine *e, const struct step *s, unsigned int answers)
{
	while (answers) {
		struct pst_wc wc[16];
		int n = perf_client_poll(&e->c, wc, 16);

		if (n < 0)
			return pst_fail(&e->err, n, "waiting for workers: %s", strerror(-n));
		for (int i = 0; i < n; i++) {
			struct perf_remote *r = pst_link_user(wc[i].link);

			if (wc[i].kind != PST_WC_IMM ||
			    PERF_ROWS_N(wc[i].imm) != s->rows[r - e->c.remote] || !answers)
				return perf_client_bad(&e->c, &wc[i]);
			answers--;
		}
	}
	return 0;
}

static int one_step(struct engine *e, const struct step *s)
{
	bool dispatch = e->plan->test->wire == PERF_ANSWER;
	uint64_t start = perf_ticks(), from = 0;
	unsigned int asked = 0;
	int rc = 0;

	for (uint32_t w = 0; !rc && w < e->plan->workers; from += s->rows[w++]) {
		if (!s->rows[w])
			continue;
		if (dispatch)
			gather(e, s, w, from);
		rc = ask(e, s, w, dispatch);
		asked++;
	}
	if (!rc)
		rc = wait_for(e, s, asked);
	if (!rc && !dispatch)
		pst_ops_cpu()->combine(e->y, (const float *)e->c.memory.at, e->weight, s->slot,
				       e->plan->tokens, e->plan->topk, e->plan->hidden, 0);
	if (!rc && !e->warm) {
		histogram_record(e->h, perf_ticks() - start);
		e->done++;
		e->rows += s->total;
	}
	return rc;
}

static int steps(struct engine *e, uint64_t iters, double seconds)
{
	uint64_t end = seconds > 0 ? perf_ticks() + perf_ticks_of(seconds) : 0;
	int rc = 0;

	for (uint64_t i = 0; !rc && (end ? perf_ticks() < end : i < iters); i++)
		rc = one_step(e, &e->step[i % STEPS]);
	return rc;
}

static uint64_t iterations(const struct perf_plan *plan)
{
	return perf_iterations(plan, most_rows(plan) * row_bytes(plan));
}

static int prepare(void *member)
{
	struct engine *e = member;
	int rc = make_tokens(e);

	if (!rc)
		rc = make_steps(e);
	if (!rc)
		rc = perf_client_start(&e->c, 0, 0);
	e->warm = true;
	if (!rc)
		rc = steps(e, perf_warm_up(e->plan, iterations(e->plan)), 0);
	e->warm = false;
	return rc;
}

static int measure(void *member)
{
	struct engine *e = member;
	int rc;

	e->first = perf_ticks();
	rc = steps(e, iterations(e->plan), e->plan->duration);
	e->last = perf_ticks();
	return rc;
}

static int open_all(struct perf_plan *plan, struct engine *e, struct pst_error *err)
{
	uint64_t part = most_rows(plan) * row_bytes(plan);
	struct perf_want want = {
		.test = plan->test->wire,
		.remote = part,
		.local = part,
		.work = row_bytes(plan),
		.slots = 1,
		.links = plan->workers,
		.spread = true,
	};
	int rc = 0;

	for (uint32_t i = 0; !rc && i < plan->engines; i++) {
		e[i].plan = plan;
		rc = routing_open(plan, plan->topk, i, &e[i].routing, err);
		if (!rc)
			rc = perf_client_open(plan, &want, &e[i].c, err);
		if (!rc)
			e[i].c.err = &e[i].err;
		want.fab = e[0].c.fab;
	}
	return rc;
}

static void add_up(const struct perf_plan *plan, struct engine *e, struct perf_row *row)
{
	uint64_t first = UINT64_MAX, last = 0;

	*row = (struct perf_row){
		.bytes = most_rows(plan) * row_bytes(plan), .halved = 1, .h = e[0].h};
	for (uint32_t i = 0; i < plan->engines; i++) {
		row->iters += e[i].done;
		row->moved += (double)(e[i].rows * row_bytes(plan));
		first = e[i].first < first ? e[i].first : first;
		last = e[i].last > last ? e[i].last : last;
		if (i)
			histogram_add(e[0].h, e[i].h);
	}
	row->seconds = perf_seconds(last - first);
}

static void engine_close(struct engine *e)
{
	if (e->c.plan)
		perf_client_close(&e->c);
	routing_close(&e->routing);
	for (int i = 0; i < STEPS; i++) {
		free(e->step[i].rows);
		free(e->step[i].token);
		free(e->step[i].slot);
	}
	free(e->x);
	free(e->y);
	free(e->weight);
	free(e->h);
}

int perf_run_tokens(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	struct engine *e = calloc(plan->engines, sizeof(*e));
	struct perf_row row;
	int rc;

	if (!e)
		return pst_fail(err, -ENOMEM, "out of memory");
	rc = open_all(plan, e, err);
	if (!rc) {
		perf_report_settings(report, &e[0].c);
		rc = crew_run(e, sizeof(*e), plan->engines, prepare, measure, err);
	}
	for (uint32_t i = 0; i < plan->engines; i++)
		if (e[i].err.code && !err->code)
			*err = e[i].err;
	if (!rc) {
		add_up(plan, e, &row);
		perf_report_row(report, &row);
	}
	/* the first has the fabric of all */
	for (uint32_t i = plan->engines; i-- > 0;)
		engine_close(&e[i]);
	free(e);
	return rc;
}
