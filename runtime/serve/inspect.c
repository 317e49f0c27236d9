/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - what a checkpoint holds, and whether it fits its config. */
#include "rdma/fail.h"
#include "runtime/io/safetensors.h"
#include "runtime/describe.h"
#include "runtime/model/params.h"
#include "runtime/store/ckptdir.h"
#include "runtime/store/state.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1 << 20)

struct pst_inspect {
	char dir[PATH_MAX];
	struct pst_config config;
	struct pst_checkpoint *ckpt;
	long step;
};

static int read_config(struct pst_inspect *in, struct pst_error *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/config.json", in->dir) >= (int)sizeof(path))
		return pst_fail(err, -ENAMETOOLONG, "%s: path too long", in->dir);
	return pst_config_read(path, &in->config, err);
}

static void read_step(struct pst_inspect *in)
{
	struct pst_state state;

	in->step = pst_state_read(in->dir, &state, NULL) < 0 ? -1 : (long)state.step;
}

static int check_tensors(const struct pst_inspect *in, struct pst_error *err)
{
	struct pst_param *param;
	size_t n;
	int rc = pst_params_list(&in->config, &param, &n);

	if (rc < 0)
		return pst_fail(err, rc, "no memory for a list of parameters");
	for (size_t i = 0; i < n && !rc; i++) {
		const struct pst_tensor_info *t = pst_checkpoint_find(in->ckpt, param[i].name);

		if (!t)
			rc = pst_fail(err, -ENOENT, "%s: tensor %s is missing", in->dir,
				      param[i].name);
		else if (t->ndim != param[i].ndim ||
			 memcmp(t->shape, param[i].shape, t->ndim * sizeof(*t->shape)))
			rc = pst_fail(err, -EINVAL, "%s: tensor %s: its shape is not the config's",
				      in->dir, param[i].name);
	}
	free(param);
	return rc;
}

/* 1: all finite. Formats that cannot hold a NaN are finite. */
static bool finite_values(enum pst_dtype dtype, const unsigned char *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += pst_dtype_bytes(dtype)) {
		uint32_t word = 0;
		uint64_t wide;

		switch (dtype) {
		case PST_F32:
			memcpy(&word, p + i, 4);
			if ((word & 0x7f800000) == 0x7f800000)
				return false;
			break;
		case PST_BF16:
			memcpy(&word, p + i, 2);
			if ((word & 0x7f80) == 0x7f80)
				return false;
			break;
		case PST_F16:
			memcpy(&word, p + i, 2);
			if ((word & 0x7c00) == 0x7c00)
				return false;
			break;
		case PST_F64:
			memcpy(&wide, p + i, 8);
			if ((wide & 0x7ff0000000000000) == 0x7ff0000000000000)
				return false;
			break;
		default:
			return true;
		}
	}
	return true;
}

static int check_values(const struct pst_inspect *in, struct pst_error *err)
{
	unsigned char *buf = malloc(CHUNK);
	int rc = buf ? 0 : pst_fail(err, -ENOMEM, "no memory to read tensors");

	for (size_t i = 0; i < pst_checkpoint_count(in->ckpt) && !rc; i++) {
		const struct pst_tensor_info *t = pst_checkpoint_at(in->ckpt, i);
		const char *path = pst_checkpoint_path(in->ckpt, t->file);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		for (uint64_t at = 0; at < t->bytes && !rc; at += CHUNK) {
			size_t n = t->bytes - at < CHUNK ? t->bytes - at : CHUNK;

			if (pread(fd, buf, n, (off_t)(t->offset + at)) != (ssize_t)n)
				rc = pst_fail(err, -EIO, "%s: tensor %s cannot be read", path,
					      t->name);
			else if (!finite_values(t->dtype, buf, n))
				rc = pst_fail(err, -EINVAL,
					      "%s: tensor %s has NaN or infinity in it", path,
					      t->name);
		}
		if (fd >= 0)
			close(fd);
	}
	free(buf);
	return rc;
}

int pst_inspect_open(const char *dir, int values, struct pst_inspect **out, struct pst_error *err)
{
	struct pst_inspect *in = calloc(1, sizeof(*in));
	int rc;

	if (!in)
		return pst_fail(err, -ENOMEM, "no memory to inspect anything");
	rc = pst_ckptdir_find(dir, in->dir, err);
	if (!rc)
		rc = read_config(in, err);
	if (!rc)
		rc = pst_checkpoint_open(in->dir, "model", &in->ckpt, err);
	if (!rc)
		rc = check_tensors(in, err);
	if (!rc && values)
		rc = check_values(in, err);
	if (rc < 0) {
		pst_inspect_close(in);
		return rc;
	}
	read_step(in);
	*out = in;
	return 0;
}

void pst_inspect_close(struct pst_inspect *in)
{
	if (!in)
		return;
	pst_checkpoint_close(in->ckpt);
	free(in);
}

const char *pst_inspect_dir(const struct pst_inspect *in)
{
	return in->dir;
}

void pst_inspect_model(const struct pst_inspect *in, struct pst_model_info *out)
{
	pst_model_describe(&in->config, out);
	out->files = pst_checkpoint_files(in->ckpt);
}

size_t pst_inspect_count(const struct pst_inspect *in)
{
	return pst_checkpoint_count(in->ckpt);
}

int pst_inspect_tensor(const struct pst_inspect *in, size_t i, struct pst_tensor_desc *out)
{
	const struct pst_tensor_info *t;

	if (i >= pst_checkpoint_count(in->ckpt))
		return -ENOENT;
	t = pst_checkpoint_at(in->ckpt, i);
	*out = (struct pst_tensor_desc){
		.name = t->name,
		.dtype = pst_dtype_name(t->dtype),
		.file = pst_checkpoint_path(in->ckpt, t->file),
		.ndim = t->ndim,
		.bytes = t->bytes,
	};
	memcpy(out->shape, t->shape, sizeof(out->shape));
	return 0;
}

int pst_inspect_step(const struct pst_inspect *in, uint32_t *step)
{
	if (in->step < 0)
		return -ENOENT;
	*step = (uint32_t)in->step;
	return 0;
}
