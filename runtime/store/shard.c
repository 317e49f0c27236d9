/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/shard_priv.h"

#include "rdma/fail.h"
#include "runtime/io/dtype.h"
#include "runtime/io/loader.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64
#define PAGE  4096
#define PIECE 65536 /* elements of a tensor that one task handles */

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* Pieces */

struct pieces {
	struct pst_shard *shard;
	pst_piece_fn *fn;
	void *ctx;
};

static void run_piece(void *ctx, size_t task)
{
	struct pieces *p = ctx;
	size_t lo = 0, hi = p->shard->count;
	uint64_t from, left;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (p->shard->first[mid] <= task)
			lo = mid;
		else
			hi = mid;
	}
	from = (task - p->shard->first[lo]) * PIECE;
	left = p->shard->master[lo].count - from;
	p->fn(p->shard, lo, from, left < PIECE ? left : PIECE, p->ctx);
}

void pst_shard_pieces(struct pst_shard *shard, pst_piece_fn *fn, void *ctx)
{
	struct pieces p = {shard, fn, ctx};

	pst_device_for(shard->device, shard->first[shard->count], run_piece, &p);
}

/* Creation */

static int check_tensor(const struct pst_wire_tensor *t, struct pst_error *err)
{
	uint64_t n = 1;

	if (!memchr(t->name, 0, sizeof(t->name)) || !t->name[0])
		return pst_fail(err, -EINVAL, "a tensor's name is empty or does not end");
	if (t->dtype != PST_F32)
		return pst_fail(err, -EINVAL, "tensor %s: masters are F32, not format %u", t->name,
				t->dtype);
	if (t->ndim < 1 || t->ndim > PST_WIRE_DIMS)
		return pst_fail(err, -EINVAL, "tensor %s: %u dimensions", t->name, t->ndim);
	for (unsigned int d = 0; d < t->ndim; d++)
		if (!t->shape[d] || __builtin_mul_overflow(n, t->shape[d], &n) || n >> 40)
			return pst_fail(err, -EINVAL, "tensor %s: its shape is 0 or too large",
					t->name);
	if (t->init > PST_INIT_NORMAL || t->flags & ~(PST_TENSOR_DECAY | PST_TENSOR_LOAD) ||
	    !isfinite(t->init_std))
		return pst_fail(err, -EINVAL, "tensor %s: unknown init or flags", t->name);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const struct pst_shard *s, struct pst_error *err)
{
	const char **name = malloc(s->count * sizeof(*name));
	int rc = 0;

	if (!name)
		return pst_fail(err, -ENOMEM, "no memory for %zu names", s->count);
	for (size_t i = 0; i < s->count; i++)
		name[i] = s->tensor[i].name;
	qsort(name, s->count, sizeof(*name), by_name);
	for (size_t i = 1; i < s->count && !rc; i++)
		if (!strcmp(name[i - 1], name[i]))
			rc = pst_fail(err, -EINVAL, "tensor %s: twice in the table", name[i]);
	free(name);
	return rc;
}

static int copy_directory(struct pst_shard *s, const struct pst_wire_tensor *from,
			  struct pst_error *err)
{
	uint64_t offset = 0;
	int rc;

	memcpy(s->tensor, from, s->count * sizeof(*from));
	for (size_t i = 0; i < s->count; i++) {
		struct pst_wire_tensor *t = &s->tensor[i];

		rc = check_tensor(t, err);
		if (rc < 0)
			return rc;
		if (i && t->order <= s->tensor[i - 1].order)
			return pst_fail(err, -EINVAL, "tensor %s: out of order", t->name);
		s->master[i].count = 1;
		for (unsigned int d = 0; d < t->ndim; d++)
			s->master[i].count *= t->shape[d];
		t->bytes = s->master[i].count * sizeof(float);
		t->offset = offset;
		offset = align_up(offset + t->bytes, ALIGN);
		s->first[i + 1] = s->first[i] + (s->master[i].count + PIECE - 1) / PIECE;
	}
	s->buffer_bytes = align_up(offset, PAGE);
	return check_names(s, err);
}

