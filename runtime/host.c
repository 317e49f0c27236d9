/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/host.h"

#include "rdma/fail.h"
#include "runtime/mem/pool.h"

#include <errno.h>
#include <string.h>

uint32_t pst_host_pool_flags(const struct pst_host_options *host)
{
	uint32_t flags = 0;

	if (host->huge)
		flags |= PST_POOL_HUGE;
	if (host->lock)
		flags |= PST_POOL_LOCK;
	if (host->lock > 1)
		flags |= PST_POOL_LOCK_MUST;
	return flags;
}

int pst_host_take_options(void *to, size_t to_size, const void *from, size_t from_size,
			  struct pst_error *err)
{
	const unsigned char *tail = from;

	if (from_size < sizeof(size_t))
		return pst_fail(err, -EINVAL, "options without their size (see pst_*_defaults)");
	for (size_t i = to_size; i < from_size; i++)
		if (tail[i])
			return pst_fail(err, -E2BIG,
					"options of a newer penstock.h than this library's");
	memcpy(to, from, from_size < to_size ? from_size : to_size);
	return 0;
}
