/* SPDX-License-Identifier: Apache-2.0 */
/* Where a pool's pages are: asked of the kernel when it is asked of us, but not each time. */
#include "daemon/pools/pools_priv.h"

#define LOOK_MS 10000

void pools_look(struct pool *pool)
{
	int64_t now = loop_now_ms();

	if (pool->looked_ms && now - pool->looked_ms < LOOK_MS)
		return;
	pool->looked_ms = now;
	pool->unknown =
		pool_memory_look(&pool->memory, pool->looks++, &pool->pages, &pool->elsewhere) != 0;
}