/* A pool whose pages are where they were asked for; what cannot be moved there is in its note. */
static int make_pool(const struct pst_pool_options *po, struct pst_pool **out,
		     struct pst_error *err)
{
	int rc = pst_pool_create(po, out, err);

	if (!rc)
		pst_pool_audit(*out, 1, NULL);
	return rc;
}

static int make_masters(struct pst_shard *s, const struct pst_shard_options *o,
			struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po), .name = "masters", .node = o->node, .flags = o->pool_flags};
	int rc;

	for (size_t i = 0; i < s->count; i++)
		po.bytes += pst_shard_values(s, i) *
			    align_up(pst_loader_room(PAGE - 1, s->tensor[i].bytes), PAGE);
	rc = make_pool(&po, &s->masters_pool, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < s->count; i++)
		for (int k = 0; k < pst_shard_values(s, i); k++) {
			void *block =
				pst_pool_alloc(s->masters_pool,
					       pst_loader_room(PAGE - 1, s->tensor[i].bytes), PAGE);

			if (!block)
				return pst_fail(err, -ENOMEM, "tensor %s: no room in its pool",
						s->tensor[i].name);
			s->master[i].block[k] = s->master[i].value[k] = block;
		}
	return 0;
}

static int make_snapshot(struct pst_shard *s, const struct pst_shard_options *o,
			 struct pst_error *err)
{
	uint64_t directory = align_up(sizeof(struct pst_snapshot_head), ALIGN);
	uint64_t first = align_up(directory + s->count * sizeof(*s->tensor), PAGE);
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "snapshots",
		.bytes = first + 2 * s->buffer_bytes,
		.node = o->node,
		.flags = o->pool_flags | PST_POOL_READERS,
	};
	int rc = make_pool(&po, &s->snapshot_pool, err);

	if (rc < 0)
		return rc;
	s->head = pst_pool_base(s->snapshot_pool);
	*s->head = (struct pst_snapshot_head){
		.magic = PST_SNAPSHOT_MAGIC,
		.tensors = s->count,
		.directory = directory,
		.buffer = {first, first + s->buffer_bytes},
		.buffer_bytes = s->buffer_bytes,
		.current = PST_VERSION_NONE,
		.held = {PST_VERSION_NONE, PST_VERSION_NONE},
	};
	memcpy((char *)s->head + directory, s->tensor, s->count * sizeof(*s->tensor));
	return 0;
}

int pst_shard_create(const struct pst_shard_options *o, struct pst_shard **out,
		     struct pst_error *err)
{
	struct pst_shard *s = calloc(1, sizeof(*s));
	int rc = -ENOMEM;

	if (!s)
		return pst_fail(err, rc, "no memory for a shard");
	s->device = o->device;
	s->count = o->count;
	s->shard = o->shard;
	s->shards = o->shards;
	s->version = PST_VERSION_NONE;
	s->tensor = calloc(o->count, sizeof(*s->tensor));
	s->master = calloc(o->count, sizeof(*s->master));
	s->first = calloc(o->count + 1, sizeof(*s->first));
	if (!s->tensor || !s->master || !s->first)
		pst_fail(err, rc, "no memory for %zu tensors", o->count);
	else
		rc = copy_directory(s, o->tensors, err);
	if (!rc)
		rc = make_masters(s, o, err);
	if (!rc)
		rc = make_snapshot(s, o, err);
	if (rc) {
		pst_shard_destroy(s);
		return rc;
	}
	*out = s;
	return 0;
}

void pst_shard_destroy(struct pst_shard *s)
{
	if (!s)
		return;
	pst_pool_destroy(s->snapshot_pool);
	pst_pool_destroy(s->masters_pool);
	free(s->first);
	free(s->master);
	free(s->tensor);
	free(s);
}

