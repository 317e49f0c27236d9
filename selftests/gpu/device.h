/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - a GPU of the runtime on the stand-in for libcuda.so.1, in the test's process. */
#ifndef TEST_GPU_DEVICE_H
#define TEST_GPU_DEVICE_H

#include "runtime/device/gpu.h"
#include "selftests/gpu/standin.h"
#include "selftests/lib/test.h"

#include <limits.h>
#include <sys/mman.h>

#define MIB (1ull << 20)
#define MS  20000 /* longer than anything takes that ends */

static struct standin *s;
static struct pst_error err;

/* The driver of this build, with @ngpus of 64 MiB. */
static inline void use_standin(uint32_t ngpus)
{
	char path[PATH_MAX], self[PATH_MAX], lib[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(lib, sizeof(lib), "%s/libcuda.so.1", self);
	setenv(PST_CUDA_LIBRARY_ENV, lib, 1);
	snprintf(path, sizeof(path), "%s/standin-%d", test_tmpdir(), (int)getpid());
	s = standin_make(path, ngpus, 64 * MIB);
	setenv(STANDIN_ENV, path, 1);
}

/* The reason is not what the test is about: forget it. */
static inline const char *why(void)
{
	static char text[PST_ERROR_TEXT];

	memcpy(text, err.text, sizeof(text));
	err = (struct pst_error){0};
	return text;
}

/* It fails with @code, and the sentence has @part in it. */
#define EXPECT_FAILS(code, part, call)                                                \
	do {                                                                          \
		int rc_ = (call);                                                     \
		const char *why_ = why();                                             \
		EXPECT_EQ(code, rc_);                                                 \
		if (!strstr(why_, part)) {                                            \
			test_say(__FILE__, __LINE__, "\"%s\" has no %s", why_, part); \
			test_failed = true;                                           \
		}                                                                     \
	} while (0)

#define OK(call) ASSERT_OK(call, &err)

/* Nothing of it is there any more. */
static inline void expect_nothing_left(void)
{
	EXPECT_EQ(0, (int)s->contexts);
	EXPECT_EQ(0, (int)s->streams);
	EXPECT_EQ(0, (int)s->events);
	EXPECT_EQ(0, (int)s->modules);
	EXPECT_EQ(0, (int)s->graphs);
	EXPECT_EQ(0, (int)s->registered);
	EXPECT_EQ(0ull, (unsigned long long)standin_used(s, 0));
}

static inline unsigned char *host_memory(size_t bytes, int protection)
{
	unsigned char *at =
		mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	ASSERT_TRUE(at != MAP_FAILED);
	return at;
}

/* An image with a function "fn" that does @op; and that as a kernel of @gpu. */
static inline struct pst_gpu_module *module_of(struct pst_gpu *gpu, const char *op)
{
	struct pst_gpu_module *m;
	char image[128];

	snprintf(image, sizeof(image), STANDIN_IMAGE "\nfn_%s %s\n", op, op);
	OK(pst_gpu_module_load(gpu, image, strlen(image) + 1, &m, &err));
	return m;
}

static inline struct pst_gpu_kernel *kernel_of(struct pst_gpu_module *m, const char *op)
{
	struct pst_gpu_kernel *k;
	char name[80];

	snprintf(name, sizeof(name), "fn_%s", op);
	OK(pst_gpu_kernel(m, name, 0, &k, &err));
	return k;
}

static const struct pst_gpu_shape one_block = {.grid = {1, 1, 1}, .block = {32, 1, 1}};

static inline int launch(struct pst_gpu *gpu, struct pst_gpu_kernel *k, void **params)
{
	return pst_gpu_launch(gpu, PST_GPU_COMPUTE, k, &one_block, params, &err);
}

#endif /* TEST_GPU_DEVICE_H */
