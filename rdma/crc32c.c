/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/crc32c.h"

#include <isa-l/crc.h>

#define PIECE (1u << 30) /* the library counts in int */

uint32_t pst_crc32c(uint32_t crc, const void *data, size_t len)
{
	/* It only reads, although its prototype does not say so. */
	unsigned char *p = (unsigned char *)(uintptr_t)data;

	crc = ~crc;
	while (len) {
		size_t n = len < PIECE ? len : PIECE;

		crc = crc32_iscsi(p, (int)n, crc);
		p += n;
		len -= n;
	}
	return ~crc;
}
