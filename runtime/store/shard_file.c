/* SPDX-License-Identifier: Apache-2.0 */
/* shard_file.c - a shard to and from a checkpoint's files. */
#include "runtime/store/shard_priv.h"

#include "rdma/fail.h"
#include "runtime/io/loader.h"
#include "runtime/io/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Which file a value is in, and what its name gets behind the tensor's. */
static const struct {
	const char *stem, *suffix;
} value_name[1 + PST_MOMENTS] = {
	{"model", ""},
	{"optimizer", ".exp_avg"},
	{"optimizer", ".exp_avg_sq"},
};

#define FULL_NAME (PST_WIRE_NAME + 16)

static void full_name(const struct pst_shard *s, size_t i, int k, char name[FULL_NAME])
{
	snprintf(name, FULL_NAME, "%s%s", s->tensor[i].name, value_name[k].suffix);
}

/* Loading */

struct source {
	struct pst_checkpoint *ckpt;
	unsigned int *file; /* the loader's number of each of its files */
};

struct load {
	struct pst_shard *shard;
	struct pst_loader *loader;
	struct source source[2]; /* model, optimizer */
	int values;		 /* how many of value[] to load */
};

static int open_source(struct load *l, struct source *src, const char *dir, const char *stem,
		       struct pst_error *err)
{
	unsigned int files;
	int rc = pst_checkpoint_open(dir, stem, &src->ckpt, err);

	if (rc < 0)
		return rc;
	files = pst_checkpoint_files(src->ckpt);
	src->file = calloc(files ? files : 1, sizeof(*src->file));
	if (!src->file)
		return pst_fail(err, -ENOMEM, "no memory for %u files", files);
	for (unsigned int f = 0; f < files && !rc; f++)
		rc = pst_loader_file(l->loader, pst_checkpoint_path(src->ckpt, f), &src->file[f],
				     err);
	return rc;
}

static const struct pst_tensor_info *find_value(const struct load *l, size_t i, int k)
{
	char name[FULL_NAME];

	full_name(l->shard, i, k, name);
	return pst_checkpoint_find(l->source[k > 0].ckpt, name);
}

static int check_value(const struct load *l, size_t i, int k, struct pst_error *err)
{
	const struct pst_wire_tensor *t = &l->shard->tensor[i];
	const struct pst_tensor_info *info = find_value(l, i, k);
	char name[FULL_NAME];

	full_name(l->shard, i, k, name);
	if (!info)
		return pst_fail(err, -ENOENT, "tensor %s: the checkpoint does not have it", name);
	if (info->dtype != PST_F32 && (info->dtype != PST_BF16 || k))
		return pst_fail(err, -ENOTSUP, "tensor %s: format %s cannot be loaded (F32%s can)",
				name, pst_dtype_name(info->dtype), k ? "" : " and BF16");
	if (info->ndim != t->ndim)
		return pst_fail(err, -EINVAL, "tensor %s: %u dimensions, the model has %u", name,
				info->ndim, t->ndim);
	for (unsigned int d = 0; d < t->ndim; d++)
		if (info->shape[d] != t->shape[d])
			return pst_fail(err, -EINVAL,
					"tensor %s: dimension %u is %llu, the model has %llu", name,
					d, (unsigned long long)info->shape[d],
					(unsigned long long)t->shape[d]);
	return 0;
}

static uint64_t room_of(const struct pst_master *m)
{
	return pst_loader_room(PST_LOADER_BLOCK - 1, m->count * sizeof(float));
}

/* Where @info's BF16 lies until it is widened: the first fitting place past the middle. */
static char *half_place(const struct pst_master *m, const struct pst_tensor_info *info)
{
	char *middle = (char *)m->block[0] + m->count * sizeof(uint16_t);
	char *place = pst_loader_target(m->block[0], info->offset);

	while (place < middle)
		place += PST_LOADER_BLOCK;
	return place;
}

/*
 * F32 lands where it stays. BF16 lands in the upper half of its block, so that
 * widening it upwards, front to back, never overtakes what is still to be read.
 */
static int read_value(struct load *l, size_t i, int k, struct pst_error *err)
{
	const struct pst_tensor_info *info = find_value(l, i, k);
	struct pst_master *m = &l->shard->master[i];
	uint64_t room = room_of(m);
	char *block = m->block[k], *dst = pst_loader_target(block, info->offset);

	m->value[k] = (float *)dst;
	if (info->dtype == PST_BF16) {
		m->value[k] = (float *)block;
		dst = half_place(m, info);
	}
	return pst_loader_read(l->loader, l->source[k > 0].file[info->file], info->offset,
			       info->bytes, dst, (uint64_t)(dst - block),
			       (uint64_t)(block + room - dst) - info->bytes, err);
}

static void widen(struct load *l, size_t i)
{
	const struct pst_tensor_info *info = find_value(l, i, 0);
	struct pst_master *m = &l->shard->master[i];
	char *block = m->block[0], *src = half_place(m, info);

	if (info->dtype != PST_BF16)
		return;
	for (uint64_t e = 0; e < m->count; e++) {
		uint16_t half;
		uint32_t bits;

		memcpy(&half, src + e * sizeof(half), sizeof(half));
		bits = (uint32_t)half << 16;
		memcpy(block + e * sizeof(bits), &bits, sizeof(bits));
	}
}

struct finite {
	atomic_size_t bad; /* 1 + the first tensor that is not */
	int values;
};

