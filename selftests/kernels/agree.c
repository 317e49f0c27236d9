/* SPDX-License-Identifier: Apache-2.0 */
/* The vector kernels against ref, and the check itself against kernels that are wrong. */
#include "selftests/lib/test.h"

#include "kernels/image.h"
#include "kernels/table.h"
#include "kernels/trial.h"

#include <setjmp.h>

static const uint64_t seed = 20241;
static const struct pst_agree_shape some[] = {{9, 43, 7}, {31, 8, 3}};

/* The table of this CPU, where it is another than ref. */
static const struct pst_ops *vector_ops(void)
{
	const struct pst_ops *ops = pst_ops_cpu();

	if (!strcmp(ops->kernels, "ref"))
		SKIP("this CPU has no AVX2, or PENSTOCK_KERNELS=ref is set",
		     "unset PENSTOCK_KERNELS on a CPU with AVX2 and FMA");
	return ops;
}

static int try_op(const struct pst_ops *ops, enum pst_op op, struct pst_agree_result *res)
{
	return pst_agree_op(ops, op, pst_agree_shapes, pst_agree_nshapes, seed, 0, res);
}

TEST(every_kernel_of_this_cpu_agrees_with_ref)
{
	struct pst_agree_result res[PST_OP_COUNT];
	const struct pst_ops *ops = vector_ops();

	EXPECT_EQ(0, pst_agree_table(ops, pst_agree_shapes, pst_agree_nshapes, seed, res));
	for (int op = 0; op < PST_OP_COUNT; op++) {
		EXPECT_STREQ("", res[op].text);
		printf("# %s %.2g\n", pst_op_name((enum pst_op)op), res[op].error);
	}
}

TEST(other_seeds_agree_too)
{
	struct pst_agree_result res[PST_OP_COUNT];
	const struct pst_ops *ops = vector_ops();

	for (uint64_t s = 1; s <= 20; s++) {
		EXPECT_EQ(0, pst_agree_table(ops, some, 2, s, res));
		for (int op = 0; op < PST_OP_COUNT; op++)
			EXPECT_STREQ("", res[op].text);
	}
}

TEST(rows_longer_than_any_block_agree)
{
	static const struct pst_agree_shape row = {2, 33003, 2};
	static const enum pst_op ops[] = {PST_OP_rmsnorm,    PST_OP_rmsnorm_dx, PST_OP_xent,
					  PST_OP_combine_dw, PST_OP_sumsq,	PST_OP_gate_topk};
	struct pst_agree_result res = {0};
	const struct pst_ops *cpu = vector_ops();

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		EXPECT_EQ(0, pst_agree_op(cpu, ops[i], &row, 1, seed, 0, &res));
		EXPECT_STREQ("", res.text);
	}
}

TEST(ref_agrees_with_itself_exactly)
{
	struct pst_agree_result res[PST_OP_COUNT];

	EXPECT_EQ(0, pst_agree_table(pst_ops_ref(), some, 2, seed, res));
	for (int op = 0; op < PST_OP_COUNT; op++)
		EXPECT_TRUE(res[op].error == 0);
}

TEST(a_seed_gives_the_same_trial_again)
{
	static const struct pst_agree_shape shape = {9, 43, 7};
	struct pst_agree_result a = {0}, b = {0}, c = {0};
	const struct pst_ops *ops = vector_ops();

	EXPECT_EQ(0, pst_agree_op(ops, PST_OP_swiglu, &shape, 1, 1, 0, &a));
	EXPECT_EQ(0, pst_agree_op(ops, PST_OP_swiglu, &shape, 1, 1, 0, &b));
	EXPECT_EQ(0, pst_agree_op(ops, PST_OP_swiglu, &shape, 1, 2, 0, &c));
	EXPECT_TRUE(a.error > 0 && a.error == b.error && a.error != c.error);
}

TEST(a_missing_kernel_and_a_missing_op_are_told_apart)
{
	static const struct pst_ops none = {.kernels = "none"};
	struct pst_agree_result res = {.error = 7};

	EXPECT_EQ(-ENOSYS, try_op(&none, PST_OP_add, &res));
	EXPECT_EQ(-EINVAL, try_op(&none, PST_OP_COUNT, &res));
	EXPECT_TRUE(res.error == 7);
	EXPECT_TRUE(!pst_op_name(PST_OP_COUNT));
	EXPECT_STREQ("gemm", pst_op_name(PST_OP_gemm));
}

