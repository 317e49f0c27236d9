/* SPDX-License-Identifier: Apache-2.0 */
/* host.h - what the public options mean to the floors below. */
#ifndef PST_HOST_H
#define PST_HOST_H

#include "runtime/penstock.h"

/* enum pst_pool_flags that the caller wants. */
uint32_t pst_host_pool_flags(const struct pst_host_options *host);

/*
 * Copy an options struct of @from_size bytes over @to, which holds defaults and
 * has @to_size: a smaller one leaves the rest, a larger one must have zeros behind (-E2BIG).
 */
int pst_host_take_options(void *to, size_t to_size, const void *from, size_t from_size,
			  struct pst_error *err);

#endif /* PST_HOST_H */
