/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/format.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int parse_u64(const json_t *value, uint64_t *out)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EINVAL;
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int parse_dtype(const char *name, const json_t *entry, struct pst_tensor_info *t,
		       struct pst_error *err)
{
	const json_t *value = json_object_get(entry, "dtype");
	int dtype;

	if (!json_is_string(value))
		return pst_refuse(err, "tensor %.200s has no dtype", name);
	dtype = pst_dtype_parse(json_string_value(value), json_string_length(value));
	if (dtype < 0)
		return pst_refuse(err, "tensor %.200s has the dtype %.40s, which is not known",
				  name, json_string_value(value));
	t->dtype = (enum pst_dtype)dtype;
	return 0;
}

static int parse_shape(const char *name, const json_t *entry, struct pst_tensor_info *t,
		       struct pst_error *err)
{
	const json_t *value = json_object_get(entry, "shape");
	size_t ndim;

	if (!json_is_array(value))
		return pst_refuse(err, "tensor %.200s has no shape", name);
	ndim = json_array_size(value);
	if (ndim > PST_MAX_DIMS)
		return pst_refuse(err, "tensor %.200s has %zu dimensions, at most %d are supported",
				  name, ndim, PST_MAX_DIMS);
	for (size_t i = 0; i < ndim; i++)
		if (parse_u64(json_array_get(value, i), &t->shape[i]) < 0)
			return pst_refuse(err,
					  "tensor %.200s: dimension %zu is not a whole number >= 0",
					  name, i);
	t->ndim = (unsigned int)ndim;
	return 0;
}

/* Leaves @offset relative to the data; the caller moves it. */
static int parse_offsets(const char *name, const json_t *entry, uint64_t data_bytes,
			 struct pst_tensor_info *t, struct pst_error *err)
{
	const json_t *value = json_object_get(entry, "data_offsets");
	uint64_t begin, end, bytes;

	if (!json_is_array(value) || json_array_size(value) != 2 ||
	    parse_u64(json_array_get(value, 0), &begin) < 0 ||
	    parse_u64(json_array_get(value, 1), &end) < 0)
		return pst_refuse(err, "tensor %.200s: data_offsets are not two whole numbers >= 0",
				  name);
	if (begin > end || end > data_bytes)
		return pst_refuse(err,
				  "tensor %.200s: data_offsets %llu to %llu are outside of the "
				  "%llu bytes of data; the file is cut off or damaged",
				  name, (unsigned long long)begin, (unsigned long long)end,
				  (unsigned long long)data_bytes);
	if (pst_tensor_bytes(t->dtype, t->ndim, t->shape, &bytes) < 0)
		return pst_refuse(err, "tensor %.200s: its shape is too large", name);
	if (bytes != end - begin)
		return pst_refuse(err,
				  "tensor %.200s: its shape needs %llu bytes, its data_offsets "
				  "give %llu",
				  name, (unsigned long long)bytes,
				  (unsigned long long)(end - begin));
	t->offset = begin;
	t->bytes = bytes;
	return 0;
}

static int parse_tensor(const char *name, const json_t *entry, uint64_t data_bytes,
			struct pst_tensor_info *t, struct pst_error *err)
{
	int rc;

	if (!json_is_object(entry))
		return pst_refuse(err, "tensor %.200s is not a JSON object", name);
	rc = parse_dtype(name, entry, t, err);
	if (!rc)
		rc = parse_shape(name, entry, t, err);
	if (!rc)
		rc = parse_offsets(name, entry, data_bytes, t, err);
	if (rc < 0)
		return rc;
	t->name = strdup(name);
	return t->name ? 0 : pst_fail(err, -ENOMEM, "no memory for the names of tensors");
}

