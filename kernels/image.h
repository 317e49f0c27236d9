/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - what a shared object exports so that it can serve an op.
 *
 * The author of a kernel includes this and writes, say,
 *
 *	static void add(float *y, const float *x, size_t n) { ... }
 *	PST_KERNEL_IMAGE(add, "add-unrolled", add);
 *
 * and builds it with -shared -fPIC -ffp-contract=off. One image has one kernel. What op.h says of
 * ops holds for it: no state, no heap, no I/O; scratch is thread-local. penstock-kernel(5) tells
 * how it is signed, tried and bound.
 *
 * The ABI of an op is its signature as text, made here when the image is compiled, names of
 * arguments and all: an op whose arguments come to mean something else gets other names for them.
 */
#ifndef PST_IMAGE_H
#define PST_IMAGE_H

#include "kernels/op.h"

#define PST_KERNEL_MAGIC  "PSTKRN1"
#define PST_KERNEL_SYMBOL "pst_kernel_image"

/**
 * struct pst_kernel_image - what lies under PST_KERNEL_SYMBOL
 * @magic: PST_KERNEL_MAGIC
 * @size: sizeof(struct pst_kernel_image) of who compiled it
 * @reserved: 0
 * @op: which op
 * @name: the kernel's own, for people
 * @signature: of the op, as it was compiled against
 * @kernel: the function
 */
struct pst_kernel_image {
	char magic[8];
	uint32_t size;
	uint32_t reserved;
	const char *op, *name, *signature;
	void (*kernel)(void);
};

/* clang-format off */
#define PST_OP_SIGNATURE(op, ret, args) \
	__attribute__((unused)) static const char pst_signature_##op[] = #ret " " #args;
PST_OPS(PST_OP_SIGNATURE, float)
#undef PST_OP_SIGNATURE
/* clang-format on */

/* The first line holds @fn against the op's type. */
#define PST_KERNEL_IMAGE(opname, kernelname, fn)                                          \
	__attribute__((unused)) static pst_##opname##_fn *const pst_kernel_of_type = &fn; \
	extern __attribute__((visibility("default")))                                     \
	const struct pst_kernel_image pst_kernel_image;                                   \
	const struct pst_kernel_image pst_kernel_image = {                                \
		.magic = PST_KERNEL_MAGIC,                                                \
		.size = sizeof(struct pst_kernel_image),                                  \
		.op = #opname,                                                            \
		.name = kernelname,                                                       \
		.signature = pst_signature_##opname,                                      \
		.kernel = (void (*)(void)) & fn,                                          \
	}

#endif /* PST_IMAGE_H */
