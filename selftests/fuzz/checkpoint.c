/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the index of a checkpoint, over two shards that are sound. */
#include "runtime/io/safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], index_path[128], one[128], two[128];

static void must(int cond)
{
	if (!cond)
		abort();
}

static void remove_all(void)
{
	unlink(index_path);
	unlink(one);
	unlink(two);
	rmdir(dir);
}

static void make_all(void)
{
	static const uint8_t bytes[8];
	const struct pst_tensor_source s[] = {{"a", PST_U8, 1, {4}, bytes},
					      {"b", PST_F32, 1, {1}, bytes},
					      {"c", PST_F16, 1, {2}, bytes}};
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%.40s/pst-fuzz-XXXXXX", tmp ? tmp : "/tmp");
	must(mkdtemp(dir) != NULL);
	snprintf(index_path, sizeof(index_path), "%s/model.safetensors.index.json", dir);
	snprintf(one, sizeof(one), "%s/1", dir);
	snprintf(two, sizeof(two), "%s/2", dir);
	must(pst_safetensors_write(one, s, 2, NULL) == 0);
	must(pst_safetensors_write(two, s + 2, 1, NULL) == 0);
	atexit(remove_all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pst_checkpoint *ckpt = NULL;
	struct pst_error err = {0};
	int fd, rc;

	if (!dir[0])
		make_all();
	fd = open(index_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
	rc = pst_checkpoint_open(dir, "model", &ckpt, &err);
	must(rc == err.code && (rc < 0) == (ckpt == NULL) && (rc < 0) == !!err.text[0]);
	for (const char *c = err.text; *c; c++)
		must((unsigned char)*c >= 0x20);
	/* Nothing outside of the two shards can have been opened. */
	for (unsigned int i = 0; ckpt && i < pst_checkpoint_files(ckpt); i++)
		must(!strcmp(pst_checkpoint_path(ckpt, i), one) ||
		     !strcmp(pst_checkpoint_path(ckpt, i), two));
	pst_checkpoint_close(ckpt);
	return 0;
}
