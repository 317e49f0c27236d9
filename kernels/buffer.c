/* SPDX-License-Identifier: Apache-2.0 */
/* buffer.c - inputs and outputs of trials, and what stands around them. */
#include "kernels/bf16.h"
#include "kernels/trial.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FENCE = 128 };

static uint64_t next_random(struct trial *t)
{
	uint64_t z = (t->rng += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct pst_agree_shape pst_agree_any_shape(uint64_t seed)
{
	struct trial t = {.rng = seed};
	struct pst_agree_shape shape;

	shape.m = 1 + next_random(&t) % 100;
	shape.n = 1 + next_random(&t) % 250;
	shape.k = 1 + next_random(&t) % 100;
	return shape;
}

static float random_float(struct trial *t, float low, float high)
{
	static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f, -0.0f};
	uint64_t r = next_random(t);

	if (t->wild && r % 8 == 0)
		return odd[r / 8 % (sizeof(odd) / sizeof(odd[0]))];
	return low + (high - low) * (float)(r >> 40) * 0x1p-24f;
}

/*
 * An odd number of elements away from where a wider type would begin, another for each buffer. But
 * who is timed finds a cache line's beginning, for that is worth a few percent.
 */
static bool make_fenced(struct buffer *b, size_t bytes, int i, bool timed)
{
	size_t off = trial_kind_size(b->kind) * (size_t)(i % 8);

	b->bytes = 2 * FENCE + bytes;
	b->base = malloc(b->bytes);
	if (!b->base)
		return false;
	if (timed)
		off = -(uintptr_t)b->base % (FENCE / 2);
	b->data = b->base + FENCE / 2 + off;
	return true;
}

/* Whole pages between two that cannot be touched. */
static bool make_guarded(struct buffer *b, size_t bytes, enum guard guard)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *map;

	b->bytes = bytes ? (bytes + page - 1) / page * page : page;
	b->mapped = b->bytes + 2 * page;
	map = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return false;
	if (mprotect(map + page, b->bytes, PROT_READ | PROT_WRITE)) {
		munmap(map, b->mapped);
		return false;
	}
	b->base = map + page;
	b->data = guard == GUARD_BEFORE ? b->base : b->base + b->bytes - bytes;
	return true;
}

/* A matrix, all of it and around it 0xff. A kernel may ask for an element's alignment only. */
static void *new_buffer(struct trial *t, enum kind kind, size_t rows, size_t cols, size_t ld,
			int copy)
{
	size_t bytes = (rows ? (rows - 1) * ld + cols : 0) * trial_kind_size(kind);
	struct buffer *b = t->buffer + t->nbuffers;

	if (t->rc)
		return NULL;
	*b = (struct buffer){.kind = kind, .rows = rows, .cols = cols, .ld = ld, .copy = copy};
	if (t->guard == FENCED ? !make_fenced(b, bytes, t->nbuffers, t->clock)
			       : !make_guarded(b, bytes, t->guard)) {
		t->rc = -ENOMEM;
		return NULL;
	}
	memset(b->base, 0xff, b->bytes);
	t->nbuffers++;
	return b->data;
}

void trial_free(struct trial *t)
{
	while (t->nbuffers) {
		struct buffer *b = t->buffer + --t->nbuffers;
		size_t page = b->mapped ? (b->mapped - b->bytes) / 2 : 0;

		if (b->mapped)
			munmap(b->base - page, b->mapped);
		else
			free(b->base);
	}
}

static void fill(struct trial *t, float *p, size_t rows, size_t cols, size_t ld, float low,
		 float high)
{
	for (size_t r = 0; p && r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			p[r * ld + c] = random_float(t, low, high);
}

float *trial_in(struct trial *t, size_t rows, size_t cols, size_t ld, float low, float high)
{
	float *p = new_buffer(t, F32, rows, cols, ld, -1);

	fill(t, p, rows, cols, ld, low, high);
	return p;
}

uint16_t *trial_in_bf16(struct trial *t, size_t rows, size_t cols, size_t ld)
{
	uint16_t *p = new_buffer(t, BF16, rows, cols, ld, -1);

	for (size_t r = 0; p && r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			p[r * ld + c] = pst_bf16_from_f32(random_float(t, -2, 2));
	return p;
}

int32_t *trial_in_index(struct trial *t, size_t n, int32_t low, size_t below)
{
	int32_t *p = new_buffer(t, I32, 1, n, n, -1);

	for (size_t i = 0; p && i < n; i++)
		p[i] = low + (int32_t)(next_random(t) % (below - (size_t)low));
	return p;
}

int32_t *trial_in_permutation(struct trial *t, size_t n)
{
	int32_t *p = new_buffer(t, I32, 1, n, n, -1);

	for (size_t i = 0; p && i < n; i++) {
		size_t j = next_random(t) % (i + 1);

		p[i] = p[j];
		p[j] = (int32_t)i;
	}
	return p;
}

void trial_out(struct trial *t, float *copy[NCOPIES], size_t rows, size_t cols, size_t ld,
	       float low, float high)
{
	uint64_t rng = t->rng;

	for (int s = 0; s < NCOPIES; s++) {
		copy[s] = new_buffer(t, F32, rows, cols, ld, s);
		t->rng = rng;
		fill(t, copy[s], rows, cols, ld, low, high);
	}
}

void trial_out_bf16(struct trial *t, uint16_t *copy[NCOPIES], size_t n)
{
	for (int s = 0; s < NCOPIES; s++)
		copy[s] = new_buffer(t, BF16, 1, n, n, s);
}

void trial_out_i32(struct trial *t, int32_t *copy[NCOPIES], size_t rows, size_t cols)
{
	for (int s = 0; s < NCOPIES; s++)
		copy[s] = new_buffer(t, I32, rows, cols, cols, s);
}
