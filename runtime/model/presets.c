/* SPDX-License-Identifier: Apache-2.0 */
/* Built-in shapes over bytes: "nano" for tests, "tiny" to train in two minutes (whose init_std is
 * 1/sqrt(hidden): with 0.02 the first half of so short a run goes into growing weights). */
#include "runtime/model/config.h"

#include "rdma/fail.h"

#include <errno.h>
#include <string.h>

static const struct preset {
	const char *name;
	struct pst_config config;
} presets[] = {
	{"nano",
	 {
		 .vocab = 256,
		 .hidden = 32,
		 .layers = 3,
		 .heads = 2,
		 .max_positions = 256,
		 .dense_inter = 64,
		 .dense_layers = 1,
		 .moe_inter = 16,
		 .experts = 8,
		 .shared = 1,
		 .topk = 2,
		 .n_group = 4,
		 .topk_group = 2,
		 .q_lora = 16,
		 .kv_lora = 16,
		 .qk_nope = 8,
		 .qk_rope = 8,
		 .v_dim = 8,
		 .norm_topk = true,
		 .rope_interleave = true,
		 .routed_scale = 2.5,
		 .rms_eps = 1e-6,
		 .rope_theta = 10000,
		 .init_std = 0.02,
	 }},
	{"tiny",
	 {
		 .vocab = 256,
		 .hidden = 96,
		 .layers = 3,
		 .heads = 4,
		 .max_positions = 512,
		 .dense_inter = 288,
		 .dense_layers = 1,
		 .moe_inter = 96,
		 .experts = 16,
		 .shared = 1,
		 .topk = 2,
		 .n_group = 4,
		 .topk_group = 2,
		 .q_lora = 0,
		 .kv_lora = 48,
		 .qk_nope = 16,
		 .qk_rope = 8,
		 .v_dim = 24,
		 .norm_topk = true,
		 .rope_interleave = true,
		 .routed_scale = 2.5,
		 .rms_eps = 1e-6,
		 .rope_theta = 10000,
		 .init_std = 0.1,
	 }},
};

#define COUNT (sizeof(presets) / sizeof(presets[0]))

int pst_config_preset(const char *name, struct pst_config *out, struct pst_error *err)
{
	char names[128] = "";
	size_t n = 0;

	for (size_t i = 0; i < COUNT; i++) {
		if (!strcmp(name, presets[i].name)) {
			*out = presets[i].config;
			return 0;
		}
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "",
				      presets[i].name);
	}
	return pst_fail(err, -ENOENT, "model: there is no built-in shape \"%s\"; there are %s",
			name, names);
}
