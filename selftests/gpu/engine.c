/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ops over whole tensors on a GPU against the same on a CPU; on the stand-in, whose kernels are
 * ref. So this shows which kernels an op is, with which arguments, and nothing of a GPU's numbers.
 */
#include "selftests/gpu/engine.h"

#include "runtime/device/compute_gpu.h"
#include "runtime/mem/pool.h"

#include <math.h>
#include <sys/mman.h>

#define HOST (8ull << 20) /* bytes of each side */
#define MOST 16

static struct standin *standin;

/* The same calls are made on both sides: each takes its tensors from the one it is given. */
struct side {
	struct pst_compute *c;
	char *host;
	size_t used, outs;
	uint64_t seed;
	struct {
		float *at;
		const float *seen;
		size_t n;
		bool exact; /* integers */
	} out[MOST];
	void *block[64];
	size_t blocks;
};

FIXTURE(engine)
{
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	struct pst_compute *compute;
	struct pst_compute_cpu cores;
	struct pst_device *dev;
	char *host;
	struct side cpu, there;
};

FIXTURE_SETUP(engine)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	struct pst_error err = {0};

	standin = standin_gpu(256ull << 20);
	standin_engine_images();
	ASSERT_OK(pst_gpu_open(0, &o, &self->gpu, &err), &err);
	ASSERT_OK(pst_gpu_kernels_open(self->gpu, NULL, &self->kernels, &err), &err);
	ASSERT_OK(pst_compute_gpu_open(self->gpu, self->kernels, 30000, &self->compute, &err),
		  &err);
	ASSERT_OK(pst_device_open_cpu(PST_NODE_ANY, 2, &self->dev, &err), &err);
	pst_compute_cpu_init(&self->cores, self->dev);
	self->host =
		mmap(NULL, 2 * HOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->host);
	ASSERT_OK(self->compute->op->reach(self->compute, self->host, 2 * HOST, &err), &err);
	self->cpu = (struct side){.c = &self->cores.base, .host = self->host};
	self->there = (struct side){.c = self->compute, .host = self->host + HOST};
}

FIXTURE_TEARDOWN(engine)
{
	struct pst_error err = {0};

	for (size_t i = 0; i < self->there.blocks; i++)
		self->compute->op->free(self->compute, self->there.block[i]);
	self->compute->op->leave(self->compute, self->host);
	pst_compute_gpu_close(self->compute);
	pst_gpu_kernels_close(self->kernels);
	EXPECT_EQ(0, pst_gpu_close(self->gpu, &err));
	munmap(self->host, 2 * HOST);
	pst_device_close(self->dev);
	EXPECT_EQ(0ull, (unsigned long long)standin->pageable_copies);
	EXPECT_EQ(0u, (uint32_t)standin->events);
	EXPECT_EQ(0u, (uint32_t)standin->registered);
}

static void *on_host(struct side *s, size_t bytes)
{
	void *at = s->host + s->used;

	s->used += (bytes + 63) / 64 * 64;
	ASSERT_LE(s->used, (size_t)HOST);
	return at;
}

/* What is at @host, where ops find it. */
static void *bring(struct side *s, void *host, size_t bytes)
{
	struct pst_error err = {0};
	void *at;

	if (!s->c->apart)
		return host;
	ASSERT_LT(s->blocks, sizeof(s->block) / sizeof(*s->block));
	ASSERT_OK(s->c->op->alloc(s->c, bytes, &at, &err), &err);
	s->block[s->blocks++] = at;
	s->c->op->put(s->c, at, host, bytes);
	s->c->op->put_mark(s->c, 3);
	s->c->op->put_need(s->c, 3);
	return at;
}

static float *numbers(struct side *s, size_t n)
{
	float *at = on_host(s, n * sizeof(*at));

	for (size_t i = 0; i < n; i++)
		at[i] = (float)(test_random(&s->seed) >> 40) / (float)(1 << 23) - 1;
	return bring(s, at, n * sizeof(*at));
}

