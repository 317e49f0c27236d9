/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/train/corpus.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define MAX_TEXT  (8ull << 30)
#define MAX_FILE  (4ull << 30)
#define MAX_DEPTH 32
#define HELD_OUT  200000

struct reader {
	struct pst_corpus c;
	size_t room;
	size_t *start; /* of each file */
	size_t nstart;
	struct pst_error *err;
};

static int make_room(struct reader *r, size_t more)
{
	size_t room = r->room ? r->room : 1 << 20;
	void *grown;

	if (r->c.bytes + more > MAX_TEXT)
		return pst_fail(r->err, -EFBIG, "more than %llu GiB of text in all",
				MAX_TEXT >> 30);
	while (room < r->c.bytes + more)
		room *= 2;
	if (room == r->room)
		return 0;
	grown = realloc(r->c.text, room);
	if (!grown)
		return pst_fail(r->err, -ENOMEM, "no memory for %zu bytes of text", room);
	r->c.text = grown;
	r->room = room;
	return 0;
}

static int append(struct reader *r, const void *data, size_t n)
{
	int rc = make_room(r, n);

	if (rc < 0)
		return rc;
	memcpy(r->c.text + r->c.bytes, data, n);
	r->c.bytes += n;
	return 0;
}

static int unpack(struct reader *r, const char *path, char *data, size_t len)
{
	z_stream z = {.next_in = (Bytef *)data, .avail_in = (uInt)len};
	unsigned char out[65536];
	int rc = 0, zrc;

	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return pst_fail(r->err, -ENOMEM, "%s: no memory to unpack it", path);
	do {
		z.next_out = out;
		z.avail_out = sizeof(out);
		zrc = inflate(&z, Z_NO_FLUSH);
		if (zrc != Z_OK && zrc != Z_STREAM_END)
			rc = pst_fail(r->err, -EINVAL, "%s: broken or cut off gzip data", path);
		else
			rc = append(r, out, sizeof(out) - z.avail_out);
		/* one file may hold several gzip members */
		if (!rc && zrc == Z_STREAM_END && z.avail_in)
			zrc = inflateReset(&z);
	} while (!rc && zrc == Z_OK);
	inflateEnd(&z);
	return rc;
}

static int check_text(struct reader *r, const char *path, size_t from)
{
	const unsigned char *nul = memchr(r->c.text + from, 0, r->c.bytes - from);

	if (nul)
		return pst_fail(r->err, -EINVAL, "%s: binary data (a NUL at byte %zu), not text",
				path, (size_t)(nul - (r->c.text + from)));
	return 0;
}

static int mark_start(struct reader *r)
{
	if (r->nstart % 1024 == 0) {
		size_t *grown = realloc(r->start, (r->nstart + 1024) * sizeof(*grown));

		if (!grown)
			return pst_fail(r->err, -ENOMEM, "no memory for a list of files");
		r->start = grown;
	}
	r->start[r->nstart++] = r->c.bytes;
	return 0;
}

static int read_file(struct reader *r, const char *path)
{
	size_t from = r->c.bytes, len;
	char *data;
	int rc = pst_file_read(path, MAX_FILE - 1, &data, &len, r->err);

	if (rc < 0)
		return rc;
	rc = mark_start(r);
	if (!rc)
		rc = make_room(r, 1);
	if (!rc && len > 2 && !memcmp(data, "\x1f\x8b", 2))
		rc = unpack(r, path, data, len);
	else if (!rc)
		rc = append(r, data, len);
	free(data);
	if (!rc)
		rc = check_text(r, path, from);
	if (rc < 0)
		return rc;
	if (r->c.bytes == from) { /* empty: no page */
		r->nstart--;
		return 0;
	}
	r->c.files++;
	return append(r, "", 1);
}

static int read_path(struct reader *r, const char *path, int depth);

static int not_hidden(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* In a directory only files and directories count: links may be second names. */
static bool counts(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static int read_dir(struct reader *r, const char *path, int depth)
{
	struct dirent **entry;
	int n = scandir(path, &entry, not_hidden, by_bytes), rc = 0;
	char sub[PATH_MAX];

	if (n < 0)
		return pst_fail(r->err, -errno, "%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (!rc && (size_t)snprintf(sub, sizeof(sub), "%s/%s", path, entry[i]->d_name) >=
				   sizeof(sub))
			rc = pst_fail(r->err, -ENAMETOOLONG, "%s: path too long", path);
		if (!rc && counts(sub))
			rc = read_path(r, sub, depth + 1);
		free(entry[i]);
	}
	free(entry);
	return rc;
}

static int read_list(struct reader *r, const char *path)
{
	char *list, *line, *save = NULL;
	size_t len;
	int rc = pst_file_read(path, 1 << 28, &list, &len, r->err);

	if (rc < 0)
		return rc;
	for (line = strtok_r(list, "\n", &save); line && !rc; line = strtok_r(NULL, "\n", &save))
		rc = read_path(r, line, 0);
	free(list);
	return rc;
}

static int read_path(struct reader *r, const char *path, int depth)
{
	struct stat st;

	if (path[0] == '@' && !depth)
		return read_list(r, path + 1);
	if (stat(path, &st))
		return pst_fail(r->err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode))
		return read_file(r, path);
	if (!S_ISDIR(st.st_mode))
		return pst_fail(r->err, -EINVAL,
				"%s: neither a file nor a directory (text is read from those)",
				path);
	if (depth >= MAX_DEPTH)
		return pst_fail(r->err, -ELOOP, "%s: more than %d directories deep", path,
				MAX_DEPTH);
	return read_dir(r, path, depth);
}

/* Whole pages at the end; a page that is most of the text is cut. */
static void split(struct reader *r)
{
	size_t want = r->c.bytes / 10 < HELD_OUT ? r->c.bytes / 10 : HELD_OUT;
	size_t cut = r->c.bytes - want;

	for (size_t i = r->nstart; i-- > 0;) {
		if (r->start[i] > cut)
			continue;
		if (r->c.bytes - r->start[i] <= 2 * want)
			cut = r->start[i];
		break;
	}
	r->c.train = cut;
}

static uint64_t hash_of(const struct pst_corpus *c)
{
	uint64_t h = 0xcbf29ce484222325ull ^ c->train; /* FNV-1a */

	for (size_t i = 0; i < c->bytes; i++)
		h = (h ^ c->text[i]) * 0x100000001b3ull;
	return h;
}

int pst_corpus_read(const char *const *paths, size_t npaths, size_t row, struct pst_corpus *out,
		    struct pst_error *err)
{
	struct reader r = {.err = err};
	int rc = 0;

	for (size_t i = 0; i < npaths && !rc; i++)
		rc = read_path(&r, paths[i], 0);
	if (!rc && !r.c.bytes)
		rc = pst_fail(err, -ENODATA, "%s: no text in %s", npaths ? paths[0] : "--data",
			      npaths > 1 ? "any of the paths" : "it");
	if (!rc) {
		split(&r);
		if (r.c.train < row + 2 || r.c.bytes - r.c.train < 2)
			rc = pst_fail(err, -ENODATA,
				      "%s: %zu bytes of text in all; rows of %zu bytes need "
				      "at least %zu",
				      paths[0], r.c.bytes, row, (row + 2) * 10 / 9 + 20);
	}
	free(r.start);
	if (rc < 0) {
		free(r.c.text);
		return rc;
	}
	r.c.hash = hash_of(&r.c);
	*out = r.c;
	return 0;
}

void pst_corpus_free(struct pst_corpus *c)
{
	free(c->text);
	c->text = NULL;
}
