/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file: as a header in memory, and as a file that is opened. */
#include "runtime/io/safetensors.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int cond)
{
	if (!cond)
		abort();
}

/* What was taken covers the data once, in order of name. */
static void check(const struct pst_tensor_info *t, size_t count, uint64_t start, uint64_t end)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++) {
		must(t[i].name && t[i].offset >= start && t[i].offset <= end);
		must(t[i].bytes <= end - t[i].offset && t[i].ndim <= PST_MAX_DIMS);
		must(!i || strcmp(t[i - 1].name, t[i].name) < 0);
		sum += t[i].bytes;
	}
	must(sum == end - start);
}

static void parse(const char *json, size_t len, uint64_t data_bytes)
{
	struct pst_tensor_info *tensors = NULL;
	struct pst_error err = {0};
	size_t count = 0;
	int rc = pst_safetensors_parse(json, len, data_bytes, &tensors, &count, &err);

	must(rc == err.code && (rc < 0) == (tensors == NULL) && (rc < 0) == !!err.text[0]);
	if (rc == 0)
		check(tensors, count, 8 + len, 8 + len + data_bytes);
	pst_safetensors_free(tensors, count);
}

static void open_file(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct pst_checkpoint *ckpt = NULL;
	struct pst_error err = {0};
	char path[32];
	int rc;

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = pst_checkpoint_open(path, NULL, &ckpt, &err);
	must(rc == err.code && (rc < 0) == (ckpt == NULL));
	for (size_t i = 0; ckpt && i < pst_checkpoint_count(ckpt); i++) {
		const struct pst_tensor_info *t = pst_checkpoint_at(ckpt, i);

		must(pst_checkpoint_find(ckpt, t->name) == t && t->offset + t->bytes <= size);
	}
	pst_checkpoint_close(ckpt);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t word;

	open_file(data, size);
	if (size < sizeof(word))
		return 0;
	memcpy(&word, data, sizeof(word));
	word = le64toh(word);
	/* The header as the file says; and all of it, over data of any size. */
	if (word <= size - sizeof(word))
		parse((const char *)data + 8, word, size - 8 - word);
	parse((const char *)data + 8, size - 8, word);
	return 0;
}
