/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * importer.h - /dev/penstock_test, a device that imports a dma-buf and tells what it got. Loaded in
 * guests only.
 */
#ifndef SELFTESTS_IMPORTER_H
#define SELFTESTS_IMPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct importer_map - attach to a dma-buf, map it, look at every part, unmap, detach
 * @fd: In. The dma-buf
 * @write: In. 0: for the device to read; 1: to write to as well
 * @fill: In. With @write: the device's writing: the number of a page is put at its begin
 * @out_bytes: Out. What the parts add up to
 * @out_parts: Out. How many the device sees
 * @out_smallest: Out. The smallest of them, in bytes
 * @out_elsewhere: Out. Pages that are not on @node
 * @node: In. Where pages should be
 * @hold_ms: In. How long it stays mapped
 */
struct importer_map {
	__s32 fd;
	__u32 write;
	__u32 fill;
	__s32 node;
	__aligned_u64 out_bytes;
	__aligned_u64 out_parts;
	__aligned_u64 out_smallest;
	__aligned_u64 out_elsewhere;
	__u32 hold_ms;
	__u32 __reserved;
};

#define IMPORTER_MAP _IOWR('P', 1, struct importer_map)

#endif /* SELFTESTS_IMPORTER_H */
