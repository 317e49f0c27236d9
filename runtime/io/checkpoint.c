/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/file.h"
#include "runtime/io/format.h"

#include <endian.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pst_checkpoint {
	struct pst_tensor_info *tensors; /* by name */
	size_t count;
	char **paths;
	unsigned int files;
};

/* One line of an index: the tensor @name is in @file. Both belong to the JSON. */
struct entry {
	const char *name, *file;
};

static int by_name(const void *a, const void *b)
{
	const struct pst_tensor_info *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int entry_by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int entry_by_file(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return strcmp(x->file, y->file);
}

static int read_at(int fd, void *buf, size_t len, off_t at)
{
	ssize_t n;

	while (len) {
		n = pread(fd, buf, len, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		buf = (char *)buf + n;
		len -= n;
		at += n;
	}
	return 0;
}

/* The header of the file at @fd, which holds @bytes. */
static int read_header(int fd, uint64_t bytes, char **json, size_t *len, struct pst_error *err)
{
	uint64_t word;
	char *text;
	int rc;

	if (bytes < PST_SAFETENSORS_WORD)
		return pst_refuse(err, "its %llu bytes are too few for a safetensors file",
				  (unsigned long long)bytes);
	rc = read_at(fd, &word, sizeof(word), 0);
	if (rc < 0)
		return pst_fail(err, rc, "its header cannot be read: %s", pst_reason(rc));
	word = le64toh(word);
	if (word > PST_SAFETENSORS_MAX_HEADER)
		return pst_refuse(err,
				  "its header of %llu bytes is longer than the %u allowed; this is "
				  "no safetensors file",
				  (unsigned long long)word, PST_SAFETENSORS_MAX_HEADER);
	if (word > bytes - PST_SAFETENSORS_WORD)
		return pst_refuse(err,
				  "its header of %llu bytes goes past the end at %llu; the file is "
				  "cut off",
				  (unsigned long long)word, (unsigned long long)bytes);
	text = malloc(word + 1);
	if (!text)
		return pst_fail(err, -ENOMEM, "no memory for a header of %llu bytes",
				(unsigned long long)word);
	rc = read_at(fd, text, word, PST_SAFETENSORS_WORD);
	if (rc < 0) {
		free(text);
		return pst_fail(err, rc, "its header cannot be read: %s", pst_reason(rc));
	}
	*json = text;
	*len = word;
	return 0;
}

static int read_tensors(const char *path, struct pst_tensor_info **out, size_t *count,
			struct pst_error *err)
{
	struct pst_error why = {0};
	struct stat st;
	char *json = NULL;
	size_t len = 0;
	int fd, rc;

	fd = pst_file_open(path, PST_FILE_REGULAR, &st, err);
	if (fd < 0)
		return fd;
	rc = read_header(fd, (uint64_t)st.st_size, &json, &len, &why);
	close(fd);
	if (!rc) {
		rc = pst_safetensors_parse(json, len,
					   (uint64_t)st.st_size - PST_SAFETENSORS_WORD - len, out,
					   count, &why);
		free(json);
	}
	return rc < 0 ? pst_fail(err, rc, "%s: %s", path, why.text) : 0;
}

/* Add the file at @path, which the checkpoint then owns, and its tensors. */
static int add_file(struct pst_checkpoint *ckpt, char *path, struct pst_error *err)
{
	struct pst_tensor_info *tensors = NULL, *all;
	size_t count = 0;
	char **paths;
	int rc;

	rc = read_tensors(path, &tensors, &count, err);
	if (rc < 0)
		return rc;
	rc = -ENOMEM;
	paths = realloc(ckpt->paths, (ckpt->files + 1) * sizeof(*paths));
	if (!paths)
		goto free_tensors;
	ckpt->paths = paths;
	all = realloc(ckpt->tensors, (ckpt->count + count + 1) * sizeof(*all));
	if (!all)
		goto free_tensors;
	ckpt->tensors = all;
	for (size_t i = 0; i < count; i++) {
		tensors[i].file = ckpt->files;
		all[ckpt->count++] = tensors[i];
	}
	ckpt->paths[ckpt->files++] = path;
	free(tensors); /* the names have moved */
	return 0;

free_tensors:
	pst_safetensors_free(tensors, count);
	return pst_fail(err, rc, "%s: no memory for %zu tensors", path, count);
}

/* A shard is named relative to the index and stays below its directory. */
static int check_shard_name(const char *index, const struct entry *e, struct pst_error *err)
{
	const char *part = e->file;
	size_t len;

	for (;;) {
		len = strcspn(part, "/");
		if (!len || (len == 1 && part[0] == '.') || (len == 2 && !memcmp(part, "..", 2)))
			return pst_refuse(err,
					  "%s: tensor %.100s is said to be in \"%.100s\", which is "
					  "not below the directory of the index",
					  index, e->name, e->file);
		if (!part[len])
			return 0;
		part += len + 1;
	}
}

static int list_entries(const char *index, json_t *map, struct entry *entries,
			struct pst_error *err)
{
	const char *name;
	json_t *file;
	size_t n = 0;
	int rc;

	json_object_foreach(map, name, file)
	{
		if (!json_is_string(file))
			return pst_refuse(err, "%s: the file of tensor %.200s is not a string",
					  index, name);
		entries[n] = (struct entry){.name = name, .file = json_string_value(file)};
		rc = check_shard_name(index, &entries[n++], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Bytes of the path of @index before its last component. */
static int dir_len(const char *index)
{
	const char *slash = strrchr(index, '/');

	return slash ? (int)(slash - index) + 1 : 0;
}

static int add_shard(struct pst_checkpoint *ckpt, const char *index, const struct entry *e,
		     struct pst_error *err)
{
	struct pst_error why = {0};
	char *path;
	int rc;

	if (asprintf(&path, "%.*s%s", dir_len(index), index, e->file) < 0)
		return pst_fail(err, -ENOMEM, "%s: no memory", index);
	rc = add_file(ckpt, path, &why);
	if (rc >= 0)
		return rc;
	if (rc == -ENOENT)
		pst_fail(err, rc,
			 "%s is missing: %s says that tensor %.100s is in it; fetch it again", path,
			 index, e->name);
	else
		pst_fail(err, rc, "%s", why.text);
	free(path);
	return pst_clean(err, rc);
}

/* Orders @entries by file. */
static int add_shards(struct pst_checkpoint *ckpt, const char *index, struct entry *entries,
		      size_t n, struct pst_error *err)
{
	int rc;

	if (n)
		qsort(entries, n, sizeof(*entries), entry_by_file);
	for (size_t i = 0; i < n; i++) {
		if (i && !strcmp(entries[i].file, entries[i - 1].file))
			continue;
		rc = add_shard(ckpt, index, &entries[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The index and the shards must tell the same. @entries and tensors by name. */
static int compare(const struct pst_checkpoint *ckpt, const char *index,
		   const struct entry *entries, size_t n, struct pst_error *err)
{
	for (size_t i = 0; i < n || i < ckpt->count; i++) {
		const struct pst_tensor_info *t = i < ckpt->count ? &ckpt->tensors[i] : NULL;
		const struct entry *e = i < n ? &entries[i] : NULL;
		int order = !t ? 1 : !e ? -1 : strcmp(t->name, e->name);

		if (order < 0)
			return pst_refuse(err,
					  "%s holds tensor %.200s, which %s does not list there",
					  ckpt->paths[t->file], t->name, index);
		if (order > 0)
			return pst_refuse(err,
					  "%s says that tensor %.200s is in %.100s, which lacks it",
					  index, e->name, e->file);
		if (strcmp(ckpt->paths[t->file] + dir_len(index), e->file))
			return pst_refuse(err,
					  "%s says that tensor %.200s is in %.100s, but %s has it",
					  index, t->name, e->file, ckpt->paths[t->file]);
	}
	return 0;
}

static int follow_index(struct pst_checkpoint *ckpt, const char *index, json_t *map,
			struct pst_error *err)
{
	size_t n = json_object_size(map);
	struct entry *entries = calloc(n ? n : 1, sizeof(*entries));
	int rc;

	if (!entries)
		return pst_fail(err, -ENOMEM, "%s: no memory for %zu tensors", index, n);
	rc = list_entries(index, map, entries, err);
	if (!rc)
		rc = add_shards(ckpt, index, entries, n, err);
	if (!rc && n) {
		qsort(entries, n, sizeof(*entries), entry_by_name);
		qsort(ckpt->tensors, ckpt->count, sizeof(*ckpt->tensors), by_name);
		rc = compare(ckpt, index, entries, n, err);
	}
	free(entries);
	return rc;
}

static int open_index(struct pst_checkpoint *ckpt, const char *index, struct pst_error *err)
{
	json_error_t why;
	json_t *root;
	char *text;
	size_t len;
	int rc;

	rc = pst_file_read(index, PST_INDEX_MAX, &text, &len, err);
	if (rc < 0)
		return rc;
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	free(text);
	if (!root)
		return pst_refuse(err, "%s is not valid JSON at line %d: %s", index, why.line,
				  why.text);
	if (json_is_object(json_object_get(root, "weight_map")))
		rc = follow_index(ckpt, index, json_object_get(root, "weight_map"), err);
	else
		rc = pst_refuse(err, "%s has no weight_map: this is no index of shards", index);
	json_decref(root);
	return rc;
}

static int open_single(struct pst_checkpoint *ckpt, const char *path, struct pst_error *err)
{
	char *copy = strdup(path);
	int rc;

	if (!copy)
		return pst_fail(err, -ENOMEM, "%s: no memory", path);
	rc = add_file(ckpt, copy, err);
	if (rc < 0)
		free(copy);
	return rc;
}

static int open_dir(struct pst_checkpoint *ckpt, const char *dir, const char *stem,
		    struct pst_error *err)
{
	char path[PATH_MAX];
	struct stat st;

	if (snprintf(path, sizeof(path), "%s/%s.safetensors.index.json", dir, stem) >=
	    (int)sizeof(path))
		return pst_fail(err, -ENAMETOOLONG, "%.200s: its path is too long", dir);
	/* What is there and cannot be read is not passed over for something else. */
	if (lstat(path, &st) == 0)
		return open_index(ckpt, path, err);
	*strrchr(path, '.') = '\0'; /* .json */
	*strrchr(path, '.') = '\0'; /* .index */
	if (lstat(path, &st) == 0)
		return open_single(ckpt, path, err);
	return pst_fail(err, -ENOENT,
			"%s holds neither %s.safetensors.index.json nor %s.safetensors", dir, stem,
			stem);
}

static bool is_index(const char *path)
{
	size_t len = strlen(path);

	return len > 5 && !strcmp(path + len - 5, ".json");
}

int pst_checkpoint_open(const char *path, const char *stem, struct pst_checkpoint **out,
			struct pst_error *err)
{
	struct pst_checkpoint *ckpt;
	struct stat st;
	int rc;

	if (!path || !out)
		return pst_fail(err, -EINVAL, "checkpoint_open: wrong arguments");
	ckpt = calloc(1, sizeof(*ckpt));
	if (!ckpt)
		return pst_fail(err, -ENOMEM, "%s: no memory", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		rc = open_dir(ckpt, path, stem ? stem : "model", err);
	else if (is_index(path))
		rc = open_index(ckpt, path, err);
	else
		rc = open_single(ckpt, path, err);
	if (rc < 0) {
		pst_checkpoint_close(ckpt);
		return rc;
	}
	*out = ckpt;
	return 0;
}

void pst_checkpoint_close(struct pst_checkpoint *ckpt)
{
	if (!ckpt)
		return;
	pst_safetensors_free(ckpt->tensors, ckpt->count);
	for (unsigned int i = 0; i < ckpt->files; i++)
		free(ckpt->paths[i]);
	free(ckpt->paths);
	free(ckpt);
}

size_t pst_checkpoint_count(const struct pst_checkpoint *ckpt)
{
	return ckpt->count;
}

const struct pst_tensor_info *pst_checkpoint_at(const struct pst_checkpoint *ckpt, size_t i)
{
	return i < ckpt->count ? &ckpt->tensors[i] : NULL;
}

const struct pst_tensor_info *pst_checkpoint_find(const struct pst_checkpoint *ckpt,
						  const char *name)
{
	struct pst_tensor_info key = {.name = name};

	if (!ckpt->count)
		return NULL;
	return bsearch(&key, ckpt->tensors, ckpt->count, sizeof(key), by_name);
}

unsigned int pst_checkpoint_files(const struct pst_checkpoint *ckpt)
{
	return ckpt->files;
}

const char *pst_checkpoint_path(const struct pst_checkpoint *ckpt, unsigned int file)
{
	return file < ckpt->files ? ckpt->paths[file] : NULL;
}
