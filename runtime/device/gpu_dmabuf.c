/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory for others: a dma-buf that a NIC registers. */
#include "runtime/device/gpu_priv.h"

#include <unistd.h>

static int none(struct pst_gpu *gpu, const char *why, struct pst_error *err)
{
	return pst_fail(err, -EOPNOTSUPP,
			"cuda:%d: gives no dma-buf of its memory: %s; with the open kernel modules "
			"of NVIDIA (515 or newer) and Linux 5.12 it does; until then load "
			"nvidia-peermem (modprobe nvidia-peermem), or go through host memory",
			gpu->info.ordinal, why);
}

int pst_gpu_dmabuf(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, int *fd, uint64_t *offset,
		   struct pst_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = at / page * page;
	uint64_t to = (at + bytes + page - 1) / page * page;
	unsigned long long how = gpu->page_tables ? CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE : 0;
	int supported = 0, handle = -1, rc = pst_gpu_enter(gpu, err);
	CUresult got;

	if (rc)
		return rc;
	if (!bytes || !pst_gpu_in_arena(gpu, at, bytes))
		return pst_fail(err, -EFAULT, "cuda:%d: %llu bytes at %#llx are not in its arena",
				gpu->info.ordinal, (unsigned long long)bytes,
				(unsigned long long)at);
	if (!gpu->cu->cuMemGetHandleForAddressRange ||
	    gpu->cu->cuDeviceGetAttribute(&supported, CU_DEVICE_DMA_BUF_SUPPORTED, gpu->dev) ||
	    !supported)
		return none(gpu, "the driver does not support it", err);
	got = gpu->cu->cuMemGetHandleForAddressRange(&handle, from, to - from,
						     CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, how);
	/* drivers before 12.8 do not know the way through PCIe, and platforms without it refuse */
	if (how && got)
		got = gpu->cu->cuMemGetHandleForAddressRange(
			&handle, from, to - from, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
	if (got == CUDA_ERROR_NOT_SUPPORTED)
		return none(gpu, "the driver refuses", err);
	rc = pst_gpu_result(gpu, got, err, "making a dma-buf of %llu bytes",
			    (unsigned long long)bytes);
	if (rc)
		return rc;
	*fd = handle;
	*offset = at - from;
	return 0;
}