TEST(the_callers_gate_is_used)
{
	const struct pst_ops *ops = vector_ops();
	struct pst_agree_result res;

	EXPECT_EQ(-EDOM, pst_agree_op(ops, PST_OP_swiglu, pst_agree_shapes, pst_agree_nshapes, seed,
				      1e-12, &res));
	EXPECT_TRUE(strstr(res.text, "relative error"));
}

/* Kernels that are wrong, each in its own way. */
static void add_wrong(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i] * (i == 32 ? 1.01f : 1);
}

static void add_past_the_end(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
	y[n] = 0;
}

static void add_before_the_start(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
	y[-1] = 0;
}

static void add_to_both(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
	if (n)
		((float *)(uintptr_t)x)[n - 1] = y[n - 1];
}

static void add_reads_on(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
	if (n)
		y[n - 1] += x[n] * 0;
}

static void add_by_address(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
	if (n > 64 && (uintptr_t)y % 16 > 8)
		y[0] *= 1.0000001f;
}

static void add_trusting(float *y, const float *x, size_t n)
{
	pst_ops_ref()->add(y, x, n);
	/* A large or odd number taken for an index */
	if (n && !(y[0] * y[0] < 1e10f))
		y[n + 1] = 0;
}

static void check_bad_add(pst_add_fn *add, const char *says)
{
	struct pst_ops ops = *pst_ops_ref();
	struct pst_agree_result res = {0};

	ops.add = add;
	EXPECT_EQ(-EDOM, try_op(&ops, PST_OP_add, &res));
	EXPECT_TRUE(strstr(res.text, says));
	EXPECT_TRUE(strstr(res.text, "add: ") == res.text);
	printf("# %s\n", res.text);
}

TEST(a_wrong_result_is_seen)
{
	check_bad_add(add_wrong, "relative error");
}

TEST(a_write_around_the_output_is_seen)
{
	check_bad_add(add_past_the_end, "beside the rows of an output");
	check_bad_add(add_before_the_start, "beside the rows of an output");
}

TEST(a_write_to_an_input_is_seen)
{
	check_bad_add(add_to_both, "writes to an input");
}

TEST(a_read_around_an_input_is_seen)
{
	check_bad_add(add_reads_on, "relative error");
}

TEST(bits_that_depend_on_the_address_are_seen)
{
	check_bad_add(add_by_address, "other bits");
}

TEST(a_write_led_astray_by_nan_is_seen)
{
	check_bad_add(add_trusting, "NaN and infinities");
}

/* Between the rows, which only an op with a distance of rows has. */
static void rope_whole_rows(float *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos,
			    const float *cos_t, const float *sin_t, int inverse)
{
	pst_ops_ref()->rope(x, ldx, rows, dim, pos, cos_t, sin_t, inverse);
	for (size_t r = 0; r + 1 < rows; r++)
		x[r * ldx + dim] = 0;
}

static void gate_twice_the_same(int32_t *idx, float *w, float *score, const float *logit,
				const float *bias, size_t rows, size_t e, size_t k, size_t n_group,
				size_t topk_group, int norm, float scale)
{
	pst_ops_ref()->gate_topk(idx, w, score, logit, bias, rows, e, k, n_group, topk_group, norm,
				 scale);
	if (rows && k > 1)
		idx[1] = idx[0];
}

/* Takes the first k, whatever their scores. */
static void gate_first(int32_t *idx, float *w, float *score, const float *logit, const float *bias,
		       size_t rows, size_t e, size_t k, size_t n_group, size_t topk_group, int norm,
		       float scale)
{
	pst_ops_ref()->gate_topk(idx, w, score, logit, bias, rows, e, k, n_group, topk_group, norm,
				 scale);
	for (size_t i = 0; i < rows * k; i++)
		idx[i] = (int32_t)(i % k);
}

TEST(a_write_between_rows_is_seen)
{
	struct pst_ops ops = *pst_ops_ref();
	struct pst_agree_result res = {0};

	ops.rope = rope_whole_rows;
	EXPECT_EQ(-EDOM, try_op(&ops, PST_OP_rope, &res));
	EXPECT_TRUE(strstr(res.text, "beside the rows of an output"));
}

TEST(a_wrong_choice_of_experts_is_seen)
{
	struct pst_ops ops = *pst_ops_ref();
	struct pst_agree_result res = {0};

	ops.gate_topk = gate_twice_the_same;
	EXPECT_EQ(-EDOM, try_op(&ops, PST_OP_gate_topk, &res));
	EXPECT_TRUE(strstr(res.text, "distinct"));
	ops.gate_topk = gate_first;
	EXPECT_EQ(-EDOM, try_op(&ops, PST_OP_gate_topk, &res));
	EXPECT_TRUE(strstr(res.text, "relative error"));
}

