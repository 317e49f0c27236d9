/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-bench - how fast the CUDA kernels are on the first GPU, beside its limits and its peers.
 *
 *	gpu-bench [--json FILE] [--peers SCRIPT] [--small] [NAME...]
 *
 * One row per kernel and shape: the median time, GB/s, TFLOP/s, per cent of the ceiling that limits
 * it, and for each peer its time over ours (above 1: ours is faster). NAME chooses kernels by parts
 * of their names. --small takes sizes at which only that it runs can be seen.
 *
 * Exit status 0: every row was timed; 1: not; 4: there is no GPU here that could run them.
 */
#include "selftests/bench/gpu.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 256 };
#define GIB ((size_t)1 << 30)

static struct bench bench;
static struct bench_work works[MOST_ROWS];
static struct bench_row rows[MOST_ROWS];
static int nrows, failures;

/* Ceilings. */

struct copy {
	CUdeviceptr to, from;
	size_t bytes;
};

static int run_copy(struct bench *b, void *arg)
{
	const struct copy *c = arg;
	CUresult rc = b->gpu.cu->cuMemcpyDtoDAsync(c->to, c->from, c->bytes, b->gpu.stream);

	return rc ? bench_failed(b, "a copy within the GPU", rc) : 0;
}

static double measure_copy(struct bench *b)
{
	struct copy c = {.bytes = b->bytes / 4 < GIB ? b->bytes / 4 : GIB};
	double took;

	bench_forget(b);
	c.from = bench_floats(b, c.bytes / sizeof(float));
	c.to = bench_take(b, c.bytes);
	took = bench_time(b, run_copy, &c);
	return took > 0 ? 2.0 * (double)c.bytes / took : 0;
}

static void say_ceiling(const char *what, double value, const char *unit, const char *else_why)
{
	if (value > 0)
		printf("# ceiling: %s %.1f %s\n", what, value, unit);
	else
		printf("# ceiling: %s unknown (%s)\n", what, else_why);
}

static void measure_ceilings(struct bench *b)
{
	char why[200] = "cuBLASLt does not multiply here";

	b->copy = measure_copy(b);
	say_ceiling("copy", b->copy / 1e9, "GB/s", "no copy was made");
	b->cublas = b->small ? NULL : cublas_open(b, why, sizeof(why));
	if (b->cublas)
		b->bf16 = cublas_peak(b, false);
	if (b->cublas)
		b->fp8 = cublas_peak(b, true);
	say_ceiling("bf16", b->bf16 / 1e12, "TFLOP/s", b->small ? "sizes are small" : why);
	say_ceiling("fp8", b->fp8 / 1e12, "TFLOP/s", b->small ? "sizes are small" : why);
}

/* Rows. */

/* Has it written at all? The first bytes were NaN. */
static bool has_written(struct bench *b, const struct bench_work *w)
{
	uint32_t first = 0;
	CUresult rc = b->gpu.cu->cuStreamSynchronize(b->gpu.stream);

	if (!rc && w->result)
		rc = b->gpu.cu->cuMemcpyDtoH(&first, w->result, sizeof(first));
	if (rc)
		bench_failed(b, pst_cuda_kernel_name(w->k), rc);
	else if (first == 0xffffffff)
		printf("# %s (%s): the first result is still NaN\n", pst_cuda_kernel_name(w->k),
		       w->shape);
	return !rc && first != 0xffffffff;
}

static const char *const limits[] = {[BY_COPY] = "copy", [BY_BF16] = "bf16", [BY_FP8] = "fp8"};

static double ceiling(const struct bench *b, const struct bench_work *w)
{
	return w->limit == BY_COPY ? b->copy : w->limit == BY_BF16 ? b->bf16 : b->fp8;
}

/* What of the ceiling is reached; 0: unknown. */
static double percent(const struct bench *b, const struct bench_row *r)
{
	const struct bench_work *w = r->work;
	double amount = w->limit == BY_COPY ? w->bytes : w->flops, most = ceiling(b, w);

	return most > 0 ? 100 * amount / r->time / most : 0;
}

static void add_cublas(struct bench *b, struct bench_row *r)
{
	double took = cublas_experts(b, r->work);

	if (took <= 0)
		return;
	snprintf(r->peer[r->npeers].name, sizeof(r->peer[0].name), "cuBLASLt loop");
	r->peer[r->npeers++].time = took;
}

