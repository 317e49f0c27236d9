/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.c - the matrix product of this CPU's kernels against OpenBLAS, one thread.
 *
 * Every round times ours and OpenBLAS one after the other, in turns the one and the other first,
 * so that a change of clock or a neighbour meets both. The clock is the thread's own CPU time: what
 * the kernel gave to others meanwhile counts for neither. The figures are medians over the rounds,
 * the ratio is the median of the rounds' ratios. With few rows the time of a large product is that
 * of reading the weight, and in use experts come from memory: there each call takes the next of as
 * many copies of the weight as do not fit in the cache. Both sides meet the same copies, each its
 * own half a turn apart.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/op.h"

#define OPENBLAS_DIR  "/usr/lib/x86_64-linux-gnu/openblas-serial/"
#define ROTATED_BYTES ((size_t)160 << 20)
#define ROUNDS	      15
#define ROUND_NS      4e6

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
		      int lda, const float *b, int ldb, float beta, float *c, int ldc);

/* y = x W^T, dX = dY W and dW += dY^T X, by the flags of op gemm. */
struct form {
	const char *name;
	int ta, tb, acc;
};

static const struct form forward = {"y=xW'", 0, 1, 0};
static const struct form backward_x = {"dX=dYW", 0, 0, 0};
static const struct form backward_w = {"dW+=dY'X", 1, 0, 1};

struct shape {
	const struct form *form;
	size_t rows, out, in;
};

struct result {
	struct shape shape;
	double ours, openblas, ratio; /* GFLOP/s, GFLOP/s, ours / openblas */
};

/* One product: its operands, and copies of B to go round. */
struct work {
	int ta, tb, acc;
	size_t m, n, k, copies, stride;
	float *a, *b, *c;
};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

static float *random_floats(size_t n)
{
	float *p = mmap(NULL, n * sizeof(*p), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint32_t s = 12345;

	if (p == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		s = s * 1664525 + 1013904223;
		p[i] = (float)(s >> 8) / (float)(1 << 23) - 1.0f;
	}
	return p;
}

static int work_open(struct work *w, const struct shape *s)
{
	const struct form *f = s->form;

	*w = (struct work){.ta = f->ta, .tb = f->tb, .acc = f->acc};
	w->m = f->ta ? s->out : s->rows;
	w->n = f->ta || !f->tb ? s->in : s->out;
	w->k = f->ta ? s->rows : f->tb ? s->in : s->out;
	w->stride = w->k * w->n;
	w->copies = 1;
	if (s->rows <= 8 && w->stride * sizeof(float) > (4 << 20))
		w->copies = ROTATED_BYTES / (w->stride * sizeof(float));
	w->a = random_floats(w->m * w->k);
	w->b = random_floats(w->stride * w->copies);
	w->c = random_floats(w->m * w->n);
	return w->a && w->b && w->c ? 0 : -ENOMEM;
}

static void work_close(struct work *w)
{
	munmap(w->a, w->m * w->k * sizeof(float));
	munmap(w->b, w->stride * w->copies * sizeof(float));
	munmap(w->c, w->m * w->n * sizeof(float));
}

static void call(const struct work *w, sgemm_fn *sgemm, size_t turn)
{
	size_t lda = w->ta ? w->m : w->k, ldb = w->tb ? w->k : w->n;
	const float *b = w->b + turn % w->copies * w->stride;

	if (!sgemm)
		pst_ops_cpu()->gemm(w->ta, w->tb, w->m, w->n, w->k, w->a, lda, b, ldb, w->c, w->n,
				    w->acc);
	else
		sgemm(ROW_MAJOR, w->ta ? TRANS : NO_TRANS, w->tb ? TRANS : NO_TRANS, (int)w->m,
		      (int)w->n, (int)w->k, 1, w->a, (int)lda, b, (int)ldb, w->acc ? 1 : 0, w->c,
		      (int)w->n);
}

/* Nanoseconds of one call, over @times calls. */
static double time_calls(const struct work *w, sgemm_fn *sgemm, size_t *turn, size_t times)
{
	double start = now_ns();

	for (size_t i = 0; i < times; i++)
		call(w, sgemm, (*turn)++);
	return (now_ns() - start) / (double)times;
}

static int measure(struct result *r, const struct shape *s, sgemm_fn *sgemm)
{
	double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS], flop;
	struct work w;
	int rc = work_open(&w, s);
	size_t turn = 0, their_turn = w.copies / 2, times;

	if (rc < 0)
		return rc;
	time_calls(&w, sgemm, &their_turn, 1);
	times = (size_t)(ROUND_NS / time_calls(&w, NULL, &turn, 2)) + 1;
	for (int i = 0; i < ROUNDS; i++) {
		if (i % 2)
			ours[i] = time_calls(&w, NULL, &turn, times);
		theirs[i] = sgemm ? time_calls(&w, sgemm, &their_turn, times) : 1;
		if (i % 2 == 0)
			ours[i] = time_calls(&w, NULL, &turn, times);
		ratio[i] = theirs[i] / ours[i];
	}
	flop = 2.0 * (double)w.m * (double)w.n * (double)w.k;
	*r = (struct result){*s, flop / median(ours, ROUNDS), flop / median(theirs, ROUNDS),
			     median(ratio, ROUNDS)};
	work_close(&w);
	return 0;
}

