/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.h - programs that need a GPU, on a driver whose launches run the kernels under the emulation
 * (libcuda_emulated.c).
 */
#ifndef TEST_GPU_RUN_H
#define TEST_GPU_RUN_H

#include "selftests/gpu/standin.h"
#include "selftests/lib/test.h"

#include <limits.h>

#define MIB (1ull << 20)

static struct standin *s;

/* @name beside this program. */
static inline void beside(char *to, size_t len, const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(to, len, "%s/%s", self, name);
}

static inline void use_standin(uint32_t ngpus)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/standin", test_tmpdir());
	s = standin_make(path, ngpus, 64 * MIB);
	setenv(STANDIN_ENV, path, 1);
	beside(path, sizeof(path), "emulated/libcuda.so.1");
	setenv(PST_CUDA_LIBRARY_ENV, path, 1);
}

/* What a command said, or the end of it. */
static char said[65536];

/* Its exit status. */
static inline int shell(const char *command)
{
	FILE *f = popen(command, "r");
	size_t n = 0, got;
	int status;

	ASSERT_NE(NULL, f);
	while ((got = fread(said + n, 1, sizeof(said) - 1 - n, f)) > 0) {
		n += got;
		if (n < sizeof(said) - 1)
			continue;
		n /= 2;
		memmove(said, said + sizeof(said) - 1 - n, n);
	}
	said[n] = '\0';
	status = pclose(f);
	if (strstr(said, "this was built without nvcc"))
		SKIP("built without nvcc", "make NVCC=/usr/local/cuda/bin/nvcc");
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void expect_said(const char *text)
{
	if (!strstr(said, text)) {
		EXPECT_STREQ(text, said);
	}
}

#endif /* TEST_GPU_RUN_H */
