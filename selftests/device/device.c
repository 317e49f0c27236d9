/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/lib/test.h"

#include "runtime/device/device.h"
#include "runtime/device/team.h"

#include <stdatomic.h>
#include <sys/stat.h>

static struct pst_device *open_team(unsigned int threads)
{
	struct pst_error err = {0};
	struct pst_device *dev;

	ASSERT_OK(pst_device_open_cpu(-1, threads, &dev, &err), &err);
	return dev;
}

#define MANY 1000

struct tally {
	_Atomic unsigned int ran[MANY];
	size_t plain; /* not atomic: what tasks wrote must be seen when for returns */
	size_t out[MANY];
};

static void count(void *ctx, size_t task)
{
	struct tally *t = ctx;

	atomic_fetch_add(&t->ran[task], 1);
	t->out[task] = task + t->plain;
}

FIXTURE(team)
{
	struct pst_device *dev;
};
FIXTURE_VARIANT(team)
{
	unsigned int threads;
};
FIXTURE_VARIANT_ADD(team, one){1};
FIXTURE_VARIANT_ADD(team, two){2};
FIXTURE_VARIANT_ADD(team, five){5};
FIXTURE_SETUP(team)
{
	self->dev = open_team(variant->threads);
}
FIXTURE_TEARDOWN(team)
{
	pst_device_close(self->dev);
}

TEST_F(team, every_task_once)
{
	static const size_t tasks[] = {0, 1, 2, 3, 7, 64, MANY};

	EXPECT_EQ(variant->threads, pst_device_threads(self->dev));
	for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++) {
		static struct tally t;

		memset(&t, 0, sizeof(t));
		pst_device_for(self->dev, tasks[i], count, &t);
		for (size_t j = 0; j < MANY; j++)
			EXPECT_EQ((unsigned int)(j < tasks[i]), t.ran[j]);
	}
}

/* Job after job: a thread that is late must never run a task of another job. */
TEST_F(team, jobs_do_not_mix)
{
	static struct tally t[2];

	for (size_t round = 0; round < 2000; round++) {
		struct tally *mine = &t[round % 2];
		size_t tasks = 1 + round % 9;

		memset(mine, 0, sizeof(*mine));
		mine->plain = round;
		pst_device_for(self->dev, tasks, count, mine);
		for (size_t j = 0; j < 10; j++) {
			ASSERT_EQ((unsigned int)(j < tasks), mine->ran[j]);
			ASSERT_EQ(j < tasks ? round + j : 0, mine->out[j]);
		}
		if (round % 500 == 0)
			usleep(2000); /* long enough for the team to fall asleep */
	}
}

static void sum_task(void *ctx, size_t task)
{
	atomic_fetch_add((_Atomic size_t *)ctx, task);
	usleep(100);
}

/* The caller sleeps until the slowest is done. */
TEST_F(team, slow_tasks)
{
	_Atomic size_t sum = 0;

	pst_device_for(self->dev, 30, sum_task, &sum);
	EXPECT_EQ((size_t)435, sum);
}

TEST(open_and_close_often)
{
	for (int i = 0; i < 50; i++)
		pst_device_close(open_team(3));
	pst_device_close(NULL);
}

TEST(as_many_threads_as_cores)
{
	struct pst_device *dev = open_team(0);
	cpu_set_t cpus;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(cpus), &cpus));
	EXPECT_EQ((unsigned int)CPU_COUNT(&cpus), pst_device_threads(dev));
	pst_device_close(dev);
}

TEST(too_many_threads)
{
	struct pst_device *dev = (void *)1;
	struct pst_error err = {0};

	EXPECT_EQ(-EINVAL, pst_device_open_cpu(-1, 100000, &dev, &err));
	EXPECT_EQ((void *)1, (void *)dev);
	EXPECT_NE(NULL, strstr(err.text, "100000"));
}

static void write_cpulist(const char *list)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/node3", test_tmpdir());
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/node3/cpulist", test_tmpdir());
	f = fopen(path, "w");
	ASSERT_NE(NULL, f);
	fputs(list, f);
	fclose(f);
}

