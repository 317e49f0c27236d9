/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admit.h - is there room for a pool? Asked before any of it is taken, because the kernel's
 * own answer to too much memory is to kill somebody.
 *
 * @root is put before paths of /sys and /proc: "" but in tests.
 */
#ifndef PST_ADMIT_H
#define PST_ADMIT_H

#include <stddef.h>
#include <stdint.h>

#define PST_ADMIT_UNLIMITED UINT64_MAX

/* "671 GiB", "8 MiB", "1000 bytes". */
const char *pst_admit_size(char *text, size_t len, uint64_t bytes);

/* Bytes that this process may still lock, and RLIMIT_MEMLOCK, which CAP_IPC_LOCK lifts. */
uint64_t pst_admit_lock(const char *root, uint64_t *limit);

/* Bytes that can be had without swapping: of the machine (MemAvailable), of a node. */
uint64_t pst_admit_memory(const char *root);
uint64_t pst_admit_node(const char *root, int node);

/* Bytes left in the tightest memory cgroup around this process, v1 or v2, and its limit. */
uint64_t pst_admit_cgroup(const char *root, uint64_t *limit);

/* Free huge pages of @page bytes on @node, -1 for all nodes. 0 where there are none. */
uint64_t pst_admit_huge(const char *root, int node, uint64_t page);

#endif /* PST_ADMIT_H */
