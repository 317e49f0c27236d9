/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's kernels are swapped while it computes. */
#include "runtime/device/image.h"
#include "runtime/moe/worker_priv.h"
#include "selftests/control/images.h"
#include "selftests/moe/moe.h"

static const struct shape busy = {.experts = 8, .hidden = 64, .inter = 96, .tokens = 100};

/* What is built in is ref, so that images of ref are its equals to the bit. */
static void choose_ref(void)
{
	setenv("PENSTOCK_KERNELS", "ref", 1);
}

static void take(struct pst_worker *w, const char *op, const char *image)
{
	int fd = image ? open_image(image) : -1;
	struct pst_error err = {0};

	ASSERT_OK(pst_worker_take_kernel(w, op, fd, &err), &err);
	if (fd >= 0)
		close(fd);
}

/* Swaps */

struct binder {
	struct pst_worker *worker;
	atomic_bool end;
	atomic_uint swaps;
};

static void *swap(void *arg)
{
	static const struct {
		const char *op, *image;
	} turn[] = {{"swiglu", "good"}, {"gemm", "gemm"}, {"swiglu", "twin"},
		    {"swiglu", NULL},	{"gemm", NULL},	  {"swiglu", "twin"}};
	struct binder *b = arg;

	for (unsigned int i = 0; !atomic_load(&b->end); i = (i + 1) % 6) {
		take(b->worker, turn[i].op, turn[i].image);
		atomic_fetch_add(&b->swaps, 1);
	}
	return NULL;
}

TEST(hundred_swaps_under_load)
{
	struct binder b = {0};
	pthread_t thread;
	struct rig r;
	int steps = 0;

	choose_ref();
	rig_open(&r, busy, 1, 1, false, 30000);
	b.worker = r.workers.worker[0];
	ASSERT_EQ(0, pthread_create(&thread, NULL, swap, &b));
	for (; steps < 3 || atomic_load(&b.swaps) < 100; steps++)
		rig_step(&r, EVENLY, harm_none);
	atomic_store(&b.end, true);
	pthread_join(thread, NULL);
	printf("# %u swaps in %d steps\n", atomic_load(&b.swaps), steps);
	/* what was replaced is gone when a call has ended behind it */
	rig_step(&r, EVENLY, harm_none);
	EXPECT_EQ(1u, pst_device_tables(b.worker->device));
	rig_close(&r);
}

/* Who is in a call keeps its table, and the code that it points to. */
TEST(a_call_ends_with_what_it_began_with)
{
	const struct pst_ops *old;
	struct pst_worker *w;
	float y = 1, x = 1, u = 1;

	choose_ref();
	w = make_worker("shm://bind-test");
	take(w, "swiglu", "twin");
	pst_device_enter(w->device);
	old = pst_device_ops(w->device);
	for (int i = 0; i < 20; i++)
		take(w, "swiglu", i % 2 ? NULL : "good");
	EXPECT_EQ(21u, pst_device_tables(w->device));
	EXPECT_TRUE(pst_device_ops(w->device) != old);
	old->swiglu(&y, &x, &u, 1);
	EXPECT_TRUE(y > 0.73f && y < 0.74f);
	pst_device_leave(w->device);
	EXPECT_EQ(1u, pst_device_tables(w->device));
	pst_worker_destroy(w);
}

/* From the next call on. */
TEST(what_is_bound_computes)
{
	enum { H = 4, I = 8 };
	float gate[I * H], up[I * H], down[H * I], x[H], y[3][H], scratch[2 * I + 16];
	static const char *const image[3] = {NULL, "late_wrong", NULL};
	struct pst_worker *w;
	uint64_t seed = 3;

	choose_ref();
	w = make_worker("shm://bind-test");
	fill_floats(gate, I * H, &seed);
	fill_floats(up, I * H, &seed);
	fill_floats(down, H * I, &seed);
	fill_floats(x, H, &seed);
	for (int i = 0; i < 3; i++) {
		struct pst_mlp_job job = {.rows = 1,
					  .hidden = H,
					  .inter = I,
					  .gate = gate,
					  .up = up,
					  .down = down,
					  .x = x,
					  .y = y[i]};

		take(w, "swiglu", image[i]);
		pst_mlp_forward(w->device, &job, 1, scratch);
	}
	EXPECT_TRUE(same_bits(y[0], y[2], H));
	EXPECT_FALSE(same_bits(y[0], y[1], H));
	pst_worker_destroy(w);
}

