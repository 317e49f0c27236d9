/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels are swapped in workers of a daemon while an engine trains by them: no bit changes. */
#include "selftests/control/kernels.h"
#include "selftests/moe/moe.h"

#include <stdatomic.h>

static const struct shape busy = {.experts = 8, .hidden = 64, .inter = 96, .tokens = 100};

struct host {
	struct daemon d;
	struct pst_control *control;
	EVP_PKEY *key;
	struct rig r;
	struct pst_error err;
};

/* A worker that its daemon has started again; told apart by its process. */
static struct pst_control *asked;
static uint32_t last_pid[MAX_WORKERS];

static int await_worker(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err)
{
	struct pst_cmd_worker_stat s = stat_worker(asked, i + 1);

	(void)ctx, (void)err;
	if (s.out_state != PST_WORKER_SERVING || s.out_pid == last_pid[i]) {
		usleep(2000);
		return -EAGAIN;
	}
	last_pid[i] = s.out_pid;
	memcpy(url, s.out_url, PST_WIRE_URL);
	return STORE_TIMEOUT_MS;
}

static void open_rig(struct host *h, unsigned int workers)
{
	struct rig *r = &h->r;

	*r = (struct rig){.s = busy, .workers = {.n = workers}};
	for (unsigned int i = 0; i < workers; i++) {
		WAIT_FOR(stat_worker(h->control, i + 1).out_state == PST_WORKER_SERVING);
		last_pid[i] = stat_worker(h->control, i + 1).out_pid;
		memcpy(r->workers.url[i], stat_worker(h->control, i + 1).out_url, PST_WIRE_URL);
	}
	asked = h->control;
	replace_with = await_worker;
	connect_ms = 50000;
	servers_start(&r->servers, 1, false);
	r->device = open_device(1);
	r->fabric = open_fabric();
	make_experts(r);
	open_client(r);
	open_moe(r, 30000);
}

static void host_open(struct host *h, unsigned int workers)
{
	char config[512], trusted[128];
	int n;

	setenv("PENSTOCK_KERNELS", "ref", 1);
	let_crash();
	memset(h, 0, sizeof(*h));
	daemon_init(&h->d);
	h->key = make_key();
	snprintf(trusted, sizeof(trusted), "%s/key.pem", h->d.folder);
	write_key(h->key, trusted, 0644);
	n = snprintf(config, sizeof(config), "[kernels]\ntrust = %s\n", trusted);
	for (unsigned int i = 0; i < workers; i++)
		n += snprintf(config + n, sizeof(config) - (size_t)n,
			      "[worker w%u]\ndevice = cpu:0\nthreads = 1\n", i);
	daemon_configure(&h->d, config);
	daemon_run(&h->d);
	h->control = daemon_connect(&h->d);
	open_rig(h, workers);
}

static void host_close(struct host *h)
{
	uint32_t pid[MAX_WORKERS];

	for (unsigned int i = 0; i < h->r.workers.n; i++)
		pid[i] = stat_worker(h->control, i + 1).out_pid;
	for (unsigned int i = 0; i < h->r.workers.n; i++)
		h->r.workers.worker[i] = NULL;
	rig_close(&h->r);
	pst_control_close(h->control);
	EXPECT_EQ(0, daemon_stop(&h->d));
	/* workers outlive their daemon, but not this test */
	for (unsigned int i = 0; i < h->r.workers.n; i++)
		kill((pid_t)pid[i], SIGKILL);
	EVP_PKEY_free(h->key);
}

struct binder {
	struct host *h;
	uint32_t id[6];
	atomic_uint swaps;
};

static void *swap(void *arg)
{
	struct binder *b = arg;
	struct pst_control *control = daemon_connect(&b->h->d);
	struct pst_error err;

	for (unsigned int i = 0; i < 100; i++) {
		ASSERT_OK(bind_kernel(control, b->id[i % 6], &err), &err);
		atomic_fetch_add(&b->swaps, 1);
	}
	pst_control_close(control);
	return NULL;
}

TEST(hundred_swaps_under_load)
{
	static struct host h;
	struct pst_cmd_worker_stat before[2], after;
	struct pst_moe_stat stat;
	struct binder b = {.h = &h};
	pthread_t thread;
	int steps = 0;

	host_open(&h, 2);
	b.id[0] = b.id[3] = load_good(h.control, h.key, "swiglu", "good");
	b.id[1] = (uint32_t)PST_OP_swiglu + 1;
	b.id[2] = b.id[5] = load_good(h.control, h.key, "swiglu", "twin");
	b.id[4] = b.id[1];
	for (uint32_t i = 0; i < 2; i++)
		before[i] = stat_worker(h.control, i + 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, swap, &b));
	/* each holds all that came back against what this process computes, bit for bit */
	for (; steps < 3 || atomic_load(&b.swaps) < 100; steps++)
		rig_step(&h.r, EVENLY, harm_none);
	pthread_join(thread, NULL);
	pst_moe_stat(h.r.moe, &stat);
	printf("# %u swaps in %d steps\n", atomic_load(&b.swaps), steps);
	EXPECT_EQ(0u, stat.restarts);
	EXPECT_EQ(0u, stat.resent);
	for (uint32_t i = 0; i < 2; i++) {
		after = stat_worker(h.control, i + 1);
		EXPECT_EQ(before[i].out_pid, after.out_pid);
		EXPECT_EQ(0u, after.out_restarts);
	}
	EXPECT_EQ(2u, stat_kernel(h.control, b.id[99 % 6]).out_workers);
	host_close(&h);
}

/* Bound in the midst of a run, it kills both workers. Nothing is lost, and no bit is another. */
TEST(a_kernel_that_crashes_under_load)
{
	static struct host h;
	uint32_t good, bad;

	host_open(&h, 2);
	good = load_good(h.control, h.key, "swiglu", "good");
	bad = load_good(h.control, h.key, "swiglu", "late_crash");
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	rig_step(&h.r, EVENLY, harm_none);
	EXPECT_EQ(0, bind_kernel(h.control, bad, &h.err));
	for (int i = 0; i < 3; i++)
		rig_step(&h.r, EVENLY, harm_none);
	EXPECT_EQ((uint32_t)PST_KERNEL_TAKEN_BACK, stat_kernel(h.control, bad).out_state);
	EXPECT_EQ((uint32_t)PST_KERNEL_BOUND, stat_kernel(h.control, good).out_state);
	host_close(&h);
}

TEST_MAIN
