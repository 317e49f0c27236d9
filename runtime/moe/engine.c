/* SPDX-License-Identifier: Apache-2.0 */
/* engine.c - from tokens to experts' rows and back; who computes them is crew.c's. */
#include "runtime/moe/engine.h"

#include "rdma/fail.h"
#include "runtime/mem/pool.h"
#include "runtime/moe/crew.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROW_BLOCK 64 /* rows or tokens that one task gathers or sums */

/* Where a layer's rows are, from its forward to its backward. */
struct layer {
	size_t tokens;
	int32_t *slot;	 /* [tokens, k]: row of each token's expert */
	int32_t *token;	 /* [rows]: token of each row */
	uint32_t *first; /* [experts + 1]: first row of each expert */
	uint32_t *owner; /* [experts]: worker that has its activations */
	uint64_t pass;
	float *x; /* in the rows pool */
	float *y; /* in the results pool */
};

struct pst_moe {
	struct pst_moe_options o;
	size_t max_rows;
	struct pst_pool *rows, *results;
	struct pst_crew *crew;
	struct layer *layer; /* [layers], the dense ones empty */
	float *dy, *dx;
	uint64_t version, pass;
	struct pst_moe_stat stat;
	struct pst_error err;
};

static uint64_t align_up(uint64_t n)
{
	return (n + 4095) / 4096 * 4096;
}

/* Creation */

static int make_pool(struct pst_moe *moe, const char *name, uint64_t bytes, uint32_t flags,
		     struct pst_pool **out, struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = name,
		.bytes = bytes,
		.node = moe->o.node,
		.flags = moe->o.pool_flags | flags,
	};

	return pst_pool_create(&po, out, err);
}

static int make_layers(struct pst_moe *moe)
{
	uint32_t experts = moe->o.experts;

	moe->layer = calloc(moe->o.layers, sizeof(*moe->layer));
	if (!moe->layer)
		return -ENOMEM;
	for (uint32_t l = moe->o.dense_layers; l < moe->o.layers; l++) {
		struct layer *ly = &moe->layer[l];

		ly->slot = calloc(moe->max_rows, sizeof(*ly->slot));
		ly->token = calloc(moe->max_rows, sizeof(*ly->token));
		ly->first = calloc(experts + 1, sizeof(*ly->first));
		ly->owner = calloc(experts, sizeof(*ly->owner));
		if (!ly->slot || !ly->token || !ly->first || !ly->owner)
			return -ENOMEM;
	}
	return 0;
}

/* Forward alone: one buffer serves all layers in turn. */
static int place_rows(struct pst_moe *moe, uint64_t bytes)
{
	float *x = NULL, *y = NULL;

	for (uint32_t l = moe->o.dense_layers; l < moe->o.layers; l++) {
		if (!x || moe->o.train) {
			x = pst_pool_alloc(moe->rows, bytes, 4096);
			y = pst_pool_alloc(moe->results, bytes, 4096);
		}
		moe->layer[l].x = x;
		moe->layer[l].y = y;
		if (!x || !y)
			return -ENOMEM;
	}
	if (!moe->o.train)
		return 0;
	moe->dy = pst_pool_alloc(moe->rows, bytes, 4096);
	moe->dx = pst_pool_alloc(moe->results, bytes, 4096);
	return moe->dy && moe->dx ? 0 : -ENOMEM;
}

static int make_rows(struct pst_moe *moe, struct pst_wire_server **servers, struct pst_error *err)
{
	uint64_t bytes = align_up(moe->max_rows * moe->o.hidden * sizeof(float));
	uint64_t buffers = moe->o.train ? moe->o.layers - moe->o.dense_layers + 1 : 1;
	uint64_t list = align_up(moe->o.nservers * sizeof(**servers));
	int rc = make_pool(moe, "rows", buffers * bytes + list, PST_POOL_READERS, &moe->rows, err);

	if (!rc)
		rc = make_pool(moe, "results", buffers * bytes, 0, &moe->results, err);
	if (rc < 0)
		return rc;
	*servers = pst_pool_alloc(moe->rows, list, 4096);
	if (!*servers || place_rows(moe, bytes) < 0)
		return pst_fail(err, -ENOMEM, "no room for the experts' rows");
	memcpy(*servers, moe->o.servers, moe->o.nservers * sizeof(**servers));
	return 0;
}