/* Publishing: the buffer is marked as nobody's while it is written */

static float *buffer_of(struct pst_shard *s, uint64_t version)
{
	return (float *)((char *)s->head + s->head->buffer[version & 1]);
}

static float *published(struct pst_shard *s, uint64_t version, size_t i)
{
	return buffer_of(s, version) + s->tensor[i].offset / sizeof(float);
}

static void publish_begin(struct pst_shard *s, uint64_t version)
{
	__atomic_store_n(&s->head->held[version & 1], PST_VERSION_NONE, __ATOMIC_SEQ_CST);
	atomic_thread_fence(memory_order_seq_cst);
}

static void publish_end(struct pst_shard *s, uint64_t version)
{
	__atomic_store_n(&s->head->held[version & 1], version, __ATOMIC_RELEASE);
	__atomic_store_n(&s->head->current, version, __ATOMIC_RELEASE);
	s->version = version;
}

static void publish_piece(struct pst_shard *s, size_t i, uint64_t from, uint64_t n, void *ctx)
{
	uint64_t version = *(uint64_t *)ctx;

	memcpy(published(s, version, i) + from, s->master[i].value[0] + from, n * sizeof(float));
}

void pst_shard_publish(struct pst_shard *s, uint64_t version)
{
	publish_begin(s, version);
	pst_shard_pieces(s, publish_piece, &version);
	publish_end(s, version);
}

/* First values */

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t stream_of(uint64_t seed, const char *name)
{
	uint64_t h = 0xcbf29ce484222325ull ^ mix(seed); /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3ull;
	return mix(h);
}

/* Element @k of a stream of normal numbers (Box-Muller over a counter). */
static float normal_at(uint64_t stream, uint64_t k)
{
	uint64_t a = mix(stream + (2 * (k / 2) + 1) * 0x9e3779b97f4a7c15ull);
	uint64_t b = mix(stream + (2 * (k / 2) + 2) * 0x9e3779b97f4a7c15ull);
	double u = ((double)(a >> 11) + 1) * 0x1p-53; /* (0, 1] */
	double angle = 2 * M_PI * (double)(b >> 11) * 0x1p-53;
	double radius = sqrt(-2 * log(u));

	return (float)(radius * (k & 1 ? sin(angle) : cos(angle)));
}

static void init_piece(struct pst_shard *s, size_t i, uint64_t from, uint64_t n, void *ctx)
{
	const struct pst_wire_tensor *t = &s->tensor[i];
	uint64_t stream = stream_of(*(uint64_t *)ctx, t->name);
	float *w = s->master[i].value[0];

	for (uint64_t k = from; k < from + n; k++)
		w[k] = t->init == PST_INIT_NORMAL ? (float)t->init_std * normal_at(stream, k)
						  : t->init == PST_INIT_ONE;
	for (int k = 1; k < pst_shard_values(s, i); k++)
		memset(s->master[i].value[k] + from, 0, n * sizeof(float));
}

int pst_shard_init(struct pst_shard *s, uint64_t seed, struct pst_error *err)
{
	if (s->version != PST_VERSION_NONE)
		return pst_fail(err, -EBUSY, "the table has values already");
	pst_shard_pieces(s, init_piece, &seed);
	pst_shard_publish(s, 0);
	return 0;
}

/* A step */

static const float *grad_of(const struct pst_shard *s, const float *grads, size_t i)
{
	return grads + s->tensor[i].offset / sizeof(float);
}

struct norms {
	struct pst_shard *shard;
	const uint8_t *mask;
	const float *grads;
	double *norms;
};

