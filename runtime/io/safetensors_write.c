/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/file.h"
#include "runtime/io/format.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DATA_ALIGN 4096u

/* A tensor of the file to be: which source, and where its data goes. */
struct placed {
	const struct pst_tensor_source *source;
	uint64_t begin, bytes;
	size_t elem;
};

/* Larger elements first, so that each lies on a multiple of its size: readers map the data. */
static int by_elem(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;

	if (x->elem != y->elem)
		return x->elem > y->elem ? -1 : 1;
	return (x->source > y->source) - (x->source < y->source);
}

static int place_one(const struct pst_tensor_source *s, struct placed *p, struct pst_error *err)
{
	if (!s->name || !strcmp(s->name, PST_SAFETENSORS_METADATA))
		return pst_refuse(err, "a tensor without a usable name");
	if (s->ndim > PST_MAX_DIMS || pst_tensor_bytes(s->dtype, s->ndim, s->shape, &p->bytes) < 0)
		return pst_refuse(err, "tensor %.200s: wrong dtype or shape", s->name);
	if (p->bytes && !s->data)
		return pst_refuse(err, "tensor %.200s has no data", s->name);
	p->source = s;
	p->elem = pst_dtype_bytes(s->dtype);
	return 0;
}

static int place(const struct pst_tensor_source *tensors, size_t count, struct placed *placed,
		 uint64_t *total, struct pst_error *err)
{
	uint64_t at = 0;
	int rc;

	for (size_t i = 0; i < count; i++) {
		rc = place_one(&tensors[i], &placed[i], err);
		if (rc < 0)
			return rc;
	}
	if (count)
		qsort(placed, count, sizeof(*placed), by_elem);
	for (size_t i = 0; i < count; i++) {
		placed[i].begin = at;
		at += placed[i].bytes;
		if (at > INT64_MAX / 2)
			return pst_refuse(err, "its tensors are too large together");
	}
	*total = at;
	return 0;
}

static json_t *describe(const struct placed *p)
{
	const struct pst_tensor_source *s = p->source;
	json_t *shape = json_array();

	for (unsigned int i = 0; shape && i < s->ndim; i++)
		if (json_array_append_new(shape, json_integer((json_int_t)s->shape[i])) < 0) {
			json_decref(shape);
			shape = NULL;
		}
	return json_pack("{s:s, s:o, s:[I,I]}", "dtype", pst_dtype_name(s->dtype), "shape", shape,
			 "data_offsets", (json_int_t)p->begin, (json_int_t)(p->begin + p->bytes));
}