static int make_crew(struct pst_moe *moe, const struct pst_wire_server *servers,
		     struct pst_error *err)
{
	struct pst_crew_options co = {
		.size = sizeof(co),
		.fabric = moe->o.fabric,
		.workers = moe->o.workers,
		.experts = moe->o.experts,
		.rows = moe->rows,
		.results = moe->results,
		.setup = {.servers_offset = pst_pool_offset(moe->rows, servers),
			  .servers = moe->o.nservers,
			  .hidden = moe->o.hidden,
			  .inter = moe->o.inter,
			  .layers = moe->o.layers,
			  .experts = moe->o.experts,
			  .max_rows = (uint32_t)moe->max_rows},
		.timeout_ms = moe->o.timeout_ms,
		.connect_ms = moe->o.connect_ms,
		.replace = moe->o.replace,
		.check = moe->o.check,
		.ctx = moe->o.ctx,
		.reach = moe->o.reach,
		.reach_ctx = moe->o.reach_ctx,
	};

	return pst_crew_create(&co, &moe->crew, err);
}

int pst_moe_create(const struct pst_moe_options *opts, struct pst_moe **out, struct pst_error *err)
{
	struct pst_moe *moe = calloc(1, sizeof(*moe));
	struct pst_wire_server *servers = NULL;
	int rc;

	if (!moe)
		return pst_fail(err, -ENOMEM, "no memory for the experts' engine");
	moe->o = *opts;
	moe->max_rows = (size_t)opts->max_tokens * opts->topk;
	if (make_layers(moe) < 0)
		rc = pst_fail(err, -ENOMEM, "no memory for %u layers of experts", opts->layers);
	else
		rc = make_rows(moe, &servers, err);
	if (!rc)
		rc = make_crew(moe, servers, err);
	if (rc < 0) {
		pst_moe_destroy(moe);
		return rc;
	}
	*out = moe;
	return 0;
}

void pst_moe_destroy(struct pst_moe *moe)
{
	if (!moe)
		return;
	pst_crew_destroy(moe->crew);
	pst_pool_destroy(moe->results);
	pst_pool_destroy(moe->rows);
	for (uint32_t l = 0; moe->layer && l < moe->o.layers; l++) {
		free(moe->layer[l].slot);
		free(moe->layer[l].token);
		free(moe->layer[l].first);
		free(moe->layer[l].owner);
	}
	free(moe->layer);
	free(moe);
}

int pst_moe_connect(struct pst_moe *moe, unsigned int worker, const char *url,
		    struct pst_error *err)
{
	return pst_crew_connect(moe->crew, worker, url, err);
}

void pst_moe_version(struct pst_moe *moe, uint64_t version)
{
	moe->version = version;
}

const struct pst_error *pst_moe_error(const struct pst_moe *moe)
{
	return &moe->err;
}

void pst_moe_stat(const struct pst_moe *moe, struct pst_moe_stat *out)
{
	*out = moe->stat;
	pst_crew_stat(moe->crew, &out->restarts, &out->resent);
}

/* Rows, cut in blocks over the team */

struct rows_job {
	const struct pst_ops *ops;
	const struct layer *ly;
	size_t rows, k, cols;
	const float *in, *weight;
	float *out;
};

static size_t block_of(size_t task, size_t rows)
{
	size_t left = rows - task * ROW_BLOCK;

	return left < ROW_BLOCK ? left : ROW_BLOCK;
}

static void gather_block(void *ctx, size_t task)
{
	const struct rows_job *j = ctx;
	size_t at = task * ROW_BLOCK;

	j->ops->gather(j->out + at * j->cols, j->in, j->ly->token + at, block_of(task, j->rows),
		       j->cols);
}

static void combine_block(void *ctx, size_t task)
{
	const struct rows_job *j = ctx;
	size_t at = task * ROW_BLOCK;

	j->ops->combine(j->out + at * j->cols, j->in, j->weight ? j->weight + at * j->k : NULL,
			j->ly->slot + at * j->k, block_of(task, j->rows), j->k, j->cols, 1);
}

static void scatter_block(void *ctx, size_t task)
{
	const struct rows_job *j = ctx;
	size_t at = task * ROW_BLOCK;

	j->ops->scatter_scaled(j->out, j->in + at * j->cols, j->weight + at * j->k,
			       j->ly->slot + at * j->k, block_of(task, j->rows), j->k, j->cols);
}

static void dweight_block(void *ctx, size_t task)
{
	const struct rows_job *j = ctx;
	size_t at = task * ROW_BLOCK;

	j->ops->combine_dw(j->out + at * j->k, j->in + at * j->cols, j->ly->y,
			   j->ly->slot + at * j->k, block_of(task, j->rows), j->k, j->cols);
}

static void run_rows(struct pst_moe *moe, const struct layer *ly, pst_task_fn *fn, size_t rows,
		     const float *in, const float *weight, float *out)
{
	struct rows_job j = {
		.ops = pst_device_ops(moe->o.device),
		.ly = ly,
		.rows = rows,
		.k = moe->o.topk,
		.cols = moe->o.hidden,
		.in = in,
		.weight = weight,
		.out = out,
	};

	pst_device_for(moe->o.device, (rows + ROW_BLOCK - 1) / ROW_BLOCK, fn, &j);
}