/* Checks */

TEST(what_is_bound_is_held_against_ref)
{
	struct pst_error err = {0};
	struct pst_worker *w;
	double error = -1;

	choose_ref();
	w = make_worker("shm://bind-test");
	for (uint64_t seed = 0; seed < 20; seed++)
		ASSERT_OK(pst_worker_try_kernel(w, "swiglu", seed, &error, &err), &err);
	EXPECT_TRUE(error == 0);
	take(w, "swiglu", "late_wrong");
	EXPECT_EQ(-EDOM, pst_worker_try_kernel(w, "swiglu", 1, &error, &err));
	EXPECT_TRUE(error > 0.1);
	EXPECT_TRUE(strstr(err.text, "swiglu: the relative error against ref"));
	take(w, "swiglu", "good");
	err.code = 0;
	EXPECT_EQ(0, pst_worker_try_kernel(w, "swiglu", 1, &error, &err));
	EXPECT_EQ(-ENOENT, pst_worker_try_kernel(w, "swoglu", 1, &error, &err));
	pst_worker_destroy(w);
}

/* What workers compute with. */
TEST(every_builtin_kernel_passes)
{
	static const char *const ops[] = {"gemm", "swiglu", "swiglu_bwd"};
	struct pst_error err = {0};
	struct pst_worker *w = make_worker("shm://bind-test");
	double error;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		for (uint64_t seed = 1; seed < 4; seed++)
			EXPECT_EQ(0, pst_worker_try_kernel(w, ops[i], seed * 0x9e3779b97f4a7c15ull,
							   &error, &err));
	EXPECT_STREQ("", err.text);
	pst_worker_destroy(w);
}

/* Refusals: what served before does again. */

static void refuses(struct pst_worker *w, const char *op, int fd, int code, const char *says)
{
	const struct pst_ops *before = pst_device_ops(w->device);
	struct pst_error err = {0};

	EXPECT_EQ(code, pst_worker_take_kernel(w, op, fd, &err));
	printf("# %s\n", err.text);
	EXPECT_TRUE(strstr(err.text, says));
	EXPECT_TRUE(before == pst_device_ops(w->device));
	close(fd);
}

TEST(refused)
{
	struct pst_worker *w;
	int end[2];

	choose_ref();
	w = make_worker("shm://bind-test");
	refuses(w, "swoglu", open_image("good"), -ENOENT, "no op swoglu");
	refuses(w, "gemm", open_image("good"), -ENOEXEC, "is for op swiglu, not for gemm");
	refuses(w, "swiglu", open_image("abi"), -ENOEXEC, "another ABI");
	refuses(w, "swiglu", open_image("bare"), -ENOEXEC, "exports no");
	refuses(w, "swiglu", bytes_file("no", 2), -ENOEXEC, "no shared object");
	refuses(w, "swiglu", cut_image(open_image("good"), 4000), -ENOEXEC, "cut short");
	ASSERT_EQ(0, pipe(end));
	refuses(w, "swiglu", end[0], -ESPIPE, "cannot be read");
	pst_worker_destroy(w);
}

/* A file that is written to afterwards is no matter: a copy serves. */
TEST(an_image_cannot_change)
{
	struct pst_error err = {0};
	struct pst_worker *w;
	char zeros[4096] = {0};
	double error;
	int image, file;

	choose_ref();
	w = make_worker("shm://bind-test");
	image = open_image("good");
	file = cut_image(image, (size_t)lseek(image, 0, SEEK_END));
	ASSERT_OK(pst_worker_take_kernel(w, "swiglu", file, &err), &err);
	for (off_t at = 0; at < lseek(file, 0, SEEK_END); at += (off_t)sizeof(zeros))
		ASSERT_EQ((ssize_t)sizeof(zeros), pwrite(file, zeros, sizeof(zeros), at));
	EXPECT_EQ(0, pst_worker_try_kernel(w, "swiglu", 1, &error, &err));
	close(file);
	pst_worker_destroy(w);
}

TEST_MAIN