static void finite_piece(struct pst_shard *s, size_t i, uint64_t from, uint64_t n, void *ctx)
{
	struct finite *f = ctx;
	size_t none = 0;

	for (int k = 0; k < f->values && k < pst_shard_values(s, i); k++)
		for (uint64_t e = from; e < from + n; e++)
			if (!isfinite(s->master[i].value[k][e])) {
				atomic_compare_exchange_strong(&f->bad, &none, i + 1);
				return;
			}
}

static int check_finite(struct load *l, struct pst_error *err)
{
	struct finite f = {.values = l->values};

	pst_shard_pieces(l->shard, finite_piece, &f);
	if (f.bad)
		return pst_fail(err, -EINVAL, "tensor %s: has NaN or infinity in it",
				l->shard->tensor[f.bad - 1].name);
	return 0;
}

static int read_all(struct load *l, struct pst_error *err)
{
	struct pst_shard *s = l->shard;
	int rc = 0, done;

	for (size_t i = 0; i < s->count; i++)
		for (int k = 0; k < l->values && k < pst_shard_values(s, i); k++) {
			rc = check_value(l, i, k, err);
			if (rc < 0)
				return rc;
		}
	for (size_t i = 0; i < s->count && !rc; i++)
		for (int k = 0; k < pst_shard_values(s, i) && !rc; k++) {
			if (k < l->values)
				rc = read_value(l, i, k, err);
			else
				memset(s->master[i].value[k], 0, s->tensor[i].bytes);
		}
	done = pst_loader_wait(l->loader, err);
	if (rc < 0 || done < 0)
		return rc < 0 ? rc : done;
	for (size_t i = 0; i < s->count; i++)
		widen(l, i);
	return check_finite(l, err);
}

int pst_shard_load(struct pst_shard *s, const char *dir, bool optimizer, uint64_t version,
		   struct pst_shard_loaded *out, struct pst_error *err)
{
	struct pst_loader_options lo = {.size = sizeof(lo), .pools = &s->masters_pool, .npools = 1};
	struct load l = {.shard = s, .values = optimizer ? 1 + PST_MOMENTS : 1};
	struct pst_loader_stat stat;
	int rc;

	if (s->version != PST_VERSION_NONE)
		return pst_fail(err, -EBUSY, "the table has values already");
	rc = pst_loader_open(&lo, &l.loader, err);
	if (rc < 0)
		return rc;
	rc = open_source(&l, &l.source[0], dir, value_name[0].stem, err);
	if (!rc && optimizer)
		rc = open_source(&l, &l.source[1], dir, value_name[1].stem, err);
	if (!rc)
		rc = read_all(&l, err);
	if (!rc) {
		pst_loader_stat(l.loader, &stat);
		out->read_bytes = stat.read_bytes;
		out->copied_bytes = stat.copied_bytes;
		memcpy(out->note, stat.note, sizeof(out->note));
		pst_shard_publish(s, version);
	}
	for (int k = 0; k < 2; k++) {
		free(l.source[k].file);
		pst_checkpoint_close(l.source[k].ckpt);
	}
	pst_loader_close(l.loader);
	return rc;
}

/* Saving */

static int save_file(struct pst_shard *s, const char *dir, const char *stem, int from, int to,
		     uint64_t *bytes, struct pst_error *err)
{
	struct pst_tensor_source *src = calloc(s->count * (size_t)(to - from), sizeof(*src));
	char(*name)[FULL_NAME] = calloc(s->count * (size_t)(to - from), sizeof(*name));
	char path[PATH_MAX];
	size_t n = 0;
	int rc = -ENOMEM;

	if (!src || !name) {
		pst_fail(err, rc, "no memory to save %zu tensors", s->count);
		goto free_lists;
	}
	for (size_t i = 0; i < s->count; i++)
		for (int k = from; k < to && k < pst_shard_values(s, i); k++, n++) {
			full_name(s, i, k, name[n]);
			src[n] = (struct pst_tensor_source){
				.name = name[n],
				.dtype = PST_F32,
				.ndim = s->tensor[i].ndim,
				.data = s->master[i].value[k],
			};
			memcpy(src[n].shape, s->tensor[i].shape, sizeof(s->tensor[i].shape));
			*bytes += s->tensor[i].bytes;
		}
	pst_shard_file(path, sizeof(path), dir, stem, s->shard, s->shards);
	rc = pst_safetensors_write(path, src, n, err);
free_lists:
	free(name);
	free(src);
	return rc;
}

void pst_shard_file(char *path, size_t len, const char *dir, const char *stem, uint32_t shard,
		    uint32_t shards)
{
	const char *slash = *dir ? "/" : "";

	if (shards == 1)
		snprintf(path, len, "%s%s%s.safetensors", dir, slash, stem);
	else
		snprintf(path, len, "%s%s%s-%05u-of-%05u.safetensors", dir, slash, stem, shard + 1,
			 shards);
}

int pst_shard_save(struct pst_shard *s, const char *dir, uint64_t *bytes, struct pst_error *err)
{
	uint64_t n = 0;
	int rc;

	if (s->version == PST_VERSION_NONE)
		return pst_fail(err, -EINVAL, "the table has no values to save yet");
	rc = save_file(s, dir, value_name[0].stem, 0, 1, &n, err);
	if (!rc)
		rc = save_file(s, dir, value_name[1].stem, 1, 1 + PST_MOMENTS, &n, err);
	if (!rc)
		*bytes = n;
	return rc;
}