/* Group tokens by expert: rows of expert 0 first, in order of tokens. */
static void group(struct pst_moe *moe, struct layer *ly, const int32_t *expert)
{
	size_t n = ly->tokens * moe->o.topk;
	uint32_t *next = ly->first;

	memset(ly->first, 0, (moe->o.experts + 1) * sizeof(*ly->first));
	for (size_t i = 0; i < n; i++)
		ly->first[expert[i] + 1]++;
	for (uint32_t e = 0; e < moe->o.experts; e++)
		ly->first[e + 1] += ly->first[e];
	for (size_t i = 0; i < n; i++) {
		uint32_t row = next[expert[i]]++;

		ly->slot[i] = (int32_t)row;
		ly->token[row] = (int32_t)(i / moe->o.topk);
	}
	/* each first has run to the next one's: put them back */
	memmove(ly->first + 1, ly->first, moe->o.experts * sizeof(*ly->first));
	ly->first[0] = 0;
}

static int ask(struct pst_moe *moe, uint32_t l, uint32_t what, const float *dy, float *out)
{
	struct layer *ly = &moe->layer[l];
	struct pst_msg_experts m = {
		.version = moe->version,
		.pass = ly->pass,
		.x = pst_pool_offset(moe->rows, ly->x),
		.dy = dy ? pst_pool_offset(moe->rows, dy) : 0,
		.out = pst_pool_offset(moe->results, out),
		.layer = l,
		.what = what,
	};

	return pst_crew_ask(moe->crew, &m, ly->first, ly->owner, &moe->err);
}

static void count_experts(struct pst_moe *moe, const struct layer *ly, uint64_t *bytes)
{
	for (uint32_t e = 0; e < moe->o.experts; e++)
		if (ly->first[e + 1] > ly->first[e])
			*bytes += 3ull * moe->o.hidden * moe->o.inter * sizeof(float);
}

static uint64_t row_bytes(const struct pst_moe *moe, const struct layer *ly)
{
	return ly->tokens * moe->o.topk * moe->o.hidden * sizeof(float);
}

int pst_moe_forward_begin(struct pst_moe *moe, unsigned int l, size_t tokens, const float *x,
			  const int32_t *expert)
{
	struct layer *ly = &moe->layer[l];

	if (tokens > moe->o.max_tokens)
		return pst_fail(&moe->err, -EINVAL, "%zu tokens at once, made for %u", tokens,
				moe->o.max_tokens);
	ly->tokens = tokens;
	ly->pass = ++moe->pass;
	group(moe, ly, expert);
	run_rows(moe, ly, gather_block, tokens * moe->o.topk, x, NULL, ly->x);
	moe->stat.rows_bytes += row_bytes(moe, ly);
	count_experts(moe, ly, &moe->stat.weight_bytes);
	return ask(moe, l, moe->o.train ? PST_EXPERTS_KEEP : 0, NULL, ly->y);
}

int pst_moe_forward_end(struct pst_moe *moe, unsigned int l, const float *weight, float *y)
{
	struct layer *ly = &moe->layer[l];
	int rc = pst_crew_wait(moe->crew, &moe->err);

	if (rc < 0)
		return rc;
	run_rows(moe, ly, combine_block, ly->tokens, ly->y, weight, y);
	moe->stat.results_bytes += row_bytes(moe, ly);
	return 0;
}

int pst_moe_backward_begin(struct pst_moe *moe, unsigned int l, const float *weight,
			   const float *dy)
{
	struct layer *ly = &moe->layer[l];

	run_rows(moe, ly, scatter_block, ly->tokens, dy, weight, moe->dy);
	moe->stat.rows_bytes += row_bytes(moe, ly);
	count_experts(moe, ly, &moe->stat.weight_bytes);
	count_experts(moe, ly, &moe->stat.grad_bytes);
	return ask(moe, l, PST_EXPERTS_BACKWARD, moe->dy, moe->dx);
}

int pst_moe_backward_end(struct pst_moe *moe, unsigned int l, const float *dy, float *dx,
			 float *dweight)
{
	struct layer *ly = &moe->layer[l];
	int rc;

	/* needs nothing of what the workers are still computing */
	run_rows(moe, ly, dweight_block, ly->tokens, dy, NULL, dweight);
	rc = pst_crew_wait(moe->crew, &moe->err);
	if (rc < 0)
		return rc;
	run_rows(moe, ly, combine_block, ly->tokens, moe->dx, NULL, dx);
	moe->stat.results_bytes += row_bytes(moe, ly);
	return 0;
}

int pst_moe_worker_stat(struct pst_moe *moe, unsigned int worker, struct pst_msg_stated *out)
{
	return pst_crew_worker_stat(moe->crew, worker, out);
}
