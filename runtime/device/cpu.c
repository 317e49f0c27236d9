/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of CPU cores: the caller and a team of threads that take numbered
 * tasks from one counter.
 *
 * @claim holds (generation, tasks not yet taken). A thread takes a task by
 * compare-and-swap, so one that slept through a generation can neither take a
 * task of the next with the old function nor hold the caller up: the caller
 * waits for tasks, not for threads. While tasks are left the job is not
 * rewritten, so what was read between load and swap belongs together.
 */
#include "runtime/device/bind.h"
#include "runtime/device/device.h"
#include "runtime/device/team.h"

#include "rdma/fail.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 2 to 5 us: long enough for the next op, short enough for neighbours on the same cores. */
#define SPINS	    100
#define MAX_THREADS 1024

struct pst_device {
	struct pst_bound ops;
	unsigned int threads;
	bool bound;
	cpu_set_t cpus;
	pthread_t *workers; /* threads - 1 */

	_Atomic(pst_task_fn *) fn;
	_Atomic(void *) ctx;
	_Atomic uint32_t tasks;
	_Alignas(64) _Atomic uint64_t claim;
	_Alignas(64) _Atomic uint32_t done;
	_Atomic uint32_t caller_sleeps;
	_Alignas(64) _Atomic uint32_t epoch; /* changes with every job, and to stop */
	_Atomic uint32_t sleepers;
	_Atomic bool stop;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Take and run one task; false when none is left. */
static bool run_one(struct pst_device *dev)
{
	uint64_t claim = atomic_load_explicit(&dev->claim, memory_order_acquire);
	uint32_t tasks, left;
	pst_task_fn *fn;
	void *ctx;

	do {
		left = (uint32_t)claim;
		if (!left)
			return false;
		fn = atomic_load_explicit(&dev->fn, memory_order_relaxed);
		ctx = atomic_load_explicit(&dev->ctx, memory_order_relaxed);
		tasks = atomic_load_explicit(&dev->tasks, memory_order_relaxed);
	} while (!atomic_compare_exchange_weak_explicit(
		&dev->claim, &claim, claim - 1, memory_order_acq_rel, memory_order_acquire));

	fn(ctx, tasks - left);
	if (atomic_fetch_add(&dev->done, 1) + 1 == tasks && atomic_load(&dev->caller_sleeps))
		futex_wake(&dev->done, 1);
	return true;
}

static bool has_work(struct pst_device *dev)
{
	return (uint32_t)atomic_load_explicit(&dev->claim, memory_order_acquire) != 0;
}

static void wait_work(struct pst_device *dev)
{
	uint32_t epoch;

	for (int i = 0; i < SPINS; i++) {
		if (has_work(dev))
			return;
		pause_cpu();
	}
	atomic_fetch_add(&dev->sleepers, 1);
	epoch = atomic_load(&dev->epoch);
	if (!has_work(dev) && !atomic_load(&dev->stop))
		futex_wait(&dev->epoch, epoch);
	atomic_fetch_sub(&dev->sleepers, 1);
}

static void *worker(void *arg)
{
	struct pst_device *dev = arg;

	if (dev->bound)
		sched_setaffinity(0, sizeof(dev->cpus), &dev->cpus);
	while (!atomic_load(&dev->stop)) {
		while (run_one(dev))
			;
		wait_work(dev);
	}
	return NULL;
}

static void wait_done(struct pst_device *dev, uint32_t tasks)
{
	uint32_t done;

	for (int i = 0; i < SPINS; i++) {
		if (atomic_load(&dev->done) == tasks)
			return;
		pause_cpu();
	}
	atomic_store(&dev->caller_sleeps, 1);
	while ((done = atomic_load(&dev->done)) != tasks)
		futex_wait(&dev->done, done);
	atomic_store(&dev->caller_sleeps, 0);
}

static void wake_team(struct pst_device *dev, uint32_t wanted)
{
	uint32_t sleepers;

	atomic_fetch_add(&dev->epoch, 1);
	sleepers = atomic_load(&dev->sleepers);
	if (sleepers)
		futex_wake(&dev->epoch, (int)(wanted < sleepers ? wanted : sleepers));
}

static void run_team(struct pst_device *dev, uint32_t tasks, pst_task_fn *fn, void *ctx)
{
	uint64_t generation = atomic_load_explicit(&dev->claim, memory_order_relaxed) >> 32;

	atomic_store_explicit(&dev->fn, fn, memory_order_relaxed);
	atomic_store_explicit(&dev->ctx, ctx, memory_order_relaxed);
	atomic_store_explicit(&dev->tasks, tasks, memory_order_relaxed);
	atomic_store_explicit(&dev->done, 0, memory_order_relaxed);
	atomic_store(&dev->claim, ((generation + 1) << 32) | tasks);
	wake_team(dev, tasks - 1);
	while (run_one(dev))
		;
	wait_done(dev, tasks);
}

struct shifted {
	pst_task_fn *fn;
	void *ctx;
	size_t first;
};

static void run_shifted(void *arg, size_t task)
{
	const struct shifted *s = arg;

	s->fn(s->ctx, s->first + task);
}

void pst_device_for(struct pst_device *dev, size_t tasks, pst_task_fn *fn, void *ctx)
{
	if (dev->threads == 1 || tasks == 1) {
		for (size_t i = 0; i < tasks; i++)
			fn(ctx, i);
		return;
	}
	for (size_t first = 0; first < tasks;) {
		struct shifted s = {fn, ctx, first};
		uint32_t n = tasks - first < INT_MAX ? (uint32_t)(tasks - first) : INT_MAX;

		run_team(dev, n, first ? run_shifted : fn, first ? (void *)&s : ctx);
		first += n;
	}
}

static void stop_team(struct pst_device *dev, unsigned int started)
{
	atomic_store(&dev->stop, true);
	atomic_fetch_add(&dev->epoch, 1);
	futex_wake(&dev->epoch, INT_MAX);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(dev->workers[i], NULL);
}

static int start_team(struct pst_device *dev, struct pst_error *err)
{
	for (unsigned int i = 0; i + 1 < dev->threads; i++) {
		int rc = pthread_create(&dev->workers[i], NULL, worker, dev);

		if (!rc)
			continue;
		stop_team(dev, i);
		return pst_fail(err, -rc,
				"device: thread %u of %u could not be started (%s); ask for fewer "
				"threads or raise the limit with ulimit -u",
				i + 2, dev->threads, strerror(rc));
	}
	return 0;
}

int pst_device_open_cpu(int node, unsigned int threads, struct pst_device **out,
			struct pst_error *err)
{
	struct pst_device *dev;
	cpu_set_t cpus;
	int rc;

