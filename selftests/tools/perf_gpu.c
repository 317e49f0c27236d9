/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-perf h2d and doorbell on the stand-in for the GPU: all of them but the numbers. */
#include "selftests/gpu/standin.h"
#include "selftests/tools/program.h"

#include <limits.h>

#define MIB (1ull << 20)

static struct standin *s;

static void use_standin(uint32_t ngpus)
{
	char self[PATH_MAX], lib[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *path = in_tmp("standin-%d", (int)getpid());

	ASSERT_GT(n, 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(lib, sizeof(lib), "%s/gpu/libcuda.so.1", self);
	setenv(PST_CUDA_LIBRARY_ENV, lib, 1);
	s = standin_make(path, ngpus, 64 * MIB);
	setenv(STANDIN_ENV, path, 1);
}

/* An image whose doorbell does @op. */
static const char *image_of(const char *op)
{
	const char *path = in_tmp("%s.image", op);
	char text[128];

	snprintf(text, sizeof(text), STANDIN_IMAGE "\ndoorbell %s\nnop nop\n", op);
	write_file(path, text, strlen(text));
	return path;
}

static void expect_nothing_left(void)
{
	EXPECT_EQ(0, (int)s->contexts);
	EXPECT_EQ(0, (int)s->streams);
	EXPECT_EQ(0, (int)s->events);
	EXPECT_EQ(0, (int)s->modules);
	EXPECT_EQ(0, (int)s->graphs);
	EXPECT_EQ(0, (int)s->registered);
	EXPECT_EQ(0ull, (unsigned long long)standin_used(s, 0));
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "none";
}

static json_t *row_at(const json_t *root, size_t i)
{
	json_t *row = json_array_get(json_object_get(root, "results"), i);

	ASSERT_TRUE(json_is_object(row));
	return row;
}

static size_t rows_of(const json_t *root)
{
	return json_array_size(json_object_get(root, "results"));
}

/* It fails, with @part in its one sentence; lines of results may be there. */
static void expect_fails(const char *part, const char *command)
{
	struct ended e = program_run("penstock-perf %s", command);

	if (e.code != 1 || strncmp(e.err, "penstock-perf ", 14) || !strstr(e.err, part) ||
	    strchr(e.err, '\n') != e.err + strlen(e.err) - 1) {
		test_say(__FILE__, __LINE__, "%s: %d, \"%s\" has no %s", command, e.code, e.err,
			 part);
		test_failed = true;
	}
	ended_free(&e);
}

/* Without. */

TEST(no_driver)
{
	setenv(PST_CUDA_LIBRARY_ENV, "/nowhere/libcuda.so.1", 1);
	program_refused(NULL, 1, "PENSTOCK_CUDA_LIB", "penstock-perf h2d");
	program_refused(NULL, 1, "PENSTOCK_CUDA_LIB", "penstock-perf doorbell");
}

TEST(no_gpu)
{
	use_standin(0);
	program_refused(NULL, 1, "the driver shows no GPU", "penstock-perf h2d");
	program_refused(NULL, 1, "the driver shows no GPU", "penstock-perf doorbell");
}

TEST(an_old_driver)
{
	use_standin(1);
	s->cuda_version = 11080;
	program_refused(NULL, 1, "is too old", "penstock-perf h2d");
}

TEST(what_makes_no_sense)
{
	use_standin(1);
	program_refused(NULL, 1, "cuda:1: the driver shows 1", "penstock-perf h2d --device cuda:1");
	program_refused(NULL, 2, "not cuda:N", "penstock-perf h2d --device gpu0");
	program_refused(NULL, 2, "not cuda:N", "penstock-perf doorbell --device cuda:x");
	program_refused(NULL, 2, "--self means nothing here", "penstock-perf h2d --self");
	program_refused(NULL, 2, "no peer in this test", "penstock-perf h2d localhost");
	program_refused(NULL, 2, "--fabric means nothing here",
			"penstock-perf doorbell --fabric tcp");
	program_refused(NULL, 2, "--size means nothing here", "penstock-perf doorbell -s 8");
	program_refused(NULL, 2, "--image means nothing here", "penstock-perf h2d --image x");
	program_refused(NULL, 2, "--device means nothing here",
			"penstock-perf write_lat --self --device cuda:0");
	program_refused(NULL, 1, "No such file", "penstock-perf doorbell --image /nowhere/image");
	program_refused(NULL, 1, "is no image", "penstock-perf doorbell --image /dev/null");
	expect_nothing_left();
}

/* h2d */

static void expect_gpu(const json_t *root, const char *command)
{
	const json_t *info = json_object_get(root, "test_info");

	EXPECT_STREQ(command, text_of(info, "command"));
	EXPECT_STREQ("cuda:0", text_of(info, "Device"));
	/* whoever reads the numbers sees whose they are */
	EXPECT_TRUE(strstr(text_of(info, "GPU"), "Stand-in"));
	EXPECT_STREQ("0000:3B:00.0", text_of(info, "PCI"));
	EXPECT_TRUE(number_of(info, "CUDA_version") == 13000);
}

TEST(h2d)
{
	static const char *const way[] = {"in", "out", "both", "in-batch", "out-batch"};
	json_t *root;

	use_standin(1);
	root = program_json(NULL, "penstock-perf h2d -s 64K -n 50 -t 8 --warm-up 4 --json -");
	expect_gpu(root, "h2d");
	ASSERT_EQ(5, (int)rows_of(root));
	for (size_t i = 0; i < 5; i++) {
		const json_t *row = row_at(root, i);

		EXPECT_STREQ(way[i], text_of(row, "way"));
		EXPECT_TRUE(number_of(row, "MsgSize") == 65536);
		EXPECT_TRUE(number_of(row, "n_iterations") == 50);
		EXPECT_TRUE(number_of(row, "BW_average") > 0);
		EXPECT_TRUE(number_of(row, "seconds") > 0);
	}
	/* 54 of each way, a copy at the beginning, and one back to look at what went in */
	EXPECT_EQ(6 * 54 + 1 + 3, (int)s->copies);
	EXPECT_EQ((6 * 54ull + 3 * 8 + 8) * 65536, (unsigned long long)s->copied_bytes);
	/* 8 at once, and what is left */
	EXPECT_EQ(2 * (1 + 7), (int)s->batches);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	expect_nothing_left();
	json_decref(root);
}

TEST(h2d_of_all_sizes)
{
	json_t *root;

	use_standin(1);
	root = program_json(NULL, "penstock-perf h2d -a -n 2 -t 2 --json -");
	ASSERT_EQ(23 * 5, (int)rows_of(root));
	for (size_t i = 0; i < 23; i++)
		EXPECT_TRUE(number_of(row_at(root, i * 5), "MsgSize") == (double)(2ull << i));
	json_decref(root);
	/* for a time */
	root = program_json(NULL, "penstock-perf h2d -s 4K -t 4 -D 0.05 --json -");
	EXPECT_TRUE(number_of(row_at(root, 0), "seconds") >= 0.05);
	EXPECT_TRUE(number_of(row_at(root, 0), "n_iterations") > 0);
	expect_nothing_left();
	json_decref(root);
}

TEST(h2d_without_batches)
{
	struct ended e;

	use_standin(1);
	s->cuda_version = 12000;
	e = program_run("penstock-perf h2d -s 4K -n 4 -t 2");
	EXPECT_EQ(0, e.code);
	EXPECT_TRUE(strstr(e.out, "# no batches"));
	EXPECT_TRUE(strstr(e.out, " both "));
	EXPECT_FALSE(strstr(e.out, "in-batch"));
	EXPECT_TRUE(strstr(e.out, "Stand-in H200"));
	ended_free(&e);
	expect_nothing_left();
}

/* The first copies are: what comes out, 1 + 1 in, back; then 1 + 1 out. */
TEST(h2d_looks_at_what_was_copied)
{
	use_standin(1);
	s->corrupt = 3;
	expect_fails("not what was sent", "h2d -s 4K -n 1 -t 1 --warm-up 1");
	expect_nothing_left();
	s->corrupt = 6;
	expect_fails("not what is in its memory", "h2d -s 4K -n 1 -t 1 --warm-up 1");
	expect_nothing_left();
}

TEST(a_gpu_that_fails_meanwhile)
{
	use_standin(1);
	s->gpu[0].sticky = CUDA_ERROR_ECC_UNCORRECTABLE;
	expect_fails("CUDA_ERROR_ECC_UNCORRECTABLE", "h2d -s 4K -n 4 -t 2");
	s->gpu[0].lost = 1;
	expect_fails("CUDA_ERROR_DEVICE_UNAVAILABLE", "doorbell -n 1");
}

/* doorbell */

static void expect_times(const json_t *row, const char *way, int iterations)
{
	static const char *const rising[] = {"t_min",	      "t_typical",	 "percentile_90",
					     "percentile_99", "percentile_99.9", "percentile_99.99",
					     "t_max"};

	EXPECT_STREQ(way, text_of(row, "way"));
	EXPECT_TRUE(number_of(row, "n_iterations") == iterations);
	EXPECT_TRUE(number_of(row, "t_min") > 0);
	for (size_t i = 1; i < sizeof(rising) / sizeof(*rising); i++)
		EXPECT_TRUE(number_of(row, rising[i]) >= number_of(row, rising[i - 1]));
	EXPECT_TRUE(number_of(row, "dropped") == 0);
}

TEST(doorbell)
{
	json_t *root;

	use_standin(1);
	root = program_json(NULL, "penstock-perf doorbell --image %s -n 20 --warm-up 3 --json -",
			    image_of("doorbell"));
	expect_gpu(root, "doorbell");
	ASSERT_EQ(3, (int)rows_of(root));
	expect_times(row_at(root, 0), "doorbell", 20);
	expect_times(row_at(root, 1), "launch", 20);
	expect_times(row_at(root, 2), "graph", 20);
	/* the one that stays, once; the others once before, to warm up, and for each time */
	EXPECT_EQ(1 + 2 * (1 + 3 + 20), (int)s->launches);
	expect_nothing_left();
	json_decref(root);
}

/* The image that is built in, where it was built with nvcc. */
TEST(doorbell_of_this_build)
{
	struct ended e;

	use_standin(1);
	e = program_run("penstock-perf doorbell -n 5 --warm-up 1");
	if (e.code) {
		EXPECT_EQ(1, e.code);
		EXPECT_TRUE(strstr(e.err, "was built without nvcc"));
		EXPECT_TRUE(strstr(e.err, "--image"));
	} else {
		EXPECT_TRUE(strstr(e.out, " doorbell   4       5 "));
		EXPECT_TRUE(strstr(e.out, " graph      4       5 "));
		EXPECT_EQ(1 + 2 * (1 + 1 + 5), (int)s->launches);
	}
	ended_free(&e);
	expect_nothing_left();
}

/* It ends, and says so, when nobody answers: also when the kernel would never end. */
static void expect_no_answer(const char *op, const char *part)
{
	char command[512];

	use_standin(1);
	snprintf(command, sizeof(command), "doorbell --timeout 100 -n 5 --image %s", image_of(op));
	expect_fails(part, command);
}

TEST(a_doorbell_that_nobody_hears)
{
	expect_no_answer("hang", "the resident kernel has not answered for 100 ms");
}

TEST(a_doorbell_that_nobody_is_at)
{
	expect_no_answer("nop", "the resident kernel has ended and not answered");
	expect_nothing_left();
}

TEST(a_doorbell_that_breaks)
{
	expect_no_answer("fault", "the resident kernel failed: CUDA_ERROR_ILLEGAL_ADDRESS (700");
}

TEST(wrong_images)
{
	char command[512];

	use_standin(1);
	snprintf(command, sizeof(command), "doorbell -n 5 --image %s", image_of("unknown-op"));
	expect_fails("CUDA_ERROR_NO_BINARY_FOR_GPU", command);
	snprintf(command, sizeof(command), "doorbell -n 5 --image %s", in_tmp("unknown-op.image"));
	write_file(in_tmp("unknown-op.image"), STANDIN_IMAGE "\nnop nop\n",
		   strlen(STANDIN_IMAGE "\nnop nop\n"));
	expect_fails("finding kernel doorbell: CUDA_ERROR_NOT_FOUND", command);
	expect_nothing_left();
}

/* Each call of the driver fails once, the first time. */

static bool undoes(int fn)
{
	return fn == STANDIN_cuStreamDestroy || fn == STANDIN_cuEventDestroy ||
	       fn == STANDIN_cuMemFree || fn == STANDIN_cuMemHostUnregister ||
	       fn == STANDIN_cuModuleUnload || fn == STANDIN_cuGraphExecDestroy ||
	       fn == STANDIN_cuGraphDestroy || fn == STANDIN_cuDevicePrimaryCtxRelease;
}

static void one_failure(const char *command, int fn, int *failures)
{
	struct ended e;

	s->fn[fn].fail_rc = CUDA_ERROR_OPERATING_SYSTEM;
	s->fn[fn].fail_in = 1;
	e = program_run("penstock-perf %s", command);
	if (s->fn[fn].fail_in) {
		EXPECT_EQ(0, e.code);
	} else {
		++*failures;
		EXPECT_EQ(undoes(fn) ? 0 : 1, e.code);
		if (!undoes(fn) && !strstr(e.err, "CUDA_ERROR_OPERATING_SYSTEM (304")) {
			test_say(__FILE__, __LINE__, "%s, call %d: \"%s\"", command, fn, e.err);
			test_failed = true;
		}
	}
	s->fn[fn].fail_in = 0;
	/* a capture that was not ended has its graph */
	if (!undoes(fn) && fn != STANDIN_cuStreamEndCapture)
		expect_nothing_left();
	s->contexts = s->streams = s->events = s->modules = s->graphs = s->registered = 0;
	ended_free(&e);
}

TEST(every_call_fails_once)
{
	char bell[512];
	int failures = 0;

	snprintf(bell, sizeof(bell), "doorbell -n 2 --warm-up 1 --image %s", image_of("doorbell"));
	use_standin(1);
	for (int fn = STANDIN_cuInit; fn < STANDIN_CALLS; fn++) {
		one_failure("h2d -s 4K -n 2 -t 2", fn, &failures);
		one_failure(bell, fn, &failures);
	}
	EXPECT_GT(failures, 30);
}

TEST_MAIN