static int32_t *below(struct side *s, size_t n, int32_t limit, bool none)
{
	int32_t *at = on_host(s, n * sizeof(*at));

	for (size_t i = 0; i < n; i++)
		at[i] = none && i % 3 == 1 ? -1
					   : (int32_t)(test_random(&s->seed) % (uint64_t)limit);
	return bring(s, at, n * sizeof(*at));
}

/* A result: nothing is there at first, or what is to be added to. */
static float *watched(struct side *s, float *at, size_t n)
{
	ASSERT_LT(s->outs, (size_t)MOST);
	s->out[s->outs].at = at;
	s->out[s->outs++].n = n;
	return at;
}

static float *scratch(struct side *s, size_t n)
{
	float *at = on_host(s, n * sizeof(*at));

	for (size_t i = 0; i < n; i++)
		at[i] = NAN;
	return bring(s, at, n * sizeof(*at));
}

static float *result(struct side *s, size_t n)
{
	return watched(s, scratch(s, n), n);
}

static int32_t *indices(struct side *s, size_t n)
{
	float *at = result(s, n);

	s->out[s->outs - 1].exact = true;
	return (int32_t *)(void *)at;
}

static float *grown(struct side *s, size_t n)
{
	return watched(s, numbers(s, n), n);
}

static void see(struct side *s)
{
	for (size_t i = 0; i < s->outs; i++) {
		size_t bytes = s->out[i].n * sizeof(float);

		s->out[i].seen = s->c->op->fetch(s->c, on_host(s, bytes), s->out[i].at, bytes);
	}
	if (s->c->op->wait(s->c)) {
		printf("# %s\n", s->c->err.text);
		test_failed = true;
	}
}

static void compare(const struct side *a, const struct side *b)
{
	ASSERT_EQ(a->outs, b->outs);
	for (size_t i = 0; i < a->outs; i++) {
		double diff = 0, sum = 1e-30;

		for (size_t k = 0; k < a->out[i].n; k++) {
			double x = a->out[i].seen[k], y = b->out[i].seen[k];

			diff += (x - y) * (x - y);
			sum += x * x;
		}
		if (a->out[i].exact)
			diff = memcmp(a->out[i].seen, b->out[i].seen, a->out[i].n * 4) ? sum : 0;
		if (!(diff < 1e-10 * sum)) {
			printf("# result %zu of %zu: off by %g\n", i, a->outs, sqrt(diff / sum));
			test_failed = true;
		}
	}
}

typedef void calls_fn(struct side *s, int variant);

static void run(struct fixture_engine *self, calls_fn *calls, int variant)
{
	uint64_t before = standin->launches;

	calls(&self->cpu, variant);
	see(&self->cpu);
	EXPECT_EQ((uint64_t)standin->launches, before);
	calls(&self->there, variant);
	see(&self->there);
	EXPECT_GT((uint64_t)standin->launches, before);
	compare(&self->cpu, &self->there);
}

enum { ROWS = 37, IN = 24, OUT = 40 };

static void products(struct side *s, int acc)
{
	struct pst_linear l = {numbers(s, IN * OUT), IN, OUT};
	float *x = numbers(s, ROWS * 30), *dy = numbers(s, ROWS * 50);

	s->c->op->linear(s->c, l, ROWS, result(s, ROWS * OUT), OUT, x, 30);
	s->c->op->linear_dx(s->c, l, ROWS, acc ? grown(s, ROWS * IN) : result(s, ROWS * IN), IN, dy,
			    50, acc);
	s->c->op->linear_dw(s->c, l, ROWS, acc ? grown(s, IN * OUT) : result(s, IN * OUT), dy, 50,
			    x, 30, acc);
}

TEST_F(engine, linear)
{
	run(self, products, 0);
}

TEST_F(engine, linear_adds)
{
	run(self, products, 1);
}

