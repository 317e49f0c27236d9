/* SPDX-License-Identifier: Apache-2.0 */
/* compress.c - what general compressors make of the held-out text. */
#include "runtime/train/corpus.h"

#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>

int pst_compress_gzip(const unsigned char *text, size_t bytes, double *bits_per_byte)
{
	z_stream z = {.next_in = (Bytef *)text, .avail_in = (uInt)bytes};
	unsigned char *out;
	size_t room;
	int rc = 0;

	if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	room = deflateBound(&z, bytes);
	out = malloc(room);
	z.next_out = out;
	z.avail_out = (uInt)room;
	if (!out || deflate(&z, Z_FINISH) != Z_STREAM_END)
		rc = -ENOMEM;
	else
		*bits_per_byte = 8.0 * (double)z.total_out / (double)bytes;
	free(out);
	deflateEnd(&z);
	return rc;
}

int pst_compress_xz(const unsigned char *text, size_t bytes, double *bits_per_byte)
{
	size_t room = lzma_stream_buffer_bound(bytes), n = 0;
	unsigned char *out = malloc(room);
	int rc = 0;

	if (!out || lzma_easy_buffer_encode(9, LZMA_CHECK_CRC64, NULL, text, bytes, out, &n,
					    room) != LZMA_OK)
		rc = -ENOMEM;
	else
		*bits_per_byte = 8.0 * (double)n / (double)bytes;
	free(out);
	return rc;
}