TEST(a_table_goes_on_after_a_kernel_that_disagrees)
{
	struct pst_agree_result res[PST_OP_COUNT];
	struct pst_ops ops = *pst_ops_ref();

	ops.add = add_wrong;
	ops.gemm = NULL;
	EXPECT_EQ(-EDOM, pst_agree_table(&ops, some, 2, seed, res));
	for (int op = 0; op < PST_OP_COUNT; op++)
		EXPECT_EQ(op == PST_OP_add, res[op].text[0] != 0);
}

/* What reaches around a buffer dies of it, and a handler is told whose that was. */
static sigjmp_buf back;
static struct pst_agree_result stray;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	siglongjmp(back, pst_agree_stray(info->si_addr, &stray) ? 1 : sig);
}

static void guarded_add(pst_add_fn *add, const char *says)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct pst_ops ops = *pst_ops_ref();
	struct pst_agree_result res = {0};

	ops.add = add;
	sigaction(SIGSEGV, &sa, NULL);
	switch (sigsetjmp(back, 1)) {
	case 0:
		EXPECT_EQ(0, pst_agree_guarded(&ops, PST_OP_add, some, seed, &res));
		EXPECT_STREQ("", says);
		break;
	case 1:
		printf("# %s\n", stray.text);
		EXPECT_TRUE(strstr(stray.text, says) && *says);
		break;
	default:
		EXPECT_STREQ("", "a fault elsewhere");
	}
}

/* Reads that change nothing: no fence of bytes can see them. */
static volatile float sink;

static void add_looks_ahead(float *y, const float *x, size_t n)
{
	pst_ops_ref()->add(y, x, n);
	sink = x[n];
}

static void add_looks_back(float *y, const float *x, size_t n)
{
	pst_ops_ref()->add(y, x, n);
	sink = x[-1];
}

static int *volatile nowhere = (int *)64;

static void add_crashes(float *y, const float *x, size_t n)
{
	pst_ops_ref()->add(y, x, n);
	*nowhere = 1;
}

TEST(a_guard_sees_who_only_looks)
{
	guarded_add(pst_ops_ref()->add, "");
	guarded_add(add_looks_ahead, "add: reaches 1 bytes behind an input (m 9, n 43, k 7");
	guarded_add(add_looks_back, "add: reaches 4 bytes before an input");
	guarded_add(add_past_the_end, "add: reaches 1 bytes behind an output");
}

TEST(a_fault_elsewhere_is_no_stray)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct pst_ops ops = *pst_ops_ref();
	struct pst_agree_result res = {0};
	int far = 0;

	EXPECT_FALSE(pst_agree_stray(&far, &res));
	ops.add = add_crashes;
	sigaction(SIGSEGV, &sa, NULL);
	if (!sigsetjmp(back, 1))
		pst_agree_guarded(&ops, PST_OP_add, some, seed, &res);
	else
		far = 1;
	EXPECT_EQ(1, far);
	EXPECT_STREQ("", stray.text);
}

/* No kernel of ours reaches around its buffers. */
TEST(every_kernel_of_this_cpu_stays_inside)
{
	struct pst_agree_result res;

	for (int op = 0; op < PST_OP_COUNT; op++)
		for (size_t i = 0; i < pst_agree_nshapes; i++) {
			int rc = pst_agree_guarded(pst_ops_cpu(), (enum pst_op)op,
						   pst_agree_shapes + i, seed, &res);

			EXPECT_EQ(0, rc);
			EXPECT_STREQ("", rc ? res.text : "");
		}
}

static void add_thrice(float *y, const float *x, size_t n)
{
	for (int i = 0; i < 3; i++)
		pst_ops_ref()->add(y, x, n);
}

/* How slow is a matter of the machine; that three calls take more time than one is not. */
TEST(a_slower_kernel_is_seen)
{
	struct pst_ops ops = *pst_ops_ref();
	double same = 0, slow = 0;

	ops.add = add_thrice;
	for (size_t i = 0; i < pst_agree_nspeed_shapes; i++) {
		const struct pst_agree_shape *shape = pst_agree_speed_shapes + i;

		EXPECT_EQ(0, pst_agree_speed(pst_ops_ref(), pst_ops_ref(), PST_OP_add, shape, seed,
					     &same));
		EXPECT_EQ(0, pst_agree_speed(&ops, pst_ops_ref(), PST_OP_add, shape, seed, &slow));
		EXPECT_TRUE(slow > same);
		printf("# same %.3f, three times %.3f\n", same, slow);
	}
}