	rc = pst_node_cpus("/sys/devices/system/node", node, &cpus, err);
	if (rc)
		return rc;
	if (threads > MAX_THREADS)
		return pst_fail(err, -EINVAL, "device: %u threads asked for, at most %u are run",
				threads, MAX_THREADS);
	dev = aligned_alloc(64, sizeof(*dev));
	if (!dev)
		return pst_fail(err, -ENOMEM, "device: no memory for its book-keeping");
	memset(dev, 0, sizeof(*dev));
	dev->threads = threads ? threads : (unsigned int)CPU_COUNT(&cpus);
	dev->bound = node >= 0;
	dev->cpus = cpus;
	dev->workers = calloc(dev->threads, sizeof(*dev->workers));
	if (!dev->workers) {
		rc = pst_fail(err, -ENOMEM, "device: no memory for %u threads", dev->threads);
		goto free_dev;
	}
	if (pst_bound_init(&dev->ops, pst_ops_cpu())) {
		rc = pst_fail(err, -ENOMEM, "device: no memory for its kernels");
		goto free_workers;
	}
	rc = start_team(dev, err);
	if (rc)
		goto destroy_ops;
	*out = dev;
	return 0;

destroy_ops:
	pst_bound_destroy(&dev->ops);
free_workers:
	free(dev->workers);
free_dev:
	free(dev);
	return rc;
}

void pst_device_close(struct pst_device *dev)
{
	if (!dev)
		return;
	stop_team(dev, dev->threads - 1);
	pst_bound_destroy(&dev->ops);
	free(dev->workers);
	free(dev);
}

const struct pst_ops *pst_device_ops(const struct pst_device *dev)
{
	return pst_bound_ops(&dev->ops);
}

void pst_device_enter(struct pst_device *dev)
{
	pst_bound_enter(&dev->ops);
}

void pst_device_leave(struct pst_device *dev)
{
	pst_bound_leave(&dev->ops);
}

int pst_device_bind(struct pst_device *dev, enum pst_op op, struct pst_image *image)
{
	return pst_bound_set(&dev->ops, pst_ops_cpu(), op, image);
}

unsigned int pst_device_tables(struct pst_device *dev)
{
	return pst_bound_tables(&dev->ops);
}

unsigned int pst_device_threads(const struct pst_device *dev)
{
	return dev->threads;
}