static void norms(struct side *s, int with_sum)
{
	struct pst_norm n = {.w = numbers(s, IN),
			     .x = numbers(s, ROWS * 30),
			     .rstd = result(s, ROWS),
			     .ldx = 30,
			     .rows = ROWS,
			     .cols = IN,
			     .eps = 1e-6f};
	float *sum = with_sum ? grown(s, ROWS * IN) : NULL;

	s->c->op->norm(s->c, &n, result(s, ROWS * IN));
	s->c->op->norm_bwd(s->c, &n, result(s, ROWS * IN), IN, result(s, IN), sum,
			   numbers(s, ROWS * IN));
}

TEST_F(engine, norm)
{
	run(self, norms, 0);
}

TEST_F(engine, norm_adds)
{
	run(self, norms, 1);
}

static void rows(struct side *s, int unused)
{
	int32_t *id = below(s, ROWS, 11, false);
	float *y = grown(s, 1000);

	(void)unused;
	s->c->op->sum(s->c, y, y, numbers(s, 1000), 1000);
	s->c->op->sum(s->c, result(s, 999), numbers(s, 999), numbers(s, 999), 999);
	s->c->op->zero(s->c, result(s, 777), 777);
	s->c->op->embed(s->c, result(s, ROWS * IN), numbers(s, 11 * IN), id, ROWS, IN);
	s->c->op->embed_bwd(s->c, result(s, 11 * IN), numbers(s, ROWS * IN), id, ROWS, 11, IN);
}

TEST_F(engine, sums_and_rows)
{
	run(self, rows, 0);
}

static void network(struct side *s, int kept)
{
	struct pst_mlp_job j = {.rows = ROWS,
				.hidden = IN,
				.inter = OUT,
				.gate = numbers(s, IN * OUT),
				.up = numbers(s, IN * OUT),
				.down = numbers(s, IN * OUT),
				.x = numbers(s, ROWS * IN),
				.kept = kept ? scratch(s, 2 * ROWS * OUT) : NULL,
				.have_kept = kept,
				.y = result(s, ROWS * IN),
				.dy = numbers(s, ROWS * IN),
				.dx = result(s, ROWS * IN),
				.dgate = result(s, IN * OUT),
				.dup = result(s, IN * OUT),
				.ddown = result(s, IN * OUT)};
	float *room = scratch(s, 3 * ROWS * OUT);

	s->c->op->mlp(s->c, &j, room);
	s->c->op->mlp_bwd(s->c, &j, room);
}

TEST_F(engine, network)
{
	run(self, network, 0);
}

TEST_F(engine, network_that_keeps)
{
	run(self, network, 1);
}

/* So many rows that losses go in uneven pieces. */
static void losses(struct side *s, int unused)
{
	enum { MANY = 71, VOCAB = 50 };
	struct pst_xent x = {.rows = MANY,
			     .vocab = VOCAB,
			     .logit = grown(s, MANY * VOCAB),
			     .spare = scratch(s, pst_xent_spare(MANY) * VOCAB),
			     .target = below(s, MANY, VOCAB, true),
			     .loss = result(s, MANY)};

	(void)unused;
	s->c->op->loss(s->c, &x);
	/* the logits are as they were */
	s->c->op->sum(s->c, result(s, MANY * VOCAB), x.logit, x.logit, MANY * VOCAB);
	x.loss = scratch(s, MANY);
	s->c->op->loss_bwd(s->c, &x, 0.25f);
}

TEST_F(engine, losses)
{
	run(self, losses, 0);
}