TEST(every_op_can_be_timed)
{
	const struct pst_ops *ops = pst_ops_cpu();
	double ratio;

	for (int op = 0; op < PST_OP_COUNT; op++) {
		ratio = 0;
		EXPECT_EQ(0, pst_agree_speed(ops, ops, (enum pst_op)op, pst_agree_speed_shapes,
					     seed, &ratio));
		EXPECT_TRUE(ratio > 0);
	}
	EXPECT_EQ(-EINVAL, pst_agree_speed(ops, ops, PST_OP_COUNT, some, seed, &ratio));
	EXPECT_EQ(-ENOSYS,
		  pst_agree_speed(&(struct pst_ops){0}, ops, PST_OP_add, some, seed, &ratio));
}

TEST(ops_are_found_by_name_and_number)
{
	struct pst_ops ops = *pst_ops_ref();

	EXPECT_EQ(PST_OP_rope, (int)pst_op_find("rope"));
	EXPECT_EQ(PST_OP_COUNT, (int)pst_op_find("ropes"));
	EXPECT_EQ(PST_OP_COUNT, (int)pst_op_find(""));
	EXPECT_STREQ("void (float *y, const float *x, size_t n)", pst_op_signature(PST_OP_add));
	EXPECT_STREQ("double (const float *x, size_t n)", pst_op_signature(PST_OP_sumsq));
	EXPECT_TRUE(!pst_op_signature(PST_OP_COUNT) && !pst_op_abi(PST_OP_COUNT));
	for (int a = 0; a < PST_OP_COUNT; a++)
		for (int b = 0; b < a; b++)
			EXPECT_NE(pst_op_abi((enum pst_op)a), pst_op_abi((enum pst_op)b));
	pst_ops_put(&ops, PST_OP_add, (pst_any_fn *)add_wrong);
	EXPECT_TRUE(ops.add == add_wrong);
	EXPECT_TRUE(pst_ops_get(&ops, PST_OP_add) == (pst_any_fn *)add_wrong);
	EXPECT_TRUE(!pst_ops_get(&ops, PST_OP_COUNT));
}

/* Signed manifests say it, so it must not change with a compiler. */
TEST(an_abi_is_the_same_everywhere)
{
	EXPECT_EQ(8761574940391834669ll, (long long)pst_op_abi(PST_OP_add));
}

TEST(ref_can_be_asked_for)
{
	setenv("PENSTOCK_KERNELS", "ref", 1);
	EXPECT_TRUE(pst_ops_cpu() == pst_ops_ref());
	unsetenv("PENSTOCK_KERNELS");
	/* and the choice is made once */
	EXPECT_TRUE(pst_ops_cpu() == pst_ops_ref());
}

TEST(anything_else_asked_for_is_the_best)
{
	const char *best = vector_ops()->kernels;

	EXPECT_STREQ("avx2", best);
}

#define EVERY_OP(name, ret, args) EXPECT_TRUE(ops->name != NULL);
TEST(no_op_is_missing)
{
	const struct pst_ops *ops = pst_ops_ref();

	PST_OPS(EVERY_OP, float)
	ops = pst_ops_cpu();
	PST_OPS(EVERY_OP, float)
}

/* FNV-1a over what the kernel of @op makes of one trial. */
static uint64_t bits_of(const struct pst_ops *ops, int op, uint64_t h)
{
	char text[1];
	struct trial t = {.ops = ops, .m = 9, .n = 43, .k = 7, .rng = seed, .text = text};

	pst_op_trials[op].run(&t);
	EXPECT_EQ(0, t.rc);
	for (int i = 0; i < t.nbuffers; i++) {
		const struct buffer *b = t.buffer + i;

		for (size_t j = 0; b->copy == KERNEL && j < b->bytes; j++)
			h = (h ^ b->base[j]) * 0x100000001b3ull;
		free(b->base);
	}
	return h;
}