static void print_row(const struct bench *b, const struct bench_row *r)
{
	const struct bench_work *w = r->work;
	double part = percent(b, r);

	printf("%-18s %-32s %10.2f %8.0f %8.1f ", pst_cuda_kernel_name(w->k), w->shape,
	       r->time * 1e6, w->bytes / r->time / 1e9, w->flops / r->time / 1e12);
	if (part > 0)
		printf("%5.1f", part);
	else
		printf("%5s", "-");
	printf(" %-4s", limits[w->limit]);
	for (int i = 0; i < r->npeers; i++)
		printf("  %s %.2f", r->peer[i].name, r->peer[i].time / r->time);
	putchar('\n');
	fflush(stdout);
}

static void time_row(struct bench *b, struct bench_work *w, struct bench_row *r)
{
	*r = (struct bench_row){.work = w};
	if (b->full) {
		printf("# %s (%s): left out, it needs more memory than is free on this GPU\n",
		       pst_cuda_kernel_name(w->k), w->shape);
		failures++;
		return;
	}
	r->time = bench_time(b, bench_launch, w);
	r->mhz = clocks_now(b->clocks);
	if (r->time <= 0 || !has_written(b, w)) {
		printf("# %s (%s): not timed\n", pst_cuda_kernel_name(w->k), w->shape);
		failures++;
		return;
	}
	add_cublas(b, r);
	peers_ask(b->peers, w, r);
	print_row(b, r);
	nrows++;
}

static bool chosen(int argc, char **argv, const char *name)
{
	for (int i = 0; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return !argc;
}

/* What there is no row for is said, so that none is thought to be fast. */
static void say_untimed(const bool *seen)
{
	const char *before = "# not timed, for want of a row: ";

	for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
		if (seen[k])
			continue;
		printf("%s%s", before, pst_cuda_kernel_name((enum pst_cuda_kernel)k));
		before = ", ";
	}
	if (before[0] == ',')
		putchar('\n');
}

static void time_all(struct bench *b, int argc, char **argv)
{
	bool seen[PST_CUDA_KERNEL_COUNT] = {false};
	static struct bench_work w;

	printf("%-18s %-32s %10s %8s %8s %5s %-4s  %s\n", "kernel", "shape", "us", "GB/s",
	       "TFLOP/s", "%", "of", "peers: their time / ours");
	for (int i = 0; nrows < MOST_ROWS && !b->dead; i++) {
		bench_forget(b);
		if (!bench_make(b, i, &w))
			break;
		seen[w.k] = true;
		if (!chosen(argc, argv, pst_cuda_kernel_name(w.k)))
			continue;
		works[nrows] = w;
		time_row(b, &works[nrows], &rows[nrows]);
	}
	if (b->dead)
		puts("# the GPU does nothing more for this process after such an error");
	else
		say_untimed(seen);
}

/* The even row of the same kernel and size, for one that is uneven. */
static const struct bench_row *even_of(const struct bench_row *r)
{
	for (int i = 0; i < nrows && strstr(r->work->shape, "uneven"); i++)
		if (rows[i].work->k == r->work->k && rows[i].work->rows == r->work->rows &&
		    strstr(rows[i].work->shape, ", even"))
			return &rows[i];
	return NULL;
}

static void say_uneven(void)
{
	for (int i = 0; i < nrows; i++) {
		const struct bench_row *even = even_of(&rows[i]);

		if (even)
			printf("# %s: uneven groups take %.2f of the time of even ones\n",
			       pst_cuda_kernel_name(rows[i].work->k), rows[i].time / even->time);
	}
}

/* JSON: a member that is not known is null. */

static void put_number(FILE *f, const char *name, double value, bool known)
{
	if (known)
		fprintf(f, ", \"%s\": %.6g", name, value);
	else
		fprintf(f, ", \"%s\": null", name);
}

static void put_peers(FILE *f, const struct bench_row *r)
{
	int best = 0;

	for (int i = 1; i < r->npeers; i++)
		if (r->peer[i].time < r->peer[best].time)
			best = i;
	if (r->npeers)
		fprintf(f, ", \"peer\": \"%s\"", r->peer[best].name);
	else
		fprintf(f, ", \"peer\": null");
	put_number(f, "ratio", r->peer[best].time / r->time, r->npeers > 0);
	fprintf(f, ", \"peers\": [");
	for (int i = 0; i < r->npeers; i++)
		fprintf(f, "%s{\"name\": \"%s\", \"us\": %.6g}", i ? ", " : "", r->peer[i].name,
			r->peer[i].time * 1e6);
	fprintf(f, "]");
}

