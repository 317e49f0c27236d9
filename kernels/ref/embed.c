/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

void REF(embed)(real *y, const real *table, const int32_t *id, size_t rows, size_t cols)
{
	REF(gather)(y, table, id, rows, cols);
}

void REF(embed_bwd)(real *dtable, size_t ldt, const real *dy, size_t lddy, const int32_t *id,
		    size_t rows, size_t vocab, size_t cols)
{
	for (size_t i = 0; i < vocab; i++)
		for (size_t c = 0; c < cols; c++)
			dtable[i * ldt + c] = 0;
	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			dtable[(size_t)id[r] * ldt + c] += dy[r * lddy + c];
}
