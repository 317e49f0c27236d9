/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu.h - the inside of gpu-bench.
 *
 * The model
 *   work    one kernel with one set of arguments in device memory: what a row of the table times.
 *           Who makes it says how many bytes it has to move and how many products it has to add,
 *           whatever the kernel really does.
 *   time    the median over launches. Before each the L2 cache is filled with something else, and
 *           events stand directly around the launch.
 *   ceiling measured in the same run: what a copy within device memory moves (bytes read and
 *           written), and what cuBLASLt multiplies in bf16 and in fp8. One that could not be
 * measured is unknown, and so is the part of it that a kernel reaches. peer    somebody else's code
 * for the same work: cuBLASLt here, PyTorch in a child (gpu_peers.py) that is asked by lines.
 *
 * Memory comes from one allocation and is given back from work to work. Random data is made once
 * and copied. Threads: one.
 */
#ifndef PST_BENCH_GPU_H
#define PST_BENCH_GPU_H

#include "selftests/gpu/check_gpu.h"

#include <stdbool.h>

enum { BENCH_PARAMS = 24, BENCH_EXPERTS = 64, BENCH_PEERS = 3 };

struct bench {
	struct check_gpu gpu;
	CUevent from, to;
	CUdeviceptr arena, floats, halves, quarters, flush;
	size_t bytes, used, pool, flush_bytes;
	bool full; /* a work wanted more memory than there is */
	bool dead;
	bool small;
	int runs;
	double copy, bf16, fp8; /* bytes/s and FLOP/s; 0: unknown */
	struct cublas *cublas;
	struct peers *peers;
	struct clocks *clocks;
};

enum bench_limit { BY_COPY, BY_BF16, BY_FP8 };

/* What cuBLASLt is to multiply for each expert, as the experts' kernels of cuda.h. */
enum bench_form { NO_FORM, UP, DOWN, DA, DX, DW };

struct bench_work {
	enum pst_cuda_kernel k;
	char shape[64];
	char ask[400]; /* of gpu_peers.py: the work in words; "": nothing */
	enum bench_limit limit;
	double bytes, flops;
	CUdeviceptr result; /* first bytes of what it writes; they were NaN */
	enum bench_form form;
	size_t n, rows, hidden, inter;
	int32_t group[BENCH_EXPERTS];
	CUdeviceptr a, b, c; /* what the form multiplies: rows, rows of weights, the result */
	int nparams;
	uint64_t value[BENCH_PARAMS];
};

/* One row of the table. Times in seconds. */
struct bench_row {
	const struct bench_work *work;
	double time;
	unsigned int mhz; /* 0: unknown */
	int npeers;
	struct {
		char name[48];
		double time;
	} peer[BENCH_PEERS];
};

/* gpu_time.c: memory, and what time something takes. */

int bench_open(struct bench *b, char *why, size_t len);
void bench_forget(struct bench *b); /* all memory that was taken */
CUdeviceptr bench_take(struct bench *b, size_t bytes);
CUdeviceptr bench_floats(struct bench *b, size_t n);
CUdeviceptr bench_halves(struct bench *b, size_t n);	 /* random bf16 */
CUdeviceptr bench_quarters(struct bench *b, size_t n);	 /* random e4m3 */
CUdeviceptr bench_result(struct bench *b, size_t bytes); /* NaN */
/* @n times 32 bits, made by the host. */
CUdeviceptr bench_upload(struct bench *b, const void *from, size_t bytes);

/* Seconds that what @run posts to the stream takes; negative: it failed, and was said. */
double bench_time(struct bench *b, int (*run)(struct bench *b, void *arg), void *arg);
int bench_launch(struct bench *b, void *work);
/* Says an error of the driver: -EIO. After one that stays nothing more can be timed: b->dead. */
int bench_failed(struct bench *b, const char *what, CUresult rc);

/* gpu_rows.c: makes work @i; false: there are no more. */
bool bench_make(struct bench *b, int i, struct bench_work *w);

/* gpu_cublas.c: NULL and a sentence if it is not here. A negative time: it does not do that. */
struct cublas *cublas_open(struct bench *b, char *why, size_t len);
double cublas_peak(struct bench *b, bool fp8);
double cublas_experts(struct bench *b, const struct bench_work *w);

/* gpu_peers.c */
struct peers *peers_open(const char *script, char *why, size_t len);
/* Asks what @w takes there; adds to @row what answers. */
void peers_ask(struct peers *p, const struct bench_work *w, struct bench_row *row);
void peers_close(struct peers *p);

/* gpu_clocks.c: MHz of the multiprocessors now; 0: nobody says. */
struct clocks *clocks_open(struct bench *b);
unsigned int clocks_now(const struct clocks *c);

#endif /* PST_BENCH_GPU_H */