static void norm_one(void *ctx, size_t i)
{
	struct norms *n = ctx;
	struct pst_shard *s = n->shard;
	double sum = 0;

	if (n->mask[i] && !(s->tensor[i].flags & PST_TENSOR_LOAD))
		for (uint64_t from = 0; from < s->master[i].count; from += PIECE) {
			uint64_t left = s->master[i].count - from;

			sum += pst_device_ops(s->device)->sumsq(grad_of(s, n->grads, i) + from,
								left < PIECE ? left : PIECE);
		}
	n->norms[i] = sum;
}

void pst_shard_norms(struct pst_shard *s, const uint8_t *mask, const float *grads, double *norms)
{
	struct norms n = {s, mask, grads, norms};

	pst_device_for(s->device, s->count, norm_one, &n);
}

struct step {
	const uint8_t *mask;
	const float *grads;
	const struct pst_msg_apply *apply;
	float bc1, bc2;
};

static void load_bias(struct pst_shard *s, size_t i, uint64_t from, uint64_t n,
		      const struct step *step)
{
	float *w = s->master[i].value[0], *out = published(s, s->version + 1, i);
	const float *g = grad_of(s, step->grads, i);
	float rate = step->mask[i] ? (float)step->apply->bias_rate : 0;

	for (uint64_t k = from; k < from + n; k++)
		out[k] = w[k] = rate > 0 ? w[k] - rate * g[k] : w[k];
}

static void step_piece(struct pst_shard *s, size_t i, uint64_t from, uint64_t n, void *ctx)
{
	const struct step *step = ctx;
	const struct pst_msg_apply *a = step->apply;
	float *const *value = s->master[i].value;

	if (s->tensor[i].flags & PST_TENSOR_LOAD) {
		load_bias(s, i, from, n, step);
		return;
	}
	pst_device_ops(s->device)->adamw(
		value[0] + from, value[1] + from, value[2] + from,
		published(s, s->version + 1, i) + from,
		step->mask[i] ? grad_of(s, step->grads, i) + from : NULL, n, (float)a->lr,
		(float)a->beta1, (float)a->beta2, (float)a->eps,
		s->tensor[i].flags & PST_TENSOR_DECAY ? (float)a->weight_decay : 0, step->bc1,
		step->bc2, (float)a->grad_scale);
}

static bool numbers_sane(const struct pst_msg_apply *a)
{
	return isfinite(a->lr) && a->beta1 >= 0 && a->beta1 < 1 && a->beta2 >= 0 && a->beta2 < 1 &&
	       a->eps > 0 && isfinite(a->eps) && isfinite(a->weight_decay) &&
	       isfinite(a->grad_scale) && isfinite(a->bias_rate);
}

int pst_shard_apply(struct pst_shard *s, const uint8_t *mask, const float *grads,
		    const struct pst_msg_apply *a)
{
	double t = (double)(a->version + 1);
	struct step step = {mask, grads, a, (float)(1 - pow(a->beta1, t)),
			    (float)(1 - pow(a->beta2, t))};

	if (s->version == PST_VERSION_NONE || a->version != s->version)
		return -EINVAL;
	if (!numbers_sane(a))
		return -EDOM;
	publish_begin(s, s->version + 1);
	pst_shard_pieces(s, step_piece, &step);
	publish_end(s, s->version + 1);
	return 0;
}

size_t pst_shard_count(const struct pst_shard *s)
{
	return s->count;
}

uint64_t pst_shard_version(const struct pst_shard *s)
{
	return s->version;
}

uint64_t pst_shard_buffer_bytes(const struct pst_shard *s)
{
	return s->buffer_bytes;
}

struct pst_pool *pst_shard_snapshot(const struct pst_shard *s)
{
	return s->snapshot_pool;
}

struct pst_pool *pst_shard_masters(const struct pst_shard *s)
{
	return s->masters_pool;
}

uint64_t pst_shard_tensor_bytes(const struct pst_shard *s, size_t i)
{
	return s->tensor[i].bytes;
}

uint64_t pst_shard_tensor_offset(const struct pst_shard *s, size_t i)
{
	return s->tensor[i].offset;
}
