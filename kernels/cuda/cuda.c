/* SPDX-License-Identifier: Apache-2.0 */
/* What the CUDA kernels' launches look like. */
#include "kernels/cuda/cuda.h"

#include <errno.h>
#include <string.h>

#define MOST_GRID     65536u /* more are not needed where blocks go on by themselves */
#define MOST_X	      0x7fffffffu
#define MOST_YZ	      65535u
#define PLAIN_SHARED  49152u	    /* what a launch gets unasked */
#define MOST_VALUES   (166912u / 4) /* shared memory of sm_80, the least of our targets */
#define COLUMN_BLOCK  512u	    /* rmsnorm.cu: DW_WARPS * 32 */
#define BALANCE_BLOCK 1024u	    /* gate.cu: BALANCE_WARPS * 32 */
#define EMBED_ROWS    32u	    /* rows.cu */

static size_t over(size_t n, size_t by)
{
	return n / by + (n % by != 0);
}

static uint32_t clamp(size_t n, uint32_t least, uint32_t most)
{
	if (n < least)
		return least;
	return n > most ? most : (uint32_t)n;
}

static int line(struct pst_cuda_launch *l, size_t grid, uint32_t block)
{
	*l = (struct pst_cuda_launch){{clamp(grid, 1, MOST_GRID), 1, 1}, block, 0};
	return 0;
}

/* Threads for a row of @cols, four elements each: whole warps. */
static uint32_t row_block(size_t cols, uint32_t most)
{
	return 32 * clamp(over(cols, 128), 1, most / 32);
}

/* Blocks of @each for n times m of something, most of which may be left to loops. */
static int product(struct pst_cuda_launch *l, size_t n, size_t m, size_t each, uint32_t block)
{
	size_t most = (size_t)MOST_GRID * each;

	return line(l, m && n > most / m ? MOST_GRID : over(n * m, each), block);
}

/* A shape makes the launch for the sizes @z that its kernel's line in cuda.h names. */

static int quads(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], 4 * 256), 256);
}

static int eights(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], 8 * 256), 256);
}

static int rows(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, z[0], row_block(z[1], 256));
}

static int vocab(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, z[0], row_block(z[1], 1024));
}

static int slots(const size_t *z, struct pst_cuda_launch *l)
{
	return product(l, z[0], z[1], 1, row_block(z[2], 256));
}

static int dots(const size_t *z, struct pst_cuda_launch *l)
{
	return product(l, z[0], z[1], 4, 128);
}

static int warps(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], 4), 128);
}

static int columns(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], 32), COLUMN_BLOCK);
}

static int embed_bwd(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], EMBED_ROWS), row_block(z[1], 256));
}

static int one_block(const size_t *z, struct pst_cuda_launch *l)
{
	(void)z;
	return line(l, 1, BALANCE_BLOCK);
}

static int one_warp(const size_t *z, struct pst_cuda_launch *l)
{
	(void)z;
	return line(l, 1, 32);
}

static int sumsq(const size_t *z, struct pst_cuda_launch *l)
{
	(void)z;
	return line(l, 1, PST_CUDA_SUMSQ_THREADS);
}

static int parts(const size_t *z, struct pst_cuda_launch *l)
{
	(void)z;
	return line(l, PST_CUDA_SUMSQ_PARTS, PST_CUDA_SUMSQ_THREADS);
}

/* As many rows a block as find place for their values in plain shared memory, up to four. */
static int gate(const size_t *z, struct pst_cuda_launch *l)
{
	uint32_t bytes, n;

	if (z[1] > MOST_VALUES || z[2] > MOST_VALUES || z[1] + z[2] > MOST_VALUES)
		return -EINVAL;
	bytes = (uint32_t)(z[1] + z[2]) * 4;
	n = clamp(bytes ? PLAIN_SHARED / bytes : 4, 1, 4);
	line(l, over(z[0], n), 32 * n);
	l->shared = (bytes * n + 15) / 16 * 16;
	return 0;
}

/*
 * Experts: how many tiles of rows there are only the device knows, so there are as many blocks as
 * there could be: each of n experts may end within one. @z: n, rows, columns of the result, terms.
 */
static int tiles(const size_t *z, uint32_t of, uint32_t tile, uint32_t shared,
		 struct pst_cuda_launch *l)
{
	if (!z[2] || z[2] % 8 || !z[3] || z[3] % 8)
		return -EINVAL;
	if (z[0] > MOST_X / 2 || z[1] > MOST_X / 2 || z[2] > (size_t)MOST_YZ * tile)
		return -E2BIG;
	*l = (struct pst_cuda_launch){
		{clamp(z[1] / of + z[0], 1, MOST_X), (uint32_t)over(z[2], tile), 1},
		PST_CUDA_EXPERTS_THREADS(of),
		shared};
	return 0;
}