static int check_metadata(json_t *metadata, struct pst_error *err)
{
	const char *key;
	json_t *value;

	if (!metadata)
		return 0;
	if (!json_is_object(metadata))
		return pst_refuse(err, PST_SAFETENSORS_METADATA " is not a JSON object");
	json_object_foreach(metadata, key, value)
	{
		if (!json_is_string(value))
			return pst_refuse(err, PST_SAFETENSORS_METADATA ": %.200s is not a string",
					  key);
	}
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct pst_tensor_info *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
	const struct pst_tensor_info *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* The data must be covered once and wholly. Orders @tensors by offset. */
static int check_cover(struct pst_tensor_info *tensors, size_t count, uint64_t data_bytes,
		       struct pst_error *err)
{
	uint64_t at = 0;

	if (count)
		qsort(tensors, count, sizeof(*tensors), by_offset);
	for (size_t i = 0; i < count; i++) {
		if (tensors[i].offset < at)
			return pst_refuse(err, "tensors %.200s and %.200s overlap",
					  tensors[i - 1].name, tensors[i].name);
		if (tensors[i].offset > at)
			return pst_refuse(
				err, "%llu bytes before tensor %.200s belong to no tensor",
				(unsigned long long)(tensors[i].offset - at), tensors[i].name);
		at += tensors[i].bytes;
	}
	if (at != data_bytes)
		return pst_refuse(err, "the last %llu bytes of the file belong to no tensor",
				  (unsigned long long)(data_bytes - at));
	return 0;
}

static int parse_tensors(json_t *root, uint64_t data_bytes, struct pst_tensor_info *tensors,
			 size_t count, struct pst_error *err)
{
	const char *name;
	json_t *entry;
	size_t i = 0;
	int rc;

	rc = check_metadata(json_object_get(root, PST_SAFETENSORS_METADATA), err);
	if (rc < 0)
		return rc;
	json_object_foreach(root, name, entry)
	{
		if (!strcmp(name, PST_SAFETENSORS_METADATA))
			continue;
		rc = parse_tensor(name, entry, data_bytes, &tensors[i++], err);
		if (rc < 0)
			return rc;
	}
	return check_cover(tensors, count, data_bytes, err);
}

static int load_root(const char *json, size_t len, json_t **root, struct pst_error *err)
{
	json_error_t why;

	if (!len || json[0] != '{')
		return pst_refuse(err, "its header does not start with {");
	*root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
	if (*root)
		return 0;
	if (json_error_code(&why) == json_error_out_of_memory)
		return pst_fail(err, -ENOMEM, "no memory for a header of %zu bytes", len);
	return pst_refuse(err, "its header is not valid JSON at byte %d: %s", why.position,
			  why.text);
}

int pst_safetensors_parse(const char *json, size_t len, uint64_t data_bytes,
			  struct pst_tensor_info **out, size_t *count, struct pst_error *err)
{
	struct pst_tensor_info *tensors;
	uint64_t start;
	json_t *root;
	size_t n;
	int rc;

	if (len > PST_SAFETENSORS_MAX_HEADER)
		return pst_refuse(err, "its header of %zu bytes is longer than the %u allowed", len,
				  PST_SAFETENSORS_MAX_HEADER);
	start = PST_SAFETENSORS_WORD + len;
	if (data_bytes > INT64_MAX - start)
		return pst_refuse(err, "its data is too large");
	rc = load_root(json, len, &root, err);
	if (rc < 0)
		return rc;
	n = json_object_size(root) - !!json_object_get(root, PST_SAFETENSORS_METADATA);
	tensors = calloc(n ? n : 1, sizeof(*tensors));
	if (!tensors) {
		rc = pst_fail(err, -ENOMEM, "no memory for %zu tensors", n);
		goto free_root;
	}
	rc = parse_tensors(root, data_bytes, tensors, n, err);
	if (rc < 0) {
		pst_safetensors_free(tensors, n);
		goto free_root;
	}
	if (n)
		qsort(tensors, n, sizeof(*tensors), by_name);
	for (size_t i = 0; i < n; i++)
		tensors[i].offset += start;
	*out = tensors;
	*count = n;
free_root:
	json_decref(root);
	return rc;
}

void pst_safetensors_free(struct pst_tensor_info *tensors, size_t count)
{
	for (size_t i = 0; tensors && i < count; i++)
		free((char *)tensors[i].name);
	free(tensors);
}
