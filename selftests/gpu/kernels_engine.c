/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_heads, sum_heads and rope_heads on CUDA against the same written down, and against op rope:
 * in the places that emulate_table.h names. All of them give the bits, so bits are compared; what
 * lies between the parts must stay as it was.
 */
#include "kernels/op.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/lib/test.h"

#include <math.h>

enum { ROWS = 7, LD = 90, ROOM = ROWS * LD, TURNS = 12 };

struct parts {
	size_t ld, head, rows, heads, cols;
};

/* Parts of a row do not overlap, and end within it. */
static const struct parts shapes[] = {
	{90, 30, 7, 3, 30}, /* no gaps */
	{85, 21, 7, 4, 17}, /* gaps, nothing on 16 bytes */
	{80, 40, 5, 2, 33}, /* more columns than a warp has threads */
	{90, 1, 7, 1, 64},  {4, 1, 3, 4, 1},
};
#define SHAPES (sizeof(shapes) / sizeof(*shapes))

static float *numbers(size_t n, uint64_t seed)
{
	float *at = malloc(n * sizeof(*at));

	for (size_t i = 0; i < n; i++)
		at[i] = (float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1;
	return at;
}

TEST(copy_heads)
{
	for (size_t i = 0; i < SHAPES; i++) {
		struct parts s = shapes[i];
		size_t ldy = s.heads * s.cols + 3, head_y = s.cols;
		float *x = numbers(ROOM, i + 1), *y = numbers(ROWS * 200, 50 + i);
		float *want = numbers(ROWS * 200, 50 + i);

		for (int same = 0; same < 2; same++) {
			size_t head_x = same ? 0 : s.head;

			for (size_t r = 0; r < s.rows; r++)
				for (size_t h = 0; h < s.heads; h++)
					memcpy(want + r * ldy + h * head_y,
					       x + r * s.ld + h * head_x, s.cols * sizeof(*x));
			ASSERT_EQ(0,
				  emulate_kernel(PST_CUDA_copy_heads,
						 (void *[]){&y, &ldy, &head_y, &x, &s.ld, &head_x,
							    &s.rows, &s.heads, &s.cols}));
			EXPECT_EQ(0, memcmp(want, y, ROWS * 200 * sizeof(*y)));
		}
		free(want);
		free(y);
		free(x);
	}
}

TEST(sum_heads)
{
	for (size_t i = 0; i < SHAPES; i++) {
		struct parts s = shapes[i];
		size_t ldy = s.cols + 2;
		float *x = numbers(ROOM, i + 1), *y = numbers(ROWS * LD, 9);
		float *want = numbers(ROWS * LD, 9);

		for (int none = 0; none < 2; none++) {
			size_t heads = none ? 0 : s.heads;

			for (size_t r = 0; r < s.rows; r++)
				for (size_t c = 0; c < s.cols; c++) {
					float sum = heads ? x[r * s.ld + c] : 0;

					for (size_t h = 1; h < heads; h++)
						sum += x[r * s.ld + h * s.head + c];
					want[r * ldy + c] = sum;
				}
			ASSERT_EQ(0, emulate_kernel(PST_CUDA_sum_heads,
						    (void *[]){&y, &ldy, &x, &s.ld, &s.head,
							       &s.rows, &heads, &s.cols}));
			EXPECT_EQ(0, memcmp(want, y, ROWS * LD * sizeof(*y)));
		}
		free(want);
		free(y);
		free(x);
	}
}

/* Where element @i of a part lies when pairs lie together. */
static size_t together(size_t i, size_t dim)
{
	return i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1;
}

/* As the op says, a part at a time; with @split from and to where the pairs lie apart. */
static void turn(float *at, size_t dim, const int32_t *pos, const float *cos_t, const float *sin_t,
		 int split, int inverse)
{
	float *row = malloc(dim * sizeof(*row));

	for (size_t i = 0; i < dim; i++)
		row[split && !inverse ? together(i, dim) : i] = at[i];
	pst_ops_ref()->rope(row, dim, 1, dim, pos, cos_t, sin_t, inverse);
	for (size_t i = 0; i < dim; i++)
		at[i] = row[split && inverse ? together(i, dim) : i];
	free(row);
}

/* One that is turned back, which no pair may miss, is what it was but for rounding. */
static void rope(size_t ld, size_t head, size_t rows, size_t heads, size_t dim, int split)
{
	size_t n = rows * ld;
	float *x = numbers(n, dim), *want = numbers(n, dim), *first = numbers(n, dim);
	float *cos_t = numbers(TURNS * dim / 2, 5), *sin_t = numbers(TURNS * dim / 2, 6);
	int32_t *pos = malloc(rows * sizeof(*pos));

	for (size_t i = 0; i < TURNS * dim / 2; i++) {
		sin_t[i] = sinf(3 * cos_t[i]);
		cos_t[i] = cosf(3 * cos_t[i]);
	}
	for (size_t r = 0; r < rows; r++)
		pos[r] = (int32_t)(5 * r % TURNS);
	for (int inverse = 0; inverse < 2; inverse++) {
		for (size_t r = 0; r < rows; r++)
			for (size_t h = 0; h < heads; h++)
				turn(want + r * ld + h * head, dim, pos + r, cos_t, sin_t, split,
				     inverse);
		ASSERT_EQ(0, emulate_kernel(PST_CUDA_rope_heads,
					    (void *[]){&x, &ld, &head, &rows, &heads, &dim, &pos,
						       &cos_t, &sin_t, &split, &inverse}));
		for (size_t i = 0; i < n; i++)
			ASSERT_TRUE(fabsf(x[i] - want[i]) <= 1e-6f);
	}
	for (size_t i = 0; i < n; i++)
		ASSERT_TRUE(fabsf(x[i] - first[i]) <= 1e-5f);
	free(pos);
	free(sin_t);
	free(cos_t);
	free(first);
	free(want);
	free(x);
}

TEST(rope_heads)
{
	for (int split = 0; split < 2; split++) {
		emulate_seed(split + 1);
		rope(90, 30, 7, 3, 16, split);
		rope(75, 25, 5, 3, 6, split);	/* nothing on 16 bytes */
		rope(300, 0, 3, 1, 200, split); /* several pairs a thread */
	}
}

/* As much as there may be: each thread has all the pairs that it can hold. */
TEST(rope_heads_of_the_most)
{
	rope(PST_CUDA_ROPE_MAX, 0, 2, 1, PST_CUDA_ROPE_MAX, 1);
}
