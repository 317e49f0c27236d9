/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader.c - the loader against fio, on one file and one drive.
 *
 *	loader [DIRECTORY [MiB [DEPTH [CHUNK KiB]]]]	(default: . 1024 32 1024)
 *
 * Each round reads the file with the loader by io_uring, with the loader by
 * threads, and with fio (io_uring, O_DIRECT, the same depth and block size,
 * registered buffers and file), one after the other, so that a neighbour meets
 * all three. Figures are medians of the rounds, ratios are medians of the rounds' ratios.
 */
#include "runtime/io/loader.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5 };

struct bench {
	char path[600];
	uint64_t bytes, chunk;
	unsigned int depth;
	struct pst_pool *pool;
	char *memory;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v)
{
	double copy[ROUNDS];

	memcpy(copy, v, sizeof(copy));
	qsort(copy, ROUNDS, sizeof(*copy), by_value);
	return copy[ROUNDS / 2];
}

static int make_file(const struct bench *b)
{
	int fd = open(b->path, O_WRONLY | O_CREAT | O_TRUNC, 0600), rc = 0;
	uint64_t r = 1;

	if (fd < 0)
		return -1;
	for (uint64_t at = 0; at < b->bytes && !rc; at += 1 << 20) {
		for (size_t i = 0; i < 1 << 20; i += 8) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			memcpy(b->memory + i, &r, 8);
		}
		rc = write(fd, b->memory, 1 << 20) == 1 << 20 ? 0 : -1;
	}
	if (fsync(fd) < 0)
		rc = -1;
	close(fd);
	return rc;
}

static int with_loader(const struct bench *b, uint32_t flags, double *rate,
		       struct pst_loader_stat *stat)
{
	struct pst_pool *const pools[] = {b->pool};
	const struct pst_loader_options opts = {.size = sizeof(opts),
						.depth = b->depth,
						.chunk = b->chunk,
						.flags = flags,
						.pools = pools,
						.npools = 1};
	struct pst_error err = {0};
	struct pst_loader *loader;
	unsigned int file;
	double start;
	int rc;

	rc = pst_loader_open(&opts, &loader, &err);
	if (rc < 0)
		goto say;
	rc = pst_loader_file(loader, b->path, &file, &err);
	start = now();
	if (!rc)
		rc = pst_loader_read(loader, file, 0, b->bytes, b->memory, 0, 0, &err);
	if (!rc)
		rc = pst_loader_wait(loader, &err);
	*rate = (double)b->bytes / 1e9 / (now() - start);
	pst_loader_stat(loader, stat);
	pst_loader_close(loader);
say:
	if (rc < 0)
		fprintf(stderr, "%s\n", err.text);
	return rc;
}

/* GB/s as fio itself counts them, without its start. */
static int with_fio(const struct bench *b, double *rate)
{
	unsigned long long kib = 0;
	char command[1400], line[4096];
	FILE *f;

	snprintf(command, sizeof(command),
		 "fio --name=r --filename='%s' --rw=read --direct=1 --ioengine=io_uring "
		 "--iodepth=%u --bs=%llu --size=%llu --fixedbufs=1 --registerfiles=1 "
		 "--minimal 2>/dev/null",
		 b->path, b->depth, (unsigned long long)b->chunk, (unsigned long long)b->bytes);
	f = popen(command, "r");
	if (!f)
		return -1;
	/* The seventh field of the terse format is the read bandwidth. */
	while (fgets(line, sizeof(line), f))
		if (line[0] == '3')
			sscanf(line, "%*[^;];%*[^;];%*[^;];%*[^;];%*[^;];%*[^;];%llu", &kib);
	if (pclose(f) || !kib)
		return -1;
	*rate = (double)kib * 1024 / 1e9;
	return 0;
}

enum reader { URING, THREADS, FIO, READERS };

static int read_once(const struct bench *b, enum reader reader, double *rate,
		     struct pst_loader_stat *stat)
{
	if (reader == FIO)
		return with_fio(b, rate);
	return with_loader(b, reader == THREADS ? PST_LOADER_THREADS : 0, rate, stat);
}

static void print(const struct bench *b, double rate[READERS][ROUNDS],
		  const struct pst_loader_stat *stat, unsigned int readers)
{
	double ratio[ROUNDS];

	printf("# %llu MiB in %s, depth %u, chunks of %llu KiB, median of %d rounds\n",
	       (unsigned long long)b->bytes >> 20, b->path, b->depth,
	       (unsigned long long)b->chunk >> 10, ROUNDS);
	printf("%-20s %8s %8s %6s %10s\n", "reader", "GB/s", "of fio", "direct", "copied [B]");
	for (unsigned int r = 0; r < FIO; r++) {
		for (int i = 0; i < ROUNDS; i++)
			ratio[i] = readers > FIO ? rate[r][i] / rate[FIO][i] : 0;
		printf("loader, %-12s %8.3f %8.2f %6d %10llu\n", stat[r].backend, median(rate[r]),
		       median(ratio), stat[r].direct, (unsigned long long)stat[r].copied_bytes);
	}
	if (readers > FIO)
		printf("%-20s %8.3f %8.2f\n", "fio, io_uring", median(rate[FIO]), 1.0);
	else
		printf("# fio is missing, so there is no ratio: apt-get install fio\n");
	if (stat[URING].note[0])
		printf("# %s\n", stat[URING].note);
}

static int run(const struct bench *b)
{
	unsigned int readers = system("fio --version >/dev/null 2>&1") == 0 ? READERS : FIO;
	struct pst_loader_stat stat[READERS] = {0};
	double rate[READERS][ROUNDS];

	/* Each round starts with another, so that none is always first. */
	for (unsigned int i = 0; i < ROUNDS; i++)
		for (unsigned int j = 0; j < readers; j++) {
			unsigned int r = (i + j) % readers;

			if (read_once(b, r, &rate[r][i], &stat[r]) < 0)
				return -1;
		}
	print(b, rate, stat, readers);
	return 0;
}

static unsigned long long number(int argc, char **argv, int i, unsigned long long otherwise)
{
	return argc > i && strtoull(argv[i], NULL, 10) ? strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	struct bench b = {.bytes = number(argc, argv, 2, 1024) << 20,
			  .depth = (unsigned int)number(argc, argv, 3, 32),
			  .chunk = number(argc, argv, 4, 1024) << 10};
	struct pst_pool_options opts = {.size = sizeof(opts),
					.name = "bench",
					.bytes = b.bytes + (2 << 20),
					.node = PST_NODE_ANY,
					.flags = PST_POOL_HUGE};
	struct pst_error err = {0};
	int rc = 1;

	snprintf(b.path, sizeof(b.path), "%.500s/penstock-bench-%ld", argc > 1 ? argv[1] : ".",
		 (long)getpid());
	if (pst_pool_create(&opts, &b.pool, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	b.memory = pst_pool_alloc(b.pool, b.bytes, PST_LOADER_BLOCK);
	if (!b.memory) {
		fprintf(stderr, "the pool is too small\n");
		goto destroy_pool;
	}
	if (make_file(&b) < 0)
		perror(b.path);
	else if (run(&b) == 0)
		rc = 0;
	unlink(b.path);
destroy_pool:
	pst_pool_destroy(b.pool);
	return rc;
}
