/* SPDX-License-Identifier: Apache-2.0 */
/* gpu-check without a GPU: on a driver whose launches run the kernels under the emulation. */
#include "selftests/gpu/run.h"

#include <sys/stat.h>

static int gpu_check(const char *args)
{
	char path[PATH_MAX + 64], command[2 * PATH_MAX];

	beside(path, sizeof(path), "gpu-check");
	snprintf(command, sizeof(command), "%s %s 2>&1", path, args);
	return shell(command);
}

/* One line, and a status that is no pass. */
static void expect_skip(const char *why)
{
	EXPECT_EQ((int)TEST_SKIP, gpu_check(""));
	expect_said("1..0 # SKIP ");
	expect_said(why);
	expect_said("make -C kernels gpu-check");
	EXPECT_EQ(said + strlen(said) - 1, strchr(said, '\n'));
}

TEST(no_driver)
{
	setenv(PST_CUDA_LIBRARY_ENV, "/nowhere/libcuda.so.1", 1);
	expect_skip("cannot be opened");
}

TEST(no_gpu)
{
	use_standin(0);
	expect_skip("the driver shows no GPU");
}

TEST(no_code_for_the_gpu)
{
	use_standin(1);
	s->gpu[0].major = 7;
	s->gpu[0].minor = 5;
	expect_skip("Stand-in H200 has compute capability 7.5");
}

TEST(a_driver_that_fails)
{
	use_standin(1);
	s->fn[STANDIN_cuLibraryLoadData].fail_in = 1;
	s->fn[STANDIN_cuLibraryLoadData].fail_rc = CUDA_ERROR_NO_BINARY_FOR_GPU;
	EXPECT_EQ((int)TEST_FAIL, gpu_check(""));
	expect_said("Bail out! CUDA: the kernels' images cannot be loaded: "
		    "CUDA_ERROR_NO_BINARY_FOR_GPU (209");
}

/* Tests of gpu/kernels that take no long, and among them one for every kernel. */
TEST(all_kernels)
{
	use_standin(1);
	EXPECT_EQ((int)TEST_PASS,
		  gpu_check("--every stays_within smallest uneven sumsq_in gate_ heads"));
	expect_said("fail:0 xfail:0 xpass:0 skip:0");
	EXPECT_GT((unsigned long long)s->launches, 1000ull);
}

TEST(a_kernel_without_a_test)
{
	use_standin(1);
	EXPECT_EQ((int)TEST_FAIL, gpu_check("--every op.add"));
	expect_said("fail:0 xfail:0 xpass:0 skip:0");
	expect_said("# no test has launched experts_up_16\n");
	EXPECT_EQ(NULL, strstr(said, "# no test has launched add\n"));
}

/* A kernel that is wrong does not pass, nor one that is so now and then. */
TEST(wrong_numbers)
{
	use_standin(1);
	setenv("STANDIN_WRONG", "add 1", 1);
	EXPECT_EQ((int)TEST_FAIL,
		  gpu_check("op.add.agrees_with_ref_on op.swiglu.agrees_with_ref_on"));
	expect_said("add: the relative error against ref is");
	expect_said("not ok 1 op.add.agrees_with_ref_on_long_rows");
	expect_said("ok 2 op.swiglu.agrees_with_ref_on_long_rows");
	setenv("STANDIN_WRONG", "swiglu 2", 1);
	EXPECT_EQ((int)TEST_FAIL, gpu_check("op.swiglu.agrees_with_ref_on"));
	expect_said("swiglu: the same call gave other bits the second time");
	setenv("STANDIN_WRONG", "experts_up_64 1", 1);
	EXPECT_EQ((int)TEST_FAIL, gpu_check("experts.uneven.forward_agrees_with_ref"));
}

