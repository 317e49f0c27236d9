/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model/table.h"

#include "runtime/io/dtype.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe(const struct pst_config *config, const struct pst_param *p,
		     struct pst_wire_tensor *t)
{
	_Static_assert(sizeof(p->name) <= sizeof(t->name), "names must fit");
	memcpy(t->name, p->name, sizeof(p->name));
	t->dtype = PST_F32;
	t->ndim = p->ndim;
	for (unsigned int d = 0; d < p->ndim; d++)
		t->shape[d] = p->shape[d];
	switch (p->kind) {
	case PST_PARAM_MATRIX:
		t->init = PST_INIT_NORMAL;
		t->init_std = config->init_std;
		t->flags = PST_TENSOR_DECAY;
		break;
	case PST_PARAM_NORM:
		t->init = PST_INIT_ONE;
		break;
	case PST_PARAM_BIAS:
		t->init = PST_INIT_ZERO;
		t->flags = PST_TENSOR_LOAD;
		break;
	}
}

int pst_table_of(const struct pst_config *config, const struct pst_param *param, size_t n,
		 struct pst_wire_tensor **tensor, uint32_t **unit)
{
	struct pst_wire_tensor *t = calloc(n, sizeof(*t));
	uint32_t *u = calloc(n, sizeof(*u));

	if (!t || !u) {
		free(t);
		free(u);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		bool same = i && param[i].expert >= 0 && param[i].expert == param[i - 1].expert &&
			    param[i].layer == param[i - 1].layer;

		describe(config, &param[i], &t[i]);
		u[i] = i ? u[i - 1] + !same : 0;
	}
	*tensor = t;
	*unit = u;
	return 0;
}
