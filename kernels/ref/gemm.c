/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bf16.h"
#include "kernels/ref/ref.h"

#define FROM_REAL(x) (x)
#define FROM_BF16(x) ((real)pst_bf16_to_f32(x))

/*
 * One element of C is one running sum in order of k, begun with what C held. The loops are
 * nested so that the innermost one walks along rows of B as B is stored.
 */
#define GEMM(name, btype, load)                                                                 \
	void REF(name)(int ta, int tb, size_t m, size_t n, size_t k, const real *a, size_t lda, \
		       const btype *b, size_t ldb, real *c, size_t ldc, int acc)                \
	{                                                                                       \
		for (size_t i = 0; i < m; i++) {                                                \
			real *row = c + i * ldc;                                                \
                                                                                                \
			for (size_t j = 0; j < n && !acc; j++)                                  \
				row[j] = 0;                                                     \
			for (size_t p = 0; p < k && !tb; p++) {                                 \
				real x = ta ? a[p * lda + i] : a[i * lda + p];                  \
                                                                                                \
				for (size_t j = 0; j < n; j++)                                  \
					row[j] += x * load(b[p * ldb + j]);                     \
			}                                                                       \
			for (size_t j = 0; j < n && tb; j++) {                                  \
				real sum = row[j];                                              \
                                                                                                \
				for (size_t p = 0; p < k; p++)                                  \
					sum += (ta ? a[p * lda + i] : a[i * lda + p]) *         \
					       load(b[j * ldb + p]);                            \
				row[j] = sum;                                                   \
			}                                                                       \
		}                                                                               \
	}

GEMM(gemm, real, FROM_REAL)
GEMM(gemm_bf16, uint16_t, FROM_BF16)
