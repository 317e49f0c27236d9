/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c.h - CRC-32C (Castagnoli), as in iSCSI, RFC 3720, section 12.1.
 */
#ifndef PST_RDMA_CRC32C_H
#define PST_RDMA_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of @len bytes at @data, which go on from what @crc is of; 0 to begin. */
uint32_t pst_crc32c(uint32_t crc, const void *data, size_t len);

#endif /* PST_RDMA_CRC32C_H */