static void print_row(const struct result *r, bool have_openblas)
{
	const struct shape *s = &r->shape;

	printf("%-9s %6zu %6zu %6zu %12.1f", s->form->name, s->rows, s->out, s->in, r->ours);
	if (have_openblas)
		printf(" %16.1f %7.2f\n", r->openblas, r->ratio);
	else
		printf(" %16s %7s\n", "-", "-");
	fflush(stdout);
}

static void write_json(FILE *f, const struct result *r, size_t n, bool have_openblas)
{
	fprintf(f, "{\"bench\": \"gemm\", \"kernels\": \"%s\", \"rounds\": %d, \"results\": [",
		pst_ops_cpu()->kernels, ROUNDS);
	for (size_t i = 0; i < n; i++, r++) {
		fprintf(f,
			"%s\n  {\"form\": \"%s\", \"rows\": %zu, \"out\": %zu, \"in\": %zu, "
			"\"gflops\": %.2f",
			i ? "," : "", r->shape.form->name, r->shape.rows, r->shape.out, r->shape.in,
			r->ours);
		if (have_openblas)
			fprintf(f, ", \"openblas_gflops\": %.2f, \"ratio\": %.3f", r->openblas,
				r->ratio);
		fprintf(f, "}");
	}
	fprintf(f, "\n]}\n");
}

static sgemm_fn *find_openblas(void)
{
	void *so = dlopen(OPENBLAS_DIR "libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
	sgemm_fn *fn = so ? (sgemm_fn *)(uintptr_t)dlsym(so, "cblas_sgemm") : NULL;

	if (!fn)
		printf("no OpenBLAS to compare with: %s (to have it: "
		       "apt-get install libopenblas0-serial)\n",
		       dlerror());
	return fn;
}

static bool wanted(size_t rows, char **only)
{
	if (!*only)
		return true;
	for (; *only; only++)
		if (strtoul(*only, NULL, 10) == rows)
			return true;
	return false;
}

/* Every form and weight [out,in], at every number of rows that is in @only or, if empty, at all. */
static size_t choose_shapes(struct shape *s, char **only)
{
	static const size_t weight[][2] = {{1408, 2048}, {2048, 1408}, {128, 128}, {256, 128},
					   {128, 256},	 {192, 64},    {384, 128}};
	static const size_t rows[] = {1, 8, 64, 512};
	static const struct form *const forms[] = {&forward, &backward_x, &backward_w};
	size_t n = 0;

	for (size_t f = 0; f < 3; f++)
		for (size_t i = 0; i < sizeof(weight) / sizeof(weight[0]); i++)
			for (size_t j = 0; j < 4; j++)
				if (wanted(rows[j], only))
					s[n++] = (struct shape){forms[f], rows[j], weight[i][0],
								weight[i][1]};
	return n;
}

int main(int argc, char **argv)
{
	const char *json = argc > 2 && !strcmp(argv[1], "--json") ? argv[2] : NULL;
	static struct shape shapes[3 * 7 * 4];
	static struct result results[3 * 7 * 4];
	size_t n = choose_shapes(shapes, argv + (json ? 3 : 1)), done = 0;
	sgemm_fn *sgemm;
	FILE *f = NULL;

	if (n == 0 || (argc > 1 && !json && argv[1][0] == '-')) {
		fprintf(stderr, "usage: %s [--json FILE] [ROWS...], ROWS of 1 8 64 512\n", argv[0]);
		return 2;
	}
	if (json && !(f = fopen(json, "w"))) {
		fprintf(stderr, "cannot write %s: %s\n", json, strerror(errno));
		return 1;
	}
	printf("kernels %s, one thread, fp32, CPU time, median of %d rounds\n",
	       pst_ops_cpu()->kernels, ROUNDS);
	sgemm = find_openblas();
	printf("%-9s %6s %6s %6s %12s %16s %7s\n", "form", "rows", "out", "in", "ours GFLOP/s",
	       "OpenBLAS GFLOP/s", "ratio");
	for (; done < n; done++) {
		if (measure(&results[done], &shapes[done], sgemm) < 0) {
			fprintf(stderr, "not enough memory for the operands\n");
			break;
		}
		print_row(&results[done], sgemm != NULL);
	}
	if (f) {
		write_json(f, results, done, sgemm != NULL);
		if (fclose(f))
			return 1;
	}
	return done == n ? 0 : 1;
}