/* The digest was taken with gcc 12 and with clang 14; gemm and attn have theirs elsewhere. */
TEST(every_compiler_gives_these_bits)
{
	const struct pst_ops *ops = vector_ops();
	uint64_t h = 0xcbf29ce484222325ull;

	for (int op = 0; op < PST_OP_COUNT; op++)
		if (op != PST_OP_gemm && op != PST_OP_gemm_bf16 && op != PST_OP_attn &&
		    op != PST_OP_attn_bwd)
			h = bits_of(ops, op, h);
	EXPECT_EQ(5971710527047164126ll, (long long)h);
}

/* What a caller cuts among threads has the bits of the whole. */
enum { N = 203, CUT = 77, ROWS = 5 };
static float in1[ROWS * N], in2[ROWS * N], whole[4][ROWS * N], cut[4][ROWS * N];

static void fill_all(void)
{
	uint64_t state = seed;

	for (size_t i = 0; i < ROWS * N; i++) {
		in1[i] = (float)(test_random(&state) >> 40) * 0x1p-22f - 2;
		in2[i] = (float)(test_random(&state) >> 40) * 0x1p-22f - 2;
		for (int j = 0; j < 4; j++)
			whole[j][i] = cut[j][i] = (float)(test_random(&state) >> 40) * 0x1p-24f;
	}
}

static void expect_same(void)
{
	EXPECT_EQ(0, memcmp(whole, cut, sizeof(whole)));
}

TEST(swiglu_may_be_cut_anywhere)
{
	const struct pst_ops *o = vector_ops();

	fill_all();
	o->swiglu(whole[0], in1, in2, N);
	o->swiglu(cut[0], in1, in2, CUT);
	o->swiglu(cut[0] + CUT, in1 + CUT, in2 + CUT, N - CUT);
	expect_same();
	o->swiglu_bwd(whole[0], whole[1], whole[2], whole[3], in1, in2, N);
	o->swiglu_bwd(cut[0], cut[1], cut[2], cut[3], in1, in2, CUT);
	o->swiglu_bwd(cut[0] + CUT, cut[1] + CUT, cut[2] + CUT, cut[3] + CUT, in1 + CUT, in2 + CUT,
		      N - CUT);
	expect_same();
}

static void adamw_part(const struct pst_ops *o, float a[4][ROWS * N], size_t from, size_t n)
{
	o->adamw(a[0] + from, a[1] + from, a[2] + from, a[3] + from, in1 + from, n, .5f, .9f, .95f,
		 1e-8f, .7f, .1f, .05f, .3f);
}

TEST(adamw_may_be_cut_anywhere_and_has_the_bits_of_ref)
{
	const struct pst_ops *o = vector_ops();

	fill_all();
	adamw_part(o, whole, 0, N);
	adamw_part(o, cut, 0, CUT);
	adamw_part(pst_ops_ref(), cut, CUT, N - CUT);
	expect_same();
}

TEST(columns_may_be_cut_anywhere)
{
	static const int32_t id[ROWS] = {1, 0, 1, 3, 1};
	const struct pst_ops *o = vector_ops();

	fill_all();
	o->rmsnorm_dw(whole[0], in1, N, in2, N, in1, ROWS, N);
	o->rmsnorm_dw(cut[0], in1, N, in2, N, in1, ROWS, CUT);
	o->rmsnorm_dw(cut[0] + CUT, in1 + CUT, N, in2 + CUT, N, in1, ROWS, N - CUT);
	o->embed_bwd(whole[1], N, in1, N, id, ROWS, 4, N);
	o->embed_bwd(cut[1], N, in1, N, id, ROWS, 4, CUT);
	o->embed_bwd(cut[1] + CUT, N, in1 + CUT, N, id, ROWS, 4, N - CUT);
	expect_same();
}

TEST(rows_may_be_cut_anywhere)
{
	static const int32_t id[ROWS] = {1, 0, 1, 3, 1};
	const struct pst_ops *o = vector_ops();

	fill_all();
	o->rmsnorm(whole[0], N, whole[1], in1, N, in2, ROWS, N, 1e-6f);
	o->rmsnorm(cut[0], N, cut[1], in1, N, in2, 2, N, 1e-6f);
	o->rmsnorm(cut[0] + 2 * N, N, cut[1] + 2, in1 + 2 * N, N, in2, ROWS - 2, N, 1e-6f);
	o->xent(whole[2], whole[3], N, id, ROWS, N, 1);
	o->xent(cut[2], cut[3], N, id, 2, N, 1);
	o->xent(cut[2] + 2, cut[3] + 2 * N, N, id + 2, ROWS - 2, N, 1);
	expect_same();
}

TEST_MAIN