/* The length word and the JSON, padded with spaces. */
static int pad_header(json_t *root, char **out, size_t *len, struct pst_error *err)
{
	size_t json = json_dumpb(root, NULL, 0, JSON_COMPACT), all;
	char *header;

	all = (PST_SAFETENSORS_WORD + json + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
	if (all - PST_SAFETENSORS_WORD > PST_SAFETENSORS_MAX_HEADER)
		return pst_refuse(err, "a header of %zu bytes is longer than the %u allowed", all,
				  PST_SAFETENSORS_MAX_HEADER);
	header = json ? malloc(all) : NULL;
	if (!header)
		return pst_fail(err, -ENOMEM, "no memory for a header of %zu bytes", all);
	memset(header, ' ', all);
	json_dumpb(root, header + PST_SAFETENSORS_WORD, json, JSON_COMPACT);
	for (unsigned int i = 0; i < PST_SAFETENSORS_WORD; i++)
		header[i] = (char)((all - PST_SAFETENSORS_WORD) >> 8 * i);
	*out = header;
	*len = all;
	return 0;
}

static int make_header(const struct placed *placed, size_t count, char **out, size_t *len,
		       struct pst_error *err)
{
	json_t *root = json_object();
	int rc = 0;

	if (!root)
		return pst_fail(err, -ENOMEM, "no memory for the header");
	for (size_t i = 0; !rc && i < count; i++) {
		const char *name = placed[i].source->name;

		if (json_object_get(root, name))
			rc = pst_refuse(err, "two tensors are named %.200s", name);
		else if (json_object_set_new(root, name, describe(&placed[i])) < 0)
			rc = pst_refuse(err, "the name of a tensor is not valid UTF-8");
	}
	if (!rc)
		rc = pad_header(root, out, len, err);
	json_decref(root);
	return rc;
}

static int write_file(const char *path, char *header, size_t len, const struct placed *placed,
		      size_t count, uint64_t total, struct pst_error *err)
{
	struct iovec *iov = calloc(count + 1, sizeof(*iov));
	struct pst_replace r;
	int rc;

	if (!iov)
		return pst_fail(err, -ENOMEM, "%s: no memory for %zu tensors", path, count);
	iov[0] = (struct iovec){.iov_base = header, .iov_len = len};
	for (size_t i = 0; i < count; i++)
		iov[i + 1] = (struct iovec){.iov_base = (void *)placed[i].source->data,
					    .iov_len = placed[i].bytes};
	rc = pst_replace_begin(&r, path, err);
	if (rc < 0)
		goto free_iov;
	rc = pst_replace_reserve(&r, len + total, err);
	if (!rc)
		rc = pst_replace_write(&r, iov, count + 1, 0, err);
	if (rc < 0)
		pst_replace_abort(&r);
	else
		rc = pst_replace_commit(&r, err);
free_iov:
	free(iov);
	return rc;
}

int pst_safetensors_write(const char *path, const struct pst_tensor_source *tensors, size_t count,
			  struct pst_error *err)
{
	struct pst_error why = {0};
	struct placed *placed;
	char *header = NULL;
	uint64_t total = 0;
	size_t len = 0;
	int rc;

	if (!path || (count && !tensors) || count > UINT32_MAX)
		return pst_fail(err, -EINVAL, "safetensors_write: wrong arguments");
	placed = calloc(count ? count : 1, sizeof(*placed));
	if (!placed)
		return pst_fail(err, -ENOMEM, "%s: no memory for %zu tensors", path, count);
	rc = place(tensors, count, placed, &total, &why);
	if (!rc)
		rc = make_header(placed, count, &header, &len, &why);
	if (rc < 0) {
		pst_fail(err, rc, "%s: not written: %s", path, why.text);
		goto free_placed;
	}
	rc = write_file(path, header, len, placed, count, total, err);
	free(header);
free_placed:
	free(placed);
	return rc;
}

static int make_index(const char *const *names, const char *const *files, size_t count,
		      uint64_t total_bytes, json_t **out, struct pst_error *err)
{
	json_t *map = json_object(), *root;
	int rc = 0;

	for (size_t i = 0; !rc && i < count; i++) {
		if (json_object_get(map, names[i]))
			rc = pst_refuse(err, "two tensors are named %.200s", names[i]);
		else if (json_object_set_new(map, names[i], json_string(files[i])) < 0)
			rc = pst_refuse(err, "a name of tensor %zu is not valid UTF-8", i);
	}
	if (rc < 0) {
		json_decref(map);
		return rc;
	}
	root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total_bytes,
			 "weight_map", map);
	if (!root)
		return pst_fail(err, -ENOMEM, "no memory for the index");
	*out = root;
	return 0;
}

int pst_safetensors_write_index(const char *dir, const char *stem, const char *const *names,
				const char *const *files, size_t count, uint64_t total_bytes,
				struct pst_error *err)
{
	struct pst_error why = {0};
	char path[PATH_MAX], *text;
	json_t *root = NULL;
	int rc;

	if (!dir || !stem || (count && (!names || !files)) || total_bytes > INT64_MAX)
		return pst_fail(err, -EINVAL, "safetensors_write_index: wrong arguments");
	if (snprintf(path, sizeof(path), "%s/%s.safetensors.index.json", dir, stem) >=
	    (int)sizeof(path))
		return pst_fail(err, -ENAMETOOLONG, "%.200s: its path is too long", dir);
	rc = make_index(names, files, count, total_bytes, &root, &why);
	if (rc < 0)
		return pst_fail(err, rc, "%s: not written: %s", path, why.text);
	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (!text)
		return pst_fail(err, -ENOMEM, "%s: no memory for the index", path);
	rc = pst_file_replace(path, text, strlen(text), err);
	free(text);
	return rc;
}