TEST(node_cores_are_those_allowed)
{
	struct pst_error err = {0};
	cpu_set_t allowed, got;
	char list[64];
	int first = 0;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(allowed), &allowed));
	while (!CPU_ISSET(first, &allowed))
		first++;
	snprintf(list, sizeof(list), "%d,1000-1010,1020\n", first);
	write_cpulist(list);
	ASSERT_OK(pst_node_cpus(test_tmpdir(), 3, &got, &err), &err);
	EXPECT_EQ(1, CPU_COUNT(&got));
	EXPECT_TRUE(CPU_ISSET(first, &got));
	snprintf(list, sizeof(list), "0-%d\n", CPU_SETSIZE - 1);
	write_cpulist(list);
	ASSERT_OK(pst_node_cpus(test_tmpdir(), 3, &got, &err), &err);
	EXPECT_TRUE(CPU_EQUAL(&allowed, &got));
}

static void expect_refused(int code, const char *list, const char *word)
{
	struct pst_error err = {0};
	cpu_set_t got;

	if (list)
		write_cpulist(list);
	EXPECT_EQ(code, pst_node_cpus(test_tmpdir(), 3, &got, &err));
	EXPECT_EQ(code, err.code);
	EXPECT_NE(NULL, strstr(err.text, word));
}

TEST(node_without_use)
{
	expect_refused(-EINVAL, NULL, "node 3");
	expect_refused(-ENODEV, "1000-1010\n", "taskset");
	expect_refused(-ENODEV, "\n", "taskset"); /* memory without cores */
	expect_refused(-EINVAL, "0-\n", "list of cores");
	expect_refused(-EINVAL, "3-1\n", "list of cores");
	expect_refused(-EINVAL, "0;1\n", "list of cores");
	expect_refused(-EINVAL, "-1\n", "list of cores");
}

TEST(bound_to_a_node)
{
	struct pst_error err = {0};
	struct pst_device *dev;
	_Atomic size_t sum = 0;
	int rc = pst_device_open_cpu(0, 2, &dev, &err);

	if (rc == -EINVAL)
		SKIP("the kernel shows no NUMA node 0", "boot with CONFIG_NUMA");
	ASSERT_OK(rc, &err);
	pst_device_for(dev, 4, sum_task, &sum);
	EXPECT_EQ((size_t)6, sum);
	pst_device_close(dev);
}

struct gemm_case {
	bool ta, tb, acc;
	size_t m, n, k;
};

static void fill(float *x, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1;
}

/* The same bits from every team, and the product itself near enough. */
static void check_gemm(const struct gemm_case *g)
{
	size_t lda = (g->ta ? g->m : g->k) + 3, ldb = (g->tb ? g->k : g->n) + 1, ldc = g->n + 2;
	size_t na = lda * (g->ta ? g->k : g->m), nb = ldb * (g->tb ? g->n : g->k);
	size_t nc = ldc * g->m;
	float *a = malloc(na * sizeof(float)), *b = malloc(nb * sizeof(float));
	float *want = malloc(nc * sizeof(float)), *got = malloc(nc * sizeof(float));

	fill(a, na, 1);
	fill(b, nb, 2);
	for (unsigned int threads = 1; threads <= 5; threads++) {
		struct pst_device *dev = open_team(threads);
		float *c = threads == 1 ? want : got;

		fill(c, nc, 3);
		pst_device_gemm(dev, g->ta, g->tb, g->m, g->n, g->k, a, lda, b, ldb, c, ldc,
				g->acc);
		EXPECT_EQ(0, memcmp(want, c, nc * sizeof(float)));
		pst_device_close(dev);
	}
	fill(got, nc, 3);
	pst_ops_ref()->gemm(g->ta, g->tb, g->m, g->n, g->k, a, lda, b, ldb, got, ldc, g->acc);
	for (size_t i = 0; i < nc; i++)
		ASSERT_TRUE(got[i] - want[i] < 1e-4f && want[i] - got[i] < 1e-4f);
	free(a);
	free(b);
	free(want);
	free(got);
}

TEST(gemm_is_cut_by_shape_alone)
{
	static const struct gemm_case cases[] = {
		{0, 1, 0, 1, 1, 1},	  {0, 1, 0, 1, 700, 600},  {0, 1, 1, 97, 33, 64},
		{1, 0, 0, 128, 192, 300}, {1, 0, 1, 16, 128, 200}, {0, 0, 0, 500, 48, 128},
		{1, 1, 0, 65, 257, 300},  {0, 1, 0, 300, 5, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_gemm(&cases[i]);
}

TEST(gemm_of_nothing)
{
	struct pst_device *dev = open_team(2);

	pst_device_gemm(dev, 0, 1, 0, 5, 5, NULL, 5, NULL, 5, NULL, 5, 0);
	pst_device_gemm(dev, 0, 1, 5, 0, 5, NULL, 5, NULL, 5, NULL, 1, 0);
	pst_device_close(dev);
}

TEST_MAIN