#define TILES(of)                                                                               \
	static int tiles_##of(const size_t *z, struct pst_cuda_launch *l)                       \
	{                                                                                       \
		return tiles(z, of, PST_CUDA_EXPERTS_TILE, PST_CUDA_EXPERTS_SHARED(of), l);     \
	}                                                                                       \
	/* a tile has the same columns of two weights */                                        \
	static int half_##of(const size_t *z, struct pst_cuda_launch *l)                        \
	{                                                                                       \
		return tiles(z, of, PST_CUDA_EXPERTS_TILE / 2, PST_CUDA_EXPERTS_SHARED(of), l); \
	}
TILES(16)
TILES(64)
TILES(128)

/* fp8: a warp a block of 128. @z: rows, columns. */
static int blocks_128(const size_t *z, struct pst_cuda_launch *l)
{
	if (z[1] % 16)
		return -EINVAL;
	return product(l, z[0], over(z[1], 128), 8, 256);
}

static int rows_128(const size_t *z, struct pst_cuda_launch *l)
{
	return z[1] % 16 ? -EINVAL : rows(z, l);
}

/* A block a tile of 128 x 128 fp32 in shared memory. */
static int squares_128(const size_t *z, struct pst_cuda_launch *l)
{
	if (z[1] % 16)
		return -EINVAL;
	if (z[0] > (size_t)MOST_YZ * 128 || z[1] > (size_t)MOST_X)
		return -E2BIG;
	*l = (struct pst_cuda_launch){
		{clamp(over(z[1], 128), 1, MOST_X), clamp(over(z[0], 128), 1, MOST_YZ), 1},
		PST_CUDA_QUANT_THREADS,
		128 * 128 * 4};
	return 0;
}

