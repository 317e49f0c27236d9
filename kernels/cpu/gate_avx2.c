/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid by vectors, and the choice on a copy of the row in which what is taken or out
 * becomes -inf. When nothing finite is left (NaN logits, too few groups), or the row is too long
 * for the copy, the choice of the reference decides, which knows those cases.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"
#include "kernels/ref/gate.h"

enum { MAX_EXPERTS = 1024 };

static void sigmoids(float *score, const float *logit, size_t e)
{
	for (size_t i = 0; i < e; i += 8)
		pst_store_ps(score + i, e - i, pst_sigmoid_ps(pst_load_ps(logit + i, e - i)));
}

/* The largest of v[n] (n a multiple of 8, padded with -inf) and the first that has it. */
static struct pst_rank best(const float *v, size_t n)
{
	__m256 max = _mm256_load_ps(v), all;
	size_t i;

	for (i = 8; i < n; i += 8)
		max = _mm256_max_ps(max, _mm256_load_ps(v + i));
	all = _mm256_set1_ps(pst_hmax_ps(max));
	for (i = 0; i < n; i += 8) {
		int is = _mm256_movemask_ps(_mm256_cmp_ps(all, _mm256_load_ps(v + i), _CMP_EQ_OQ));

		if (is)
			return (struct pst_rank){_mm256_cvtss_f32(all),
						 i + (size_t)__builtin_ctz((unsigned int)is)};
	}
	return (struct pst_rank){-INFINITY, 0};
}

/* Takes the groups out of @v that are not among the @topk best; false if ref must decide. */
static bool drop_groups(float *v, const float *score, const float *bias, size_t size,
			size_t n_group, size_t topk)
{
	_Alignas(32) float left[MAX_EXPERTS];
	size_t n = 0;

	for (; n < n_group; n++)
		left[n] = pst_gate_group(score, bias, n * size, size);
	for (; n % 8; n++)
		left[n] = -INFINITY;
	for (size_t t = 0; t < topk && t < n_group; t++) {
		struct pst_rank r = best(left, n);

		if (r.value == -INFINITY)
			return false;
		left[r.index] = -INFINITY;
	}
	for (size_t i = 0; i < n_group * size; i++)
		if (left[i / size] != -INFINITY)
			v[i] = -INFINITY;
	return true;
}

/* What competes: score + bias, -inf where the expert is NaN or its group is out. */
static bool choose(int32_t *idx, const float *score, const float *bias, size_t e, size_t k,
		   size_t n_group, size_t topk_group)
{
	_Alignas(32) float v[MAX_EXPERTS];
	size_t n = 0;

	if (!e || e > MAX_EXPERTS)
		return false;
	for (; n < e; n++)
		v[n] = pst_gate_value(score, bias, n);
	for (; n % 8; n++)
		v[n] = -INFINITY;
	if (n_group > 1 && !drop_groups(v, score, bias, e / n_group, n_group, topk_group))
		return false;
	for (size_t j = 0; j < k; j++) {
		struct pst_rank r = best(v, n);
		size_t at = j;

		if (r.value == -INFINITY)
			return false;
		v[r.index] = -INFINITY;
		for (; at && idx[at - 1] > (int32_t)r.index; at--)
			idx[at] = idx[at - 1];
		idx[at] = (int32_t)r.index;
	}
	return true;
}

void pst_avx2_gate_topk(int32_t *idx, float *w, float *score, const float *logit, const float *bias,
			size_t rows, size_t e, size_t k, size_t n_group, size_t topk_group,
			int norm, float scale)
{
	n_group = n_group ? n_group : 1;
	for (size_t r = 0; r < rows; r++, idx += k, w += k, score += e, logit += e) {
		sigmoids(score, logit, e);
		if (!choose(idx, score, bias, e, k, n_group, topk_group))
			pst_gate_choose(idx, score, bias, e, k, n_group, topk_group);
		pst_gate_weigh(w, idx, score, k, norm, scale);
	}
}
