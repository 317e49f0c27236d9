/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/device/image.h"

#include "kernels/image.h"
#include "rdma/fail.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_NONE
#endif

struct pst_image {
	void *handle;
	int fd;
	const struct pst_kernel_image *is;
	enum pst_op op;
	atomic_uint holders;
};

/* Sealed memory is what it was when it was looked at. */
static bool is_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 &&
	       (seals & (F_SEAL_WRITE | F_SEAL_SHRINK)) == (F_SEAL_WRITE | F_SEAL_SHRINK);
}

static int copy_all(int from, int to)
{
	char piece[65536];
	off_t at = 0;
	ssize_t n;

	while ((n = pread(from, piece, sizeof(piece), at)) > 0) {
		if (at + n > PST_IMAGE_MAX)
			return -EFBIG;
		if (pwrite(to, piece, (size_t)n, at) != n)
			return -ENOSPC;
		at += n;
	}
	if (n < 0)
		return -errno;
	return fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) ? -errno : 0;
}

/* A descriptor of our own. */
static int take_file(int fd, struct pst_error *err)
{
	int own, rc;

	if (is_sealed(fd)) {
		own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		return own < 0 ? pst_fail(err, -errno, "kernel image: %s", strerror(errno)) : own;
	}
	own = memfd_create("penstock-kernel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (own < 0)
		return pst_fail(err, -errno, "kernel image: no memory for it: %s", strerror(errno));
	rc = copy_all(fd, own);
	if (rc < 0) {
		close(own);
		return pst_fail(err, rc, "kernel image: cannot be read: %s", strerror(-rc));
	}
	return own;
}

static int not_whole(struct pst_error *err, uint64_t has, uint64_t needs)
{
	return pst_fail(err, -ENOEXEC,
			"kernel image: is cut short: it has %llu bytes and speaks of %llu; copy it "
			"again from where it was built",
			(unsigned long long)has, (unsigned long long)needs);
}

static int check_segments(int fd, const Elf64_Ehdr *head, uint64_t bytes, struct pst_error *err)
{
	for (unsigned int i = 0; i < head->e_phnum; i++) {
		Elf64_Phdr seg;
		off_t at = (off_t)(head->e_phoff + (uint64_t)i * sizeof(seg));

		if (pread(fd, &seg, sizeof(seg), at) != (ssize_t)sizeof(seg))
			return not_whole(err, bytes, (uint64_t)at + sizeof(seg));
		if (seg.p_type != PT_LOAD)
			continue;
		if (seg.p_offset > bytes || seg.p_filesz > bytes - seg.p_offset)
			return not_whole(err, bytes, seg.p_offset + seg.p_filesz);
	}
	return 0;
}

/* The loader itself would be killed by an image that ends too early. */
static int check_elf(int fd, struct pst_error *err)
{
	Elf64_Ehdr head;
	struct stat st;
	uint64_t sections;

	if (fstat(fd, &st))
		return pst_fail(err, -errno, "kernel image: %s", strerror(errno));
	if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_ident[EI_CLASS] != ELFCLASS64 ||
	    head.e_type != ET_DYN || head.e_phentsize != sizeof(Elf64_Phdr))
		return pst_fail(err, -ENOEXEC,
				"kernel image: is no shared object; build it with -shared -fPIC");
	if (head.e_machine != MACHINE)
		return pst_fail(err, -ENOEXEC,
				"kernel image: is for another machine (ELF %u, here %u)",
				head.e_machine, MACHINE);
	sections = head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize;
	if (head.e_shoff > (uint64_t)st.st_size || sections > (uint64_t)st.st_size)
		return not_whole(err, (uint64_t)st.st_size, sections);
	return check_segments(fd, &head, (uint64_t)st.st_size, err);
}

static int check_kernel(struct pst_image *image, struct pst_error *err)
{
	const struct pst_kernel_image *is = image->is;
	enum pst_op op;

	if (!is)
		return pst_fail(err, -ENOEXEC,
				"kernel image: exports no %s; PST_KERNEL_IMAGE of kernels/image.h "
				"makes it",
				PST_KERNEL_SYMBOL);
	if (memcmp(is->magic, PST_KERNEL_MAGIC, sizeof(is->magic)) || is->size < sizeof(*is) ||
	    is->reserved || !is->op || !is->name || !is->signature || !is->kernel)
		return pst_fail(err, -ENOEXEC, "kernel image: what lies under %s makes no sense",
				PST_KERNEL_SYMBOL);
	op = pst_op_find(is->op);
	if (op == PST_OP_COUNT)
		return pst_fail(err, -ENOEXEC, "kernel image: is for op %.32s, which there is not",
				is->op);
	if (strcmp(is->signature, pst_op_signature(op)) != 0)
		return pst_fail(
			err, -ENOEXEC,
			"kernel image: another ABI: it was built for %s as %.96s, here that is "
			"%.96s; build it against this version's kernels/image.h",
			is->op, is->signature, pst_op_signature(op));
	image->op = op;
	return 0;
}

/*
 * By a name that no image had before: the loader takes what it knows by a name for the same, and
 * knows it by that for as long as anything of it is loaded. So a number is written in dots.
 */
static void name_once(int fd, char path[128])
{
	static _Atomic uint32_t count;
	uint32_t number = atomic_fetch_add(&count, 1);
	int n = snprintf(path, 128, "/proc/self/fd/");

	for (int bit = 0; bit < 32; bit++)
		n += snprintf(path + n, 128 - (size_t)n, "%s", number >> bit & 1 ? "./" : "/");
	snprintf(path + n, 128 - (size_t)n, "%d", fd);
}

static int load(struct pst_image *image, struct pst_error *err)
{
	const char *why, *behind;
	char path[128];

	name_once(image->fd, path);
	image->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!image->handle) {
		/* without the name, which says nothing */
		why = dlerror();
		behind = why ? strstr(why, ": ") : NULL;
		return pst_fail(err, -ENOEXEC, "kernel image: cannot be loaded: %s",
				behind ? behind + 2 : "no reason is known");
	}
	image->is = dlsym(image->handle, PST_KERNEL_SYMBOL);
	return check_kernel(image, err);
}

static void destroy(struct pst_image *image)
{
	if (image->handle)
		dlclose(image->handle);
	if (image->fd >= 0)
		close(image->fd);
	free(image);
}

int pst_image_open(int fd, struct pst_image **out, struct pst_error *err)
{
	struct pst_image *image = calloc(1, sizeof(*image));
	int rc;

	if (!image)
		return pst_fail(err, -ENOMEM, "kernel image: no memory for it");
	atomic_init(&image->holders, 1);
	image->fd = take_file(fd, err);
	rc = image->fd < 0 ? image->fd : check_elf(image->fd, err);
	if (!rc)
		rc = load(image, err);
	if (rc < 0) {
		destroy(image);
		return rc;
	}
	*out = image;
	return 0;
}

void pst_image_hold(struct pst_image *image)
{
	if (image)
		atomic_fetch_add(&image->holders, 1);
}

void pst_image_put(struct pst_image *image)
{
	if (image && atomic_fetch_sub(&image->holders, 1) == 1)
		destroy(image);
}

enum pst_op pst_image_op(const struct pst_image *image)
{
	return image->op;
}

const char *pst_image_name(const struct pst_image *image)
{
	return image->is->name;
}

pst_any_fn *pst_image_kernel(const struct pst_image *image)
{
	return image->is->kernel;
}
