/* SPDX-License-Identifier: Apache-2.0 */
/* describe.h - a model's size, for people. */
#ifndef PST_DESCRIBE_H
#define PST_DESCRIBE_H

#include "runtime/model/config.h"
#include "runtime/penstock.h"

/* Fills in what the config alone says; the rest is 0. */
void pst_model_describe(const struct pst_config *config, struct pst_model_info *out);

#endif /* PST_DESCRIBE_H */
