/* SPDX-License-Identifier: Apache-2.0 */
/* worker_bind.c - by which kernels a worker computes; any thread says so while it does. */
#include "runtime/moe/worker_priv.h"

#include "rdma/fail.h"
#include "runtime/device/image.h"

#include <errno.h>

static int no_such_op(const char *op, struct pst_error *err)
{
	return pst_fail(err, -ENOENT, "kernel: there is no op %.32s", op);
}

int pst_worker_take_kernel(struct pst_worker *w, const char *op, int fd, struct pst_error *err)
{
	enum pst_op which = pst_op_find(op);
	struct pst_image *image = NULL;
	int rc;

	if (which == PST_OP_COUNT)
		return no_such_op(op, err);
	rc = fd < 0 ? 0 : pst_image_open(fd, &image, err);
	if (rc < 0)
		return rc;
	if (image && pst_image_op(image) != which)
		rc = pst_fail(err, -ENOEXEC, "kernel %s: is for op %s, not for %s",
			      pst_image_name(image), pst_op_name(pst_image_op(image)), op);
	else if (pst_device_bind(w->device, which, image))
		rc = pst_fail(err, -ENOMEM, "no memory to bind a kernel for op %s", op);
	pst_image_put(image);
	return rc;
}

/* A few of the shapes each time, so that the thread that asks is not held up for long. */
enum { EDGES = 4 };

int pst_worker_try_kernel(struct pst_worker *w, const char *op, uint64_t seed, double *error,
			  struct pst_error *err)
{
	struct pst_agree_shape shape[EDGES + 1] = {pst_agree_any_shape(seed)};
	enum pst_op which = pst_op_find(op);
	struct pst_agree_result res = {0};
	int rc;

	if (which == PST_OP_COUNT)
		return no_such_op(op, err);
	for (size_t i = 0; i < EDGES; i++)
		shape[1 + i] =
			pst_agree_shapes[(seed % pst_agree_nshapes + i * 5) % pst_agree_nshapes];
	pst_device_enter(w->device);
	rc = pst_agree_op(pst_device_ops(w->device), which, shape, EDGES + 1, seed, 0, &res);
	pst_device_leave(w->device);
	if (rc && rc != -EDOM)
		return pst_fail(err, rc, "%s: cannot be held against ref: no memory", op);
	*error = res.error;
	return rc ? pst_fail(err, rc, "%s", res.text) : 0;
}