static void put_row(FILE *f, const struct bench *b, const struct bench_row *r)
{
	const struct bench_work *w = r->work;
	const struct bench_row *even = even_of(r);

	fprintf(f, "  {\"kernel\": \"%s\", \"shape\": \"%s\"", pst_cuda_kernel_name(w->k),
		w->shape);
	put_number(f, "us", r->time * 1e6, true);
	put_number(f, "gbs", w->bytes / r->time / 1e9, true);
	put_number(f, "tflops", w->flops / r->time / 1e12, w->flops > 0);
	fprintf(f, ", \"ceiling\": \"%s\"", limits[w->limit]);
	put_number(f, "percent", percent(b, r), ceiling(b, w) > 0);
	put_peers(f, r);
	put_number(f, "of_even", even ? r->time / even->time : 0, even);
	put_number(f, "sm_mhz", r->mhz, r->mhz > 0);
	fprintf(f, "}");
}

/* A name may have anything in it. */
static void put_text(FILE *f, const char *text)
{
	fputc('"', f);
	for (; *text; text++)
		if (*text >= ' ' && *text != '"' && *text != '\\')
			fputc(*text, f);
	fputc('"', f);
}

static int write_json(const struct bench *b, const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		printf("# %s: %s\n", path, strerror(errno));
		return -errno;
	}
	fprintf(f, "{\"gpu\": ");
	put_text(f, b->gpu.name);
	fprintf(f, ", \"cuda\": %d, \"runs\": %d", b->gpu.version, b->runs);
	put_number(f, "copy_gbs", b->copy / 1e9, b->copy > 0);
	put_number(f, "bf16_tflops", b->bf16 / 1e12, b->bf16 > 0);
	put_number(f, "fp8_tflops", b->fp8 / 1e12, b->fp8 > 0);
	fprintf(f, ", \"rows\": [\n");
	for (int i = 0; i < nrows; i++) {
		put_row(f, b, &rows[i]);
		fprintf(f, "%s\n", i + 1 < nrows ? "," : "");
	}
	fprintf(f, "]}\n");
	if (!fclose(f))
		return 0;
	printf("# %s: %s\n", path, strerror(errno));
	return -errno;
}

static int begin(struct bench *b, const char *peers)
{
	char why[500];
	int rc = bench_open(b, why, sizeof(why));

	if (rc) {
		printf("%s%s%s\n", rc == -ENODEV ? "SKIP " : "", why,
		       rc == -ENODEV
			       ? " (to run it, on a machine with a GPU: make -C kernels gpu-bench)"
			       : "");
		return rc == -ENODEV ? 4 : 1;
	}
	printf("# %s, compute capability %d.%d, %d multiprocessors, driver for CUDA %d.%d\n",
	       b->gpu.name, b->gpu.major, b->gpu.minor, b->gpu.sms, b->gpu.version / 1000,
	       b->gpu.version / 10 % 100);
	b->clocks = clocks_open(b);
	if (b->clocks)
		printf("# clock: %u MHz before\n", clocks_now(b->clocks));
	else
		printf("# clock: unknown, there is no NVML that knows this GPU\n");
	b->peers = peers ? peers_open(peers, why, sizeof(why)) : NULL;
	if (peers)
		printf("# peers: %s\n", why);
	measure_ceilings(b);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"json", required_argument, NULL, 'j'},
						{"peers", required_argument, NULL, 'p'},
						{"small", no_argument, NULL, 's'},
						{NULL, 0, NULL, 0}};
	const char *json = NULL, *peers = NULL;
	int c, rc;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = optarg;
			break;
		case 'p':
			peers = optarg;
			break;
		case 's':
			bench.small = true;
			break;
		default:
			puts("usage: gpu-bench [--json FILE] [--peers SCRIPT] [--small] [NAME...]");
			return 1;
		}
	}
	rc = begin(&bench, peers);
	if (rc)
		return rc;
	time_all(&bench, argc - optind, argv + optind);
	say_uneven();
	if (bench.clocks)
		printf("# clock: %u MHz after\n", clocks_now(bench.clocks));
	peers_close(bench.peers);
	if (json && write_json(&bench, json))
		return 1;
	return failures || !nrows;
}
