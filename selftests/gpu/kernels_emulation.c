/* SPDX-License-Identifier: Apache-2.0 */
/* Does the emulation see what it says it sees? And is cuda.h what a caller needs? */
#include "selftests/gpu/emulate_faults.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/lib/test.h"

#include <math.h>

enum { THREADS = 64 };

static const struct pst_cuda_launch launch = {{1, 1, 1}, THREADS, THREADS * 16};

/* In a process of its own: what it said into @said, or the signal that ended it. */
static int run_fault(emulate_fn *fault, char *said, size_t len)
{
	float out[THREADS], *to = out;
	int fd[2], status;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	ASSERT_EQ(0, pipe(fd));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dup2(fd[1], STDOUT_FILENO);
		dup2(fd[1], STDERR_FILENO); /* a sanitizer's account of what is wanted */
		emulate_launch(fault, &launch, (void *[]){&to});
		_exit(0);
	}
	close(fd[1]);
	while (n + 1 < len && (got = read(fd[0], said + n, len - 1 - n)) > 0)
		n += (size_t)got;
	said[n] = '\0';
	close(fd[0]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	return status;
}

static void expect_seen(emulate_fn *fault, const char *how)
{
	char said[512];
	int status = run_fault(fault, said, sizeof(said));

	EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	if (!strstr(said, how)) {
		EXPECT_STREQ(how, said);
	}
}

TEST(emulation_sees_a_barrier_that_a_thread_skips)
{
	expect_seen(fault_barrier_skipped, "(63 are there, 1 of the block have ended)");
}

TEST(emulation_sees_threads_at_different_barriers)
{
	expect_seen(fault_barriers_differ, "while others wait at");
}

TEST(emulation_sees_a_lane_that_is_missing)
{
	expect_seen(fault_lane_missing, "it waits at __shfl_xor_sync");
	expect_seen(fault_warps_differ, "while others wait at");
}

TEST(emulation_sees_addresses_that_are_wrong)
{
	char said[512];
	int status;

	expect_seen(fault_load_unaligned, "load16: the address ends in 0x4");
	expect_seen(fault_copy_unaligned, "cp.async: the address in shared memory ends in 0x8");
	expect_seen(fault_copy_beyond_shared,
		    "byte 1024 of shared memory, of which the launch has");
	status = run_fault(fault_write_beyond_shared, said, sizeof(said));
	/* a sanitizer ends the process by itself */
	EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(emulation_sees_narrower_addresses_that_are_wrong)
{
	expect_seen(fault_copy4_unaligned, "cp.async: the address in shared memory ends in 0x2");
	expect_seen(fault_load8_unaligned, "load8: the address ends in 0x4");
	expect_seen(fault_shared8_unaligned,
		    "ld.shared.v2: the address in shared memory ends in 0x4");
	expect_seen(fault_shared16_beyond,
		    "ld.shared.v4: byte 1024 of shared memory, of which the launch has");
}

TEST(emulation_has_no_e4m3_where_a_gpu_has_none)
{
	expect_seen(fault_no_fp8, "cvt.e4m3x2: the GPU has no instructions for e4m3");
}

TEST(emulation_sees_copies_that_were_not_waited_for)
{
	expect_seen(fault_never_waited, "copies it never waited for");
}

/* How many results are NaN, at the worst of a few orders. */
static int poisoned(emulate_fn *kernel)
{
	int worst = 0;

	for (uint64_t seed = 0; seed < 3; seed++) {
		float out[THREADS], *to = out;
		int n = 0;

		emulate_seed(seed);
		emulate_launch(kernel, &launch, (void *[]){&to});
		for (int i = 0; i < THREADS; i++)
			n += isnan(out[i]) != 0;
		worst = n > worst ? n : worst;
	}
	return worst;
}

TEST(emulation_poisons_what_is_read_too_early)
{
	EXPECT_EQ(0, poisoned(fault_none));
	/* who comes last may find what the others' threads have waited for since */
	EXPECT_LE((int)THREADS - 1, poisoned(fault_no_wait));
	EXPECT_LT(0, poisoned(fault_no_barrier_after_wait));
	EXPECT_EQ((int)THREADS, poisoned(fault_shared_unwritten));
	/* a second block finds nothing of the first */
	EXPECT_EQ((int)THREADS, poisoned(fault_static_shared_unwritten));
}

/* Sizes that a kernel does not take are refused, and the launch is left as it was. */
TEST(sizes_that_no_launch_takes)
{
	struct pst_cuda_launch l = {{7, 7, 7}, 7, 7}, before = l;
	size_t n = 3, rows = 5, hidden = 64, inter = 32, huge = (size_t)1 << 40, odd = 12, none = 0;
	void *const p = &n;
	void *down[] = {p, p, p, p, p, &n, &rows, &hidden, &inter};

	ASSERT_EQ(0, pst_cuda_geometry(PST_CUDA_experts_down_16, down, &l));
	EXPECT_EQ(3u, l.grid[0]);
	EXPECT_EQ(1u, l.grid[1]);
	l = before;
	down[7] = &odd;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_experts_down_16, down, &l));
	down[7] = &none;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_experts_down_64, down, &l));
	down[7] = &hidden;
	down[8] = &odd;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_experts_down_128, down, &l));
	down[8] = &inter;
	down[6] = &huge;
	EXPECT_EQ(-E2BIG, pst_cuda_geometry(PST_CUDA_experts_down_16, down, &l));
	down[6] = &rows;
	down[7] = &huge;
	EXPECT_EQ(-E2BIG, pst_cuda_geometry(PST_CUDA_experts_down_16, down, &l));
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_KERNEL_COUNT, down, &l));
	EXPECT_EQ(0, memcmp(&before, &l, sizeof(l)));
}

