/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corpus.h - the text that a model is trained on.
 *
 * Files are read in the order given; a directory stands for its regular files,
 * below it too, sorted by path; "@list" for the paths in a file, one a line. What begins as gzip
 * does is unpacked while it is read. A NUL stands behind each file. The last
 * pages, 200,000 bytes or a tenth if that is less, are held out.
 *
 * Refused, with one sentence that names the path: what is neither file nor
 * directory, links that loop, broken gzip, binary data (a NUL byte), text too short for one batch
 * row.
 */
#ifndef PST_CORPUS_H
#define PST_CORPUS_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_corpus {
	unsigned char *text;
	size_t bytes;
	size_t train; /* bytes before the held-out part */
	uint32_t files;
	uint64_t hash; /* of all of it and where it is split */
};

int pst_corpus_read(const char *const *paths, size_t npaths, size_t row, struct pst_corpus *out,
		    struct pst_error *err);
void pst_corpus_free(struct pst_corpus *corpus);

/* Bits per byte of gzip -9 and xz -9 over @text. */
int pst_compress_gzip(const unsigned char *text, size_t bytes, double *bits_per_byte);
int pst_compress_xz(const unsigned char *text, size_t bytes, double *bits_per_byte);

#endif /* PST_CORPUS_H */
