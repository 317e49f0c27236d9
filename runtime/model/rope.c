/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model/rope.h"

#include <math.h>

static double mscale(double factor, double m)
{
	return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The dimension whose pair turns @turns times over the original context. */
static double dim_of_turns(const struct pst_config *cfg, double turns)
{
	return cfg->qk_rope * log(cfg->yarn.original_positions / (turns * 2 * M_PI)) /
	       (2 * log(cfg->rope_theta));
}

/* Share of pair @i that is interpolated: 0 for fast pairs, 1 for slow ones. */
static double interpolated(const struct pst_config *cfg, size_t i)
{
	double low = fmax(floor(dim_of_turns(cfg, cfg->yarn.beta_fast)), 0);
	double high = fmin(ceil(dim_of_turns(cfg, cfg->yarn.beta_slow)), cfg->qk_rope - 1);

	if (low == high)
		high += 0.001; /* as published, against a division by zero */
	return fmin(fmax(((double)i - low) / (high - low), 0), 1);
}

static float inverse_frequency(const struct pst_config *cfg, size_t i)
{
	double f = pow(cfg->rope_theta, -2.0 * (double)i / cfg->qk_rope), slow;

	if (cfg->yarn.factor == 0)
		return (float)f;
	slow = interpolated(cfg, i);
	return (float)(f / cfg->yarn.factor * slow + f * (1 - slow));
}

static double attention_factor(const struct pst_config *cfg)
{
	double factor = cfg->yarn.factor;

	if (factor == 0)
		return 1;
	if (cfg->yarn.mscale != 0 && cfg->yarn.mscale_all_dim != 0)
		return mscale(factor, cfg->yarn.mscale) / mscale(factor, cfg->yarn.mscale_all_dim);
	return mscale(factor, 1);
}

/* Angles are products in fp32, as the models were trained. */
void pst_rope_tables(const struct pst_config *cfg, size_t positions, float *cos_t, float *sin_t)
{
	size_t half = cfg->qk_rope / 2;
	double factor = attention_factor(cfg);

	for (size_t i = 0; i < half; i++) {
		float f = inverse_frequency(cfg, i);

		for (size_t p = 0; p < positions; p++) {
			float angle = (float)p * f;

			cos_t[p * half + i] = (float)(cos(angle) * factor);
			sin_t[p * half + i] = (float)(sin(angle) * factor);
		}
	}
}

double pst_rope_softmax_scale(const struct pst_config *cfg)
{
	double scale = 1 / sqrt((double)cfg->qk_nope + cfg->qk_rope), m;

	if (cfg->yarn.factor == 0 || cfg->yarn.mscale_all_dim == 0)
		return scale;
	m = mscale(cfg->yarn.factor, cfg->yarn.mscale_all_dim);
	return scale * m * m;
}
