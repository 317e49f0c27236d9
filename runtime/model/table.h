/* SPDX-License-Identifier: Apache-2.0 */
/* table.h - a model's parameters as the tensors of a table, in the same order. */
#ifndef PST_MODEL_TABLE_H
#define PST_MODEL_TABLE_H

#include "runtime/model/params.h"

#include <penstock/wire.h>

/*
 * *tensor: one per parameter. *unit: numbers that are equal for the tensors of
 * one expert, which stay on one server. Both are malloc'ed. -ENOMEM.
 */
int pst_table_of(const struct pst_config *config, const struct pst_param *param, size_t n,
		 struct pst_wire_tensor **tensor, uint32_t **unit);

#endif /* PST_MODEL_TABLE_H */