/* Every launch fits what all targets have, up to sizes of real models and beyond. */
TEST(launches_fit_every_target)
{
	const size_t sizes[] = {0, 8, 256, 8192, 129280, (size_t)1 << 33};

	for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
		for (int i = 0; i < 6; i++) {
			struct pst_cuda_launch l;
			size_t size = sizes[i];
			void *params[32];

			for (int j = 0; j < 32; j++)
				params[j] = &size;
			if (pst_cuda_geometry((enum pst_cuda_kernel)k, params, &l))
				continue;
			EXPECT_TRUE(l.grid[0] && l.grid[0] <= 0x7fffffff);
			EXPECT_TRUE(l.grid[1] && l.grid[1] <= 65535);
			EXPECT_TRUE(l.grid[2] && l.grid[2] <= 65535);
			EXPECT_TRUE(l.block && l.block % 32 == 0 && l.block <= 1024);
			EXPECT_LE(l.shared, 166912u);
		}
	}
}

TEST(kernels_have_names)
{
	for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
		const char *name = pst_cuda_kernel_name((enum pst_cuda_kernel)k);

		EXPECT_EQ(k, (int)pst_cuda_kernel_find(name));
		EXPECT_LT((int)pst_cuda_kernel_image((enum pst_cuda_kernel)k),
			  (int)PST_CUDA_IMAGE_COUNT);
	}
	EXPECT_EQ((int)PST_CUDA_KERNEL_COUNT, (int)pst_cuda_kernel_find("gathers"));
	EXPECT_EQ(NULL, pst_cuda_kernel_name(PST_CUDA_KERNEL_COUNT));
	EXPECT_EQ((int)PST_CUDA_IMAGE_COUNT, (int)pst_cuda_kernel_image(PST_CUDA_KERNEL_COUNT));
}

/* Where @what is next, from @at on; NULL if it is nowhere. */
static const unsigned char *next(const unsigned char *at, const unsigned char *end,
				 const char *what, size_t n)
{
	return at < end ? memmem(at, (size_t)(end - at), what, n) : NULL;
}

/* How many programs there are in the image, all of which have @section. */
static int programs(const unsigned char *at, size_t bytes, const char *section)
{
	const unsigned char *end = at + bytes, *after;
	const char elf[] = {0x7f, 'E', 'L', 'F'};
	int n = 0;

	for (at = next(at, end, elf, 4); at; at = after, n++) {
		after = next(at + 1, end, elf, 4);
		/* with the NUL, so that it is no other name's beginning */
		EXPECT_NE(NULL, next(at, after ? after : end, section, strlen(section) + 1));
	}
	return n;
}

/* Code for three targets in each image, and in each the kernels that are said to be there. */
TEST(images_hold_their_kernels)
{
	const unsigned char *image;
	size_t bytes = 77;

	EXPECT_EQ(NULL, pst_cuda_image(PST_CUDA_IMAGE_COUNT, &bytes));
	EXPECT_EQ((size_t)77, bytes);
	if (!pst_cuda_image(PST_CUDA_IMAGE_rows, &bytes))
		SKIP("built without nvcc", "make NVCC=/usr/local/cuda/bin/nvcc");
	for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
		char section[80];

		snprintf(section, sizeof(section), ".text.%s",
			 pst_cuda_kernel_name((enum pst_cuda_kernel)k));
		image = pst_cuda_image(pst_cuda_kernel_image((enum pst_cuda_kernel)k), &bytes);
		ASSERT_NE(NULL, image);
		EXPECT_EQ((uintptr_t)0, (uintptr_t)image % 8);
		EXPECT_EQ(0, memcmp(image, "\x50\xed\x55\xba", 4));
		EXPECT_EQ(3, programs(image, bytes, section));
	}
}
