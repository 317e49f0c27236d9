/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/gate.h"

#include <tgmath.h>

/* Keeps a row of scores that are all 0 from dividing by 0. */
#define TINY ((real)1e-20)

void REF(gate_topk)(int32_t *idx, real *w, real *score, const real *logit, const real *bias,
		    size_t rows, size_t e, size_t k, size_t n_group, size_t topk_group, int norm,
		    real scale)
{
	for (size_t r = 0; r < rows; r++, idx += k, w += k, score += e, logit += e) {
		for (size_t i = 0; i < e; i++)
			score[i] = 1 / (1 + exp(-logit[i]));
		pst_gate_choose(idx, score, bias, e, k, n_group, topk_group);
		pst_gate_weigh(w, idx, score, k, norm, scale);
	}
}

/* d loss / d s of the chosen experts of one row, through norm and scale, added to ds[e]. */
static void weights_bwd(real *ds, const real *dw, const int32_t *idx, const real *score, size_t k,
			int norm, real scale)
{
	real sum = 0, dot = 0;

	for (size_t j = 0; j < k; j++) {
		sum += score[idx[j]];
		dot += dw[j] * score[idx[j]];
	}
	sum += TINY;
	for (size_t j = 0; j < k; j++)
		ds[idx[j]] += norm ? scale * (dw[j] - dot / sum) / sum : scale * dw[j];
}

/* The same of all experts of one row through p = s / sum(s), with coef = d loss / d p. */
static void balance_bwd(real *ds, const real *coef, const real *score, size_t e)
{
	real sum = 0, dot = 0;

	for (size_t i = 0; i < e; i++) {
		sum += score[i];
		dot += coef[i] * score[i];
	}
	sum += TINY;
	for (size_t i = 0; i < e; i++)
		ds[i] += (coef[i] - dot / sum) / sum;
}

void REF(gate_bwd)(real *dlogit, const real *dw, const int32_t *idx, const real *score,
		   const real *coef, size_t rows, size_t e, size_t k, int norm, real scale)
{
	for (size_t r = 0; r < rows; r++, dlogit += e, dw += k, idx += k, score += e) {
		for (size_t i = 0; i < e; i++)
			dlogit[i] = 0;
		if (coef)
			balance_bwd(dlogit, coef, score, e);
		weights_bwd(dlogit, dw, idx, score, k, norm, scale);
		for (size_t i = 0; i < e; i++)
			dlogit[i] *= score[i] * (1 - score[i]);
	}
}

real REF(balance)(real *coef, const int32_t *idx, const real *score, size_t rows, size_t e,
		  size_t k, real alpha)
{
	double loss = 0;

	for (size_t i = 0; i < e; i++)
		coef[i] = 0;
	if (!rows || !k)
		return 0;
	for (size_t i = 0; i < rows * k; i++)
		coef[idx[i]] += 1;
	for (size_t i = 0; i < e; i++)
		coef[i] = alpha * ((real)e / (real)(k * rows) * coef[i]) / (real)rows;
	for (size_t r = 0; r < rows; r++, score += e) {
		double sum = 0, dot = 0;

		for (size_t i = 0; i < e; i++) {
			sum += score[i];
			dot += (double)coef[i] * score[i];
		}
		loss += dot / (sum + TINY);
	}
	return (real)loss;
}
