/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/describe.h"

#include "runtime/model/params.h"

#include <stdlib.h>

void pst_model_describe(const struct pst_config *c, struct pst_model_info *out)
{
	struct pst_param *param;
	uint64_t all = 0, routed = 0;
	size_t n;

	*out = (struct pst_model_info){
		.layers = c->layers,
		.dense_layers = c->dense_layers,
		.hidden = c->hidden,
		.experts = c->experts,
		.topk = c->topk,
		.shared = c->shared,
		.vocab = c->vocab,
	};
	if (pst_params_list(c, &param, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		uint64_t size = 1;

		for (unsigned int d = 0; d < param[i].ndim; d++)
			size *= param[i].shape[d];
		all += size;
		routed += param[i].expert >= 0 ? size : 0;
	}
	free(param);
	out->parameters = all;
	out->active = all - routed + (c->experts ? routed / c->experts * c->topk : 0);
}