/* Quantised: rows of codes begin on 16 bytes. */
#define TILES_QUANT(kind, of)                                                                   \
	static int tiles_##kind##_##of(const size_t *z, struct pst_cuda_launch *l)              \
	{                                                                                       \
		return z[2] % 16 || z[3] % 16                                                   \
			       ? -EINVAL                                                        \
			       : tiles(z, of, PST_CUDA_EXPERTS_TILE, SHARED_##kind(of), l);     \
	}                                                                                       \
	static int half_##kind##_##of(const size_t *z, struct pst_cuda_launch *l)               \
	{                                                                                       \
		return z[2] % 16 || z[3] % 16                                                   \
			       ? -EINVAL                                                        \
			       : tiles(z, of, PST_CUDA_EXPERTS_TILE / 2, SHARED_##kind(of), l); \
	}
#define SHARED_w8   PST_CUDA_EXPERTS_W8_SHARED
#define SHARED_w4   PST_CUDA_EXPERTS_W4_SHARED
#define SHARED_w8a8 PST_CUDA_EXPERTS_W8A8_SHARED
TILES_QUANT(w8, 16)
TILES_QUANT(w8, 64)
TILES_QUANT(w4, 16)
TILES_QUANT(w4, 64)
TILES_QUANT(w8a8, 64)
TILES_QUANT(w8a8, 128)

/* @z: n, rows and columns of a weight. */
static int weights(const size_t *z, struct pst_cuda_launch *l)
{
	size_t most = (size_t)MOST_YZ * PST_CUDA_EXPERTS_TILE;

	if (!z[1] || z[1] % 8 || !z[2] || z[2] % 8)
		return -EINVAL;
	if (z[0] > MOST_YZ || z[1] > most || z[2] > most)
		return -E2BIG;
	*l = (struct pst_cuda_launch){{(uint32_t)over(z[2], PST_CUDA_EXPERTS_TILE),
				       (uint32_t)over(z[1], 128), clamp(z[0], 1, MOST_YZ)},
				      PST_CUDA_EXPERTS_THREADS(128),
				      PST_CUDA_EXPERTS_SHARED(128)};
	return 0;
}

/* z: rows and columns of C; @parts: of an element of B */
static int dense(const size_t *z, uint32_t parts, struct pst_cuda_launch *l)
{
	size_t rows, cols;

	if (z[0] > MOST_X || z[1] > MOST_X)
		return -E2BIG;
	rows = PST_CUDA_GEMM_ROWS(z[0], z[1]);
	cols = PST_CUDA_GEMM_COLS(rows);
	product(l, over(z[0], rows), over(z[1], cols), 1, PST_CUDA_GEMM_THREADS(rows));
	l->shared = (uint32_t)PST_CUDA_GEMM_SHARED(rows, parts);
	return 0;
}

static int gemm(const size_t *z, struct pst_cuda_launch *l)
{
	return dense(z, 3, l);
}

static int gemm_bf16(const size_t *z, struct pst_cuda_launch *l)
{
	return dense(z, 1, l);
}

/* z: rows, a warp each */
static int queries(const size_t *z, struct pst_cuda_launch *l)
{
	return line(l, over(z[0], 4), 128);
}

/* Warps go on to the rows that are left over, however many there are. */
static int attn_bwd(const size_t *z, struct pst_cuda_launch *l)
{
	(void)z;
	return line(l, 512, 128);
}

/* z: heads, sequences, rows of one, @tile of which a block has */
static int heads(const size_t *z, uint32_t tile, uint32_t shared, struct pst_cuda_launch *l)
{
	if (z[0] > MOST_YZ || z[1] > MOST_YZ || z[2] > MOST_X)
		return -E2BIG;
	*l = (struct pst_cuda_launch){{clamp(over(z[2], tile), 1, MOST_X), clamp(z[0], 1, MOST_YZ),
				       clamp(z[1], 1, MOST_YZ)},
				      PST_CUDA_ATTN_THREADS,
				      shared};
	return 0;
}

static int attn_heads(const size_t *z, struct pst_cuda_launch *l)
{
	return heads(z, PST_CUDA_ATTN_QUERIES, PST_CUDA_ATTN_SHARED, l);
}

static int attn_heads_dq(const size_t *z, struct pst_cuda_launch *l)
{
	return heads(z, PST_CUDA_ATTN_BWD_TILE, PST_CUDA_ATTN_BWD_SHARED(1), l);
}

static int attn_heads_dkv(const size_t *z, struct pst_cuda_launch *l)
{
	return heads(z, PST_CUDA_ATTN_BWD_TILE, PST_CUDA_ATTN_BWD_SHARED(2), l);
}

/* z: heads, sequences, rows of one; a warp a row of a head */
static int head_rows(const size_t *z, struct pst_cuda_launch *l)
{
	if (z[1] && z[2] > (size_t)-1 / z[1])
		return -E2BIG;
	return product(l, z[0], z[1] * z[2], 4, 128);
}

/* z: heads, sequences, queries of one, the most keys of one, keys of a part */
static int mla(const size_t *z, struct pst_cuda_launch *l)
{
	size_t rows;

	if (!z[4] || z[4] % 64)
		return -EINVAL;
	if (z[0] > MOST_X || z[2] > MOST_X || z[1] > MOST_YZ || z[3] > MOST_X)
		return -E2BIG;
	rows = over(z[0] * z[2], PST_CUDA_MLA_ROWS);
	if (rows > MOST_YZ)
		return -E2BIG;
	*l = (struct pst_cuda_launch){{clamp(over(z[3], z[4]), 1, MOST_X), clamp(rows, 1, MOST_YZ),
				       clamp(z[1], 1, MOST_YZ)},
				      PST_CUDA_ATTN_THREADS,
				      PST_CUDA_MLA_SHARED};
	return 0;
}

#define MOST_SIZES 5

struct kernel {
	const char *name;
	enum pst_cuda_image image;
	int (*shape)(const size_t *z, struct pst_cuda_launch *l);
	int nsizes, size[MOST_SIZES];
};

/* clang-format off */
#define COUNT(...) (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
#define OP(name, image, shape, ...) \
	{#name, PST_CUDA_IMAGE_##image, shape, COUNT(__VA_ARGS__), {__VA_ARGS__}},
#define KERNEL(name, args, ...) OP(name, __VA_ARGS__)
static const struct kernel kernels[] = {PST_CUDA_KERNELS(OP, KERNEL)};
/* clang-format on */

const char *pst_cuda_kernel_name(enum pst_cuda_kernel k)
{
	return (unsigned int)k < PST_CUDA_KERNEL_COUNT ? kernels[k].name : NULL;
}

enum pst_cuda_kernel pst_cuda_kernel_find(const char *name)
{
	int k = 0;

	while (k < PST_CUDA_KERNEL_COUNT && strcmp(name, kernels[k].name))
		k++;
	return (enum pst_cuda_kernel)k;
}

enum pst_cuda_image pst_cuda_kernel_image(enum pst_cuda_kernel k)
{
	return (unsigned int)k < PST_CUDA_KERNEL_COUNT ? kernels[k].image : PST_CUDA_IMAGE_COUNT;
}

int pst_cuda_geometry(enum pst_cuda_kernel k, void *const *params, struct pst_cuda_launch *l)
{
	size_t z[MOST_SIZES];

	if ((unsigned int)k >= PST_CUDA_KERNEL_COUNT)
		return -EINVAL;
	for (int i = 0; i < kernels[k].nsizes; i++)
		z[i] = *(const size_t *)params[kernels[k].size[i]];
	return kernels[k].shape(z, l);
}