static void gates(struct side *s, int balanced)
{
	enum { BATCH = 3, SEQ = 13, EXPERTS = 8, K = 2, ALL = BATCH * SEQ };
	struct pst_gate g = {.batch = BATCH,
			     .seq = SEQ,
			     .experts = EXPERTS,
			     .topk = K,
			     .n_group = 4,
			     .topk_group = 2,
			     .norm = true,
			     .scale = 2.5f,
			     .bias = numbers(s, EXPERTS),
			     .logit = grown(s, ALL * EXPERTS),
			     .expert = indices(s, ALL * K),
			     .weight = result(s, ALL * K),
			     .score = result(s, ALL * EXPERTS),
			     .coef = balanced ? result(s, BATCH * EXPERTS) : NULL};

	s->c->op->gate(s->c, &g);
	if (balanced)
		s->c->op->balance(s->c, &g, result(s, BATCH), 0.5f);
	s->c->op->gate_bwd(s->c, &g, numbers(s, ALL * K));
}

TEST_F(engine, gate)
{
	run(self, gates, 0);
}

TEST_F(engine, gate_that_balances)
{
	run(self, gates, 1);
}

enum { BATCH = 2, SEQ = 9, HEADS = 3, NOPE = 10, ROPE = 8, V = 6, LORA = 12, POSITIONS = 16 };

static struct pst_mla mla(struct side *s, size_t batch, size_t seq, bool interleave)
{
	size_t n = batch * seq;

	return (struct pst_mla){.batch = batch,
				.seq = seq,
				.heads = HEADS,
				.nope = NOPE,
				.rope = ROPE,
				.v = V,
				.lora = LORA,
				.interleave = interleave,
				.scale = 0.3f,
				.pos = below(s, n, POSITIONS, false),
				.cos_t = numbers(s, POSITIONS * ROPE / 2),
				.sin_t = numbers(s, POSITIONS * ROPE / 2),
				.q = grown(s, n * HEADS * (NOPE + ROPE)),
				.kva = grown(s, n * (LORA + ROPE)),
				.kv = numbers(s, n * HEADS * (NOPE + V)),
				.k = scratch(s, n * HEADS * (NOPE + ROPE)),
				.o = result(s, n * HEADS * V),
				.lse = result(s, n * HEADS)};
}

static void attention(struct side *s, int interleave)
{
	struct pst_mla a = mla(s, BATCH, SEQ, interleave);
	size_t n = BATCH * SEQ;
	struct pst_mla_grad g = {.dout = numbers(s, n * HEADS * V),
				 .dq = result(s, n * HEADS * (NOPE + ROPE)),
				 .dk = scratch(s, n * HEADS * (NOPE + ROPE)),
				 .dkv = result(s, n * HEADS * (NOPE + V)),
				 /* of the latent's columns norm_bwd has the gradient */
				 .dkva = grown(s, n * (LORA + ROPE)),
				 .delta = scratch(s, n * HEADS)};

	s->c->op->rotate(s->c, &a);
	s->c->op->attend(s->c, &a);
	s->c->op->attend_bwd(s->c, &a, &g);
}

TEST_F(engine, attention)
{
	run(self, attention, 1);
}

TEST_F(engine, attention_of_half_pairs)
{
	run(self, attention, 0);
}

static void cached(struct side *s, int before)
{
	size_t n = before ? 3 : 1;
	struct pst_mla a = mla(s, 1, n, true);
	struct pst_mla_cache cache = {.rows = grown(s, POSITIONS * (LORA + ROPE)),
				      .cached = (size_t)before,
				      .c = numbers(s, n * LORA),
				      .kv_b = numbers(s, HEADS * (NOPE + V) * LORA),
				      .absorbed = scratch(s, HEADS * n * (LORA + ROPE)),
				      .latent = scratch(s, HEADS * n * LORA)};

	s->c->op->rotate(s->c, &a);
	s->c->op->attend_cache(s->c, &a, &cache);
}

TEST_F(engine, first_of_a_cache)
{
	run(self, cached, 0);
}

TEST_F(engine, more_of_a_cache)
{
	run(self, cached, 7);
}

