/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/device/gpu_kernels.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAX (256u << 20)

static const char *const image_name[PST_CUDA_IMAGE_COUNT] = {
#define NAME(name) #name,
	PST_CUDA_IMAGES(NAME)
#undef NAME
};

struct pst_gpu_kernels {
	struct pst_gpu *gpu;
	char *folder; /* NULL: those that were built in */
	struct pst_gpu_module *module[PST_CUDA_IMAGE_COUNT];
	struct pst_gpu_kernel *kernel[PST_CUDA_KERNEL_COUNT];
	uint32_t shared[PST_CUDA_KERNEL_COUNT]; /* that it may have */
};

int pst_gpu_kernels_open(struct pst_gpu *gpu, const char *folder, struct pst_gpu_kernels **out,
			 struct pst_error *err)
{
	struct pst_gpu_kernels *k = calloc(1, sizeof(*k));

	if (!folder)
		folder = getenv("PENSTOCK_CUDA_KERNELS");
	if (k && folder && *folder)
		k->folder = strdup(folder);
	if (!k || (folder && *folder && !k->folder)) {
		free(k);
		return pst_fail(err, -ENOMEM, "no memory for the kernels of a GPU");
	}
	k->gpu = gpu;
	*out = k;
	return 0;
}

void pst_gpu_kernels_close(struct pst_gpu_kernels *k)
{
	if (!k)
		return;
	for (int i = 0; i < PST_CUDA_IMAGE_COUNT; i++)
		pst_gpu_module_unload(k->module[i]);
	free(k->folder);
	free(k);
}

/* All of the file @fd, to be freed, with a 0 behind it. */
static int read_all(int fd, void **out, size_t *bytes)
{
	struct stat st;
	size_t got = 0;
	ssize_t n = 1;
	char *at;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > IMAGE_MAX)
		return -ENOEXEC;
	at = malloc((size_t)st.st_size + 1);
	if (!at)
		return -ENOMEM;
	while (got < (size_t)st.st_size && (n = read(fd, at + got, (size_t)st.st_size - got)) > 0)
		got += (size_t)n;
	if (n <= 0) {
		int rc = n ? -errno : -ENOEXEC;

		free(at);
		return rc;
	}
	at[got] = 0;
	*out = at;
	*bytes = got;
	return 0;
}

static int load_file(struct pst_gpu_kernels *k, enum pst_cuda_image i, struct pst_error *err)
{
	char path[PATH_MAX];
	size_t bytes = 0;
	void *image = NULL;
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s.fatbin", k->folder, image_name[i]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pst_fail(err, -errno,
				"%s: %s (PENSTOCK_CUDA_KERNELS names a folder with what `make -C "
				"kernels cubins` makes)",
				path, strerror(errno));
	rc = read_all(fd, &image, &bytes);
	close(fd);
	if (rc)
		return pst_fail(err, rc, "%s: %s", path,
				rc == -ENOEXEC ? "is no image of kernels" : strerror(-rc));
	rc = pst_gpu_module_load(k->gpu, image, bytes, &k->module[i], err);
	free(image);
	return rc;
}

static int load_image(struct pst_gpu_kernels *k, enum pst_cuda_image i, struct pst_error *err)
{
	const void *image;
	size_t bytes = 0;

	if (k->module[i])
		return 0;
	if (k->folder)
		return load_file(k, i, err);
	image = pst_cuda_image(i, &bytes);
	if (!image)
		return pst_fail(err, -ENOEXEC,
				"this build has no CUDA kernels: it was made without nvcc; make it "
				"where the CUDA toolkit is, or let PENSTOCK_CUDA_KERNELS "
				"name a folder with what `make -C kernels cubins` makes there");
	return pst_gpu_module_load(k->gpu, image, bytes, &k->module[i], err);
}

/* Ready for blocks of @shared bytes. */
static int ready(struct pst_gpu_kernels *k, enum pst_cuda_kernel kernel, uint32_t shared,
		 struct pst_error *err)
{
	enum pst_cuda_image i = pst_cuda_kernel_image(kernel);
	int rc;

	if (i == PST_CUDA_IMAGE_COUNT)
		return pst_fail(err, -EINVAL, "there is no CUDA kernel %d", (int)kernel);
	if (k->kernel[kernel] && shared <= k->shared[kernel])
		return 0;
	rc = load_image(k, i, err);
	if (!rc)
		rc = pst_gpu_kernel(k->module[i], pst_cuda_kernel_name(kernel), shared,
				    &k->kernel[kernel], err);
	if (!rc)
		k->shared[kernel] = shared;
	return rc;
}

int pst_gpu_kernels_load(struct pst_gpu_kernels *k, enum pst_cuda_kernel kernel,
			 struct pst_error *err)
{
	return ready(k, kernel, 0, err);
}

int pst_gpu_run(struct pst_gpu_kernels *k, enum pst_gpu_stream stream, enum pst_cuda_kernel kernel,
		void **params, struct pst_error *err)
{
	struct pst_gpu_shape shape = {.block = {0, 1, 1}};
	struct pst_cuda_launch l;
	int rc = pst_cuda_geometry(kernel, params, &l);

	if (rc)
		return pst_fail(err, rc, "CUDA kernel %s: sizes that it does not take",
				pst_cuda_kernel_name(kernel));
	rc = ready(k, kernel, l.shared, err);
	if (rc)
		return rc;
	memcpy(shape.grid, l.grid, sizeof(shape.grid));
	shape.block[0] = l.block;
	shape.shared = l.shared;
	return pst_gpu_launch(k->gpu, stream, k->kernel[kernel], &shape, params, err);
}
