/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h - what a worker needs to compute on the stand-in's GPU, in this process and its
 * children. */
#ifndef TEST_GPU_WORKER_H
#define TEST_GPU_WORKER_H

#include "selftests/gpu/standin.h"
#include "selftests/lib/test.h"

#include <limits.h>

/* The stand-in is two folders above this program, and down again. */
static inline void standin_library(void)
{
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	for (int i = 0; i < 2; i++) {
		self[n] = '\0';
		n = strrchr(self, '/') - self;
	}
	self[n] = '\0';
	snprintf(path, sizeof(path), "%s/gpu/libcuda.so.1", self);
	setenv("PENSTOCK_CUDA_LIB", path, 1);
}

static inline void standin_image(const char *folder, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.fatbin", folder, name);
	f = fopen(path, "w");
	ASSERT_TRUE(f != NULL);
	fprintf(f, "%s\n%s", STANDIN_IMAGE, text);
	ASSERT_EQ(0, fclose(f));
}

/* Images for what experts need, in the test's folder. */
static inline void standin_images(void)
{
	static const char *const of[] = {"16", "64", "128"}, *const op[] = {"up", "down", "da",
									    "dx"};
	char text[1024] = "experts_dw experts_dw\n";

	for (size_t i = 0; i < 12; i++) {
		size_t at = strlen(text);

		snprintf(text + at, sizeof(text) - at, "experts_%s_%s experts_%s\n", op[i / 3],
			 of[i % 3], op[i / 3]);
	}
	standin_image(test_tmpdir(), "experts", text);
	standin_image(test_tmpdir(), "bf16", "to_bf16 to_bf16\nfrom_bf16 from_bf16\n");
	setenv("PENSTOCK_CUDA_KERNELS", test_tmpdir(), 1);
}

/* One GPU of @bytes. */
static inline struct standin *standin_gpu(uint64_t bytes)
{
	char path[PATH_MAX];
	struct standin *s;

	snprintf(path, sizeof(path), "%s/standin", test_tmpdir());
	s = standin_make(path, 1, bytes);
	setenv(STANDIN_ENV, path, 1);
	standin_library();
	return s;
}

#endif /* TEST_GPU_WORKER_H */