/* A gradient's place is used again when what was there has gone. */
TEST_F(engine, a_place_in_turn)
{
	enum { TIMES = 20, N = 64 };
	struct side *s = &self->there;
	float *to = on_host(s, TIMES * N * sizeof(float)), *place = numbers(s, N);
	float *other = scratch(s, N);

	standin->delay_us = 300;
	for (int i = 0; i < TIMES; i++) {
		if (i)
			s->c->op->fetch_need(s->c, 0);
		/* it takes a while until the place has what is to be fetched */
		for (int k = 0; k < 4; k++)
			s->c->op->zero(s->c, other, N);
		s->c->op->sum(s->c, place, place, place, N);
		s->c->op->fetch(s->c, to + i * N, place, N * sizeof(float));
		s->c->op->fetch_mark(s->c, 0);
	}
	ASSERT_EQ(0, s->c->op->wait(s->c));
	standin->delay_us = 0;
	for (int i = N; i < TIMES * N; i++)
		ASSERT_TRUE(to[i] == 2 * to[i - N]);
}

/* More than a batch holds, there and back, each to another place. */
TEST_F(engine, many_copies)
{
	enum { PIECES = 1200, N = 16 };
	struct side *s = &self->there;
	float *there = scratch(s, PIECES * N), *from = on_host(s, PIECES * N * sizeof(float));
	float *to = on_host(s, PIECES * N * sizeof(float));

	for (int i = 0; i < PIECES * N; i++)
		from[i] = (float)i;
	for (int i = 0; i < PIECES; i++)
		s->c->op->put(s->c, there + i * N, from + (PIECES - 1 - i) * N, N * sizeof(float));
	s->c->op->put_mark(s->c, 9);
	s->c->op->put_need(s->c, 9);
	for (int i = 0; i < PIECES; i++)
		s->c->op->fetch(s->c, to + (PIECES - 1 - i) * N, there + i * N, N * sizeof(float));
	ASSERT_EQ(0, s->c->op->wait(s->c));
	EXPECT_EQ(0, memcmp(from, to, PIECES * N * sizeof(float)));
}

/* The first failure is the one that is told, and nothing is done after it. */
TEST_F(engine, first_failure)
{
	struct side *s = &self->there;
	float *x = numbers(s, 64), *to = on_host(s, sizeof(float));
	uint64_t launches;
	float outside[64];

	standin->delay_us = 2000;
	*to = NAN;
	s->c->op->fetch(s->c, to, x, sizeof(*to));
	s->c->op->fetch_mark(s->c, 0);
	s->c->op->put(s->c, x, outside, sizeof(outside));
	EXPECT_EQ(-EFAULT, s->c->op->wait(s->c));
	standin->delay_us = 0;
	/* what was under way is done: its memory is the caller's again */
	EXPECT_TRUE(!isnan(*to));
	EXPECT_NE(NULL, strstr(s->c->err.text, "registered"));
	launches = standin->launches;
	s->c->op->sum(s->c, x, x, x, 64);
	s->c->op->put(s->c, x, NULL, 64);
	EXPECT_EQ(-EFAULT, s->c->op->wait(s->c));
	EXPECT_NE(NULL, strstr(s->c->err.text, "registered"));
	EXPECT_EQ(launches, (uint64_t)standin->launches);
}

/* Without its images there is no compute, and the sentence says which is missing. */
TEST_F(engine, no_images)
{
	struct pst_gpu_kernels *kernels;
	struct pst_compute *c = NULL;
	struct pst_error err = {0};

	ASSERT_OK(pst_gpu_kernels_open(self->gpu, "/nonexistent", &kernels, &err), &err);
	EXPECT_EQ(-ENOENT, pst_compute_gpu_open(self->gpu, kernels, 1000, &c, &err));
	EXPECT_NE(NULL, strstr(err.text, "/nonexistent/"));
	EXPECT_EQ(NULL, (void *)c);
	pst_gpu_kernels_close(kernels);
}

TEST_MAIN