/* An error that stays: which kernel, and on what. The next test has a process of its own. */
TEST(a_launch_that_fails)
{
	use_standin(1);
	s->gpu[0].sticky = CUDA_ERROR_ILLEGAL_ADDRESS;
	EXPECT_EQ((int)TEST_FAIL,
		  gpu_check("experts.uneven.forward experts.one_hot_expert.forward"));
	expect_said("experts_up_16(ldx 80, n 7, rows 87, hidden 72, inter 136): it failed on the "
		    "GPU: CUDA_ERROR_ILLEGAL_ADDRESS (700: an illegal memory access");
	expect_said("not ok 1 experts.uneven.forward_agrees_with_ref");
	expect_said("ok 2 experts.one_hot_expert.forward_agrees_with_ref");
}

TEST(a_driver_that_refuses)
{
	use_standin(1);
	s->fn[STANDIN_cuMemHostRegister].fail_in = 1;
	s->fn[STANDIN_cuMemHostRegister].fail_rc = CUDA_ERROR_OPERATING_SYSTEM;
	EXPECT_EQ((int)TEST_FAIL, gpu_check("op.add.agrees_with_ref"));
	expect_said("add(n 0): the host's memory cannot be registered with the GPU: "
		    "CUDA_ERROR_OPERATING_SYSTEM (304");
	s->fn[STANDIN_cuLibraryGetKernel].fail_in = 1;
	s->fn[STANDIN_cuLibraryGetKernel].fail_rc = CUDA_ERROR_NOT_FOUND;
	EXPECT_EQ((int)TEST_FAIL, gpu_check("op.add.agrees_with_ref"));
	expect_said("add(n 0): it cannot be launched: CUDA_ERROR_NOT_FOUND (500");
	s->gpu[0].no_host_pointer = 1;
	EXPECT_EQ((int)TEST_FAIL, gpu_check("op.add.agrees_with_ref"));
	expect_said("this GPU has other addresses for host memory");
}

/* For tools that look into a process. */
TEST(one_test_without_a_process)
{
	use_standin(1);
	EXPECT_EQ((int)TEST_PASS, gpu_check("--here experts.smallest.forward_agrees_with_ref"));
	EXPECT_EQ(6ull, (unsigned long long)s->launches);
	setenv("STANDIN_WRONG", "sumsq 1", 1);
	EXPECT_EQ((int)TEST_FAIL, gpu_check("--here sumsq_in_two_launches"));
	EXPECT_EQ((int)TEST_FAIL, gpu_check("--here nothing"));
	expect_said("there is no test nothing");
}

/* Tools look at what is small, one test a process, and at least at something. */
TEST(tools_look_at_what_is_small)
{
	char path[PATH_MAX], program[PATH_MAX + 64], command[3 * PATH_MAX];
	FILE *f;

	use_standin(1);
	snprintf(path, sizeof(path), "%s/compute-sanitizer", test_tmpdir());
	f = fopen(path, "w");
	ASSERT_NE(NULL, f);
	fprintf(f, "#!/bin/sh\necho \"$@\" >>%s/log\n[ \"$2\" = memcheck ]\n", test_tmpdir());
	fclose(f);
	ASSERT_EQ(0, chmod(path, 0755));
	beside(program, sizeof(program), "gpu-check");
	snprintf(command, sizeof(command),
		 "PATH=%s:$PATH selftests/gpu/check.sh %s experts.smallest.forward op.add.stays "
		 "op.add.agrees >%s/out; echo $? >>%s/out; cat %s/out %s/log",
		 test_tmpdir(), program, test_tmpdir(), test_tmpdir(), test_tmpdir(),
		 test_tmpdir());
	EXPECT_EQ(0, shell(command));
	expect_said("# memcheck: 2 tests\n");
	expect_said("not ok racecheck experts.smallest.forward_agrees_with_ref\n");
	expect_said("# racecheck: 2 tests\n1\n");
	expect_said("--tool memcheck --error-exitcode 1");
	expect_said("--here op.add.stays_within_its_buffers\n");
	EXPECT_EQ(NULL, strstr(said, "--here op.add.agrees"));
}

TEST_MAIN
