/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels under management: what is refused and why, bound, rolled back, taken back. */
#include "selftests/control/kernels.h"

#include <poll.h>

struct host {
	struct daemon d;
	struct pst_control *control;
	EVP_PKEY *key;
	char trusted[128];
	struct pst_error err;
};

#define BUILTIN(op) ((uint32_t)PST_OP_##op + 1)

/* What is built in is ref, so that images of ref are its equals, in speed and to the bit. */
static void host_open(struct host *h, const char *more)
{
	char config[1024];

	setenv("PENSTOCK_KERNELS", "ref", 1);
	let_crash();
	memset(h, 0, sizeof(*h));
	daemon_init(&h->d);
	h->key = make_key();
	snprintf(h->trusted, sizeof(h->trusted), "%s/key.pem", h->d.folder);
	write_key(h->key, h->trusted, 0644);
	snprintf(config, sizeof(config), "[kernels]\ntrust = %s\n%s", h->trusted, more);
	daemon_configure(&h->d, config);
	daemon_run(&h->d);
	h->control = daemon_connect(&h->d);
}

static void host_close(struct host *h)
{
	pst_control_close(h->control);
	EXPECT_EQ(0, daemon_stop(&h->d));
	EVP_PKEY_free(h->key);
}

static void refused(struct host *h, const struct offer *o, int code, const char *says, int line)
{
	int rc = load_offer(h->control, o, 0, NULL, &h->err);

	printf("# %s\n", h->err.text);
	if (rc != code || !strstr(h->err.text, says)) {
		test_say(__FILE__, line, "%d (%s) is not %d (%s)", rc, h->err.text, code, says);
		test_failed = true;
	}
}

#define REFUSED(code, says) refused(&h, &o, code, says, __LINE__)

static uint32_t count_kernels(struct host *h)
{
	struct pst_cmd_kernel_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};
	uint32_t n = 0;

	while (!pst_control_call(h->control, PST_CMD_KERNEL_STAT, &s, NULL))
		n++;
	return n;
}

TEST(manifests_and_signatures)
{
	static const char *const bad[][2] = {
		{"", "no JSON"},
		{"[1]", "no JSON object"},
		{"{\"op\": \"add\", \"op\": \"add\"}", "duplicate"},
		{"{\"op\": \"add\"}", "name is missing"},
		{"{\"op\": \"add\", \"sha512\": \"0\"}", "sha512 is no field"},
	};
	EVP_PKEY *other = make_key();
	struct offer o;
	struct host h;

	host_open(&h, "");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pst_cmd_kernel_load load = {
			.size = sizeof(load),
			.image_fd = open_image("good"),
			.manifest_fd = bytes_file(bad[i][0], strlen(bad[i][0]))};

		memset(&h.err, 0, sizeof(h.err));
		EXPECT_EQ(-EBADMSG,
			  pst_control_call(h.control, PST_CMD_KERNEL_LOAD, &load, &h.err));
		EXPECT_TRUE(strstr(h.err.text, bad[i][1]));
		printf("# %s\n", h.err.text);
		close(load.image_fd);
		close(load.manifest_fd);
	}
	describe(&o, "swiglu", "good");
	strcpy(o.sha256, "00ff");
	REFUSED(-EBADMSG, "sha256 must be 64 hex digits");
	describe(&o, "swiglu", "good");
	strcpy(o.name, "a b");
	REFUSED(-EBADMSG, "name must have");
	describe(&o, "swiglu", "good");
	strcpy(o.signature, "AAAA");
	REFUSED(-EBADMSG, "signature must be 64 bytes");

	describe(&o, "swiglu", "good");
	REFUSED(-EKEYREJECTED, "is not signed");
	describe(&o, "swiglu", "good");
	sign(&o, other);
	REFUSED(-EKEYREJECTED, "signed by none of the 1 keys");
	/* every field is under the signature */
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	strcpy(o.op, "swiglu_bwd");
	REFUSED(-EKEYREJECTED, "signed by none");
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	o.sha256[5] = o.sha256[5] == '1' ? '2' : '1';
	REFUSED(-EKEYREJECTED, "signed by none");
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	o.abi[3] = o.abi[3] == '1' ? '2' : '1';
	REFUSED(-EKEYREJECTED, "signed by none");
	/* the order of the checks: a manifest of another image that is not signed either */
	describe(&o, "swiglu", "good");
	close(o.image);
	o.image = open_image("twin");
	REFUSED(-EKEYREJECTED, "is not signed");
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	close(o.image);
	o.image = open_image("twin");
	REFUSED(-EILSEQ, "not the one that the manifest describes");
	/* a key that others may write to is none */
	chmod(h.trusted, 0664);
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	REFUSED(-EKEYREJECTED, "chmod 644");
	chmod(h.trusted, 0644);
	EXPECT_EQ((uint32_t)PST_OP_COUNT, count_kernels(&h));
	EVP_PKEY_free(other);
	host_close(&h);
}

TEST(a_descriptor_that_is_no_file)
{
	struct pst_cmd_kernel_load load = {.size = sizeof(load)};
	int end[2];
	struct host h;

	host_open(&h, "");
	ASSERT_EQ(0, pipe(end));
	load.image_fd = end[0];
	load.manifest_fd = open_image("good");
	EXPECT_EQ(-EBADF, pst_control_call(h.control, PST_CMD_KERNEL_LOAD, &load, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "the image is no file"));
	load.image_fd = load.manifest_fd;
	load.manifest_fd = open("/dev/null", O_WRONLY);
	memset(&h.err, 0, sizeof(h.err));
	EXPECT_EQ(-EBADF, pst_control_call(h.control, PST_CMD_KERNEL_LOAD, &load, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "the manifest is no file"));
	host_close(&h);
}

TEST(images_that_do_not_fit)
{
	struct offer o;
	struct host h;

	host_open(&h, "");
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	o.image = cut_image(o.image, 4000);
	REFUSED(-EILSEQ, "not the one");
	/* signed as it is, so that only the loader can see it */
	describe(&o, "swiglu", "good");
	o.image = cut_image(o.image, 4000);
	hash_image(&o);
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "is cut short");
	describe(&o, "swiglu", "good");
	o.image = cut_image(o.image, 17);
	hash_image(&o);
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "no shared object");
	describe(&o, "swiglu", "good");
	strcpy(o.abi, "0123456789abcdef");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "has ABI 0123456789abcdef");
	describe(&o, "swiglu", "abi");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "another ABI");
	describe(&o, "swiglu", "bare");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "exports no pst_kernel_image");
	describe(&o, "swiglu", "unbound");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "cannot be loaded: undefined symbol: nobody_has_this");
	describe(&o, "swiglu", "good");
	strcpy(o.device, "cuda");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "CUDA");
	describe(&o, "swiglu", "good");
	strcpy(o.formats, "bf16");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "no format bf16");
	describe(&o, "swiglu_bwd", "good");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "is for op swiglu, and its manifest says swiglu_bwd");
	describe(&o, "swiglu", "good");
	strcpy(o.name, "better");
	sign(&o, h.key);
	REFUSED(-ENOEXEC, "calls itself good");
	EXPECT_EQ((uint32_t)PST_OP_COUNT, count_kernels(&h));
	host_close(&h);
}

/* The next event of the types that were asked for. */
static struct pst_event next_event(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct pst_event e = {0};

	ASSERT_EQ(1, poll(&p, 1, 50000));
	ASSERT_EQ((ssize_t)sizeof(e), read(fd, &e, sizeof(e)));
	return e;
}

static int open_events(struct host *h, uint64_t mask)
{
	struct pst_cmd_events events = {.size = sizeof(events), .mask = mask};

	ASSERT_OK(pst_control_call(h->control, PST_CMD_EVENTS, &events, &h->err), &h->err);
	return events.out_fd;
}

TEST(images_that_are_wrong)
{
	struct offer o;
	struct host h;
	int events;

	host_open(&h, "trial = 5s\n");
	events = open_events(&h, PST_EVENT_BIT(PST_EVENT_KERNEL_REFUSED));
	describe(&o, "gather", "ulp");
	sign(&o, h.key);
	REFUSED(-EDOM, "gather: the relative error against ref is");
	EXPECT_TRUE(strstr(h.err.text, "(m 16, n 64, k 32"));
	EXPECT_EQ(-EDOM, (int)next_event(events).value);
	describe(&o, "swiglu", "beyond");
	sign(&o, h.key);
	REFUSED(-EDOM, "allowed is 1e-06 (m ");
	describe(&o, "swiglu", "stray_write");
	sign(&o, h.key);
	REFUSED(-EDOM, "writes beside the rows of an output (m ");
	describe(&o, "swiglu", "stray_read");
	sign(&o, h.key);
	REFUSED(-EDOM, "reaches 1 bytes behind an input (m ");
	describe(&o, "swiglu", "crash");
	sign(&o, h.key);
	REFUSED(-ECHILD, "crashed when it was held against ref (m ");
	describe(&o, "swiglu", "exits");
	sign(&o, h.key);
	REFUSED(-ECHILD, "ended its process when");
	EXPECT_EQ((uint32_t)PST_OP_COUNT, count_kernels(&h));
	close(events);
	host_close(&h);
}

TEST(images_that_hang)
{
	struct offer o;
	struct host h;

	host_open(&h, "trial = 300ms\n");
	describe(&o, "swiglu", "hang");
	sign(&o, h.key);
	REFUSED(-ETIME, "no end within 300 ms");
	host_close(&h);
}

TEST(images_that_are_slow)
{
	struct pst_cmd_kernel_load load = {0};
	struct offer o;
	struct host h;

	host_open(&h, "");
	describe(&o, "swiglu", "slow");
	sign(&o, h.key);
	REFUSED(-ESTALE, "of the time of what it would replace (m ");
	describe(&o, "swiglu", "slow");
	sign(&o, h.key);
	ASSERT_OK(load_offer(h.control, &o, PST_KERNEL_LOAD_SLOWER, &load, &h.err), &h.err);
	EXPECT_LT(1100u, load.out_speed);
	EXPECT_EQ(load.out_speed, stat_kernel(h.control, load.out_id).out_speed);
	host_close(&h);
}

TEST(unsigned_if_the_config_says_so)
{
	struct offer o;
	struct host h;

	host_open(&h, "unsigned = yes\n");
	describe(&o, "swiglu", "good");
	EXPECT_EQ(0, load_offer(h.control, &o, PST_KERNEL_LOAD_SLOWER, NULL, &h.err));
	/* but what is signed is signed by somebody */
	describe(&o, "swiglu", "good");
	sign(&o, h.key);
	o.signature[4] = o.signature[4] == 'A' ? 'B' : 'A';
	REFUSED(-EKEYREJECTED, "signed by none");
	host_close(&h);
}

/* Two clients at once: both are served, one trial after the other. */
TEST(two_loads_at_once)
{
	struct offer o;
	struct host h;
	pid_t pid;
	int status;

	host_open(&h, "");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct pst_control *control = daemon_connect(&h.d);

		load_good(control, h.key, "swiglu", "twin");
		_exit(0);
	}
	load_good(h.control, h.key, "swiglu", "good");
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ((uint32_t)PST_OP_COUNT + 2, count_kernels(&h));
	/* and one that goes away before the answer */
	pid = fork();
	if (!pid) {
		struct pst_control *control = daemon_connect(&h.d);

		alarm(1);
		signal(SIGALRM, SIG_DFL);
		describe(&o, "swiglu", "hang");
		sign(&o, h.key);
		load_offer(control, &o, 0, NULL, &h.err);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	EXPECT_EQ((uint32_t)PST_OP_COUNT + 2, count_kernels(&h));
	host_close(&h);
}

static void expect_state(struct host *h, uint32_t id, uint32_t state, int line)
{
	uint32_t now = stat_kernel(h->control, id).out_state;

	if (now == state)
		return;
	test_say(__FILE__, line, "kernel %u is in state %u, not %u", id, now, state);
	test_failed = true;
}
#define STATE(id, state) expect_state(&h, id, PST_KERNEL_##state, __LINE__)

TEST(bound_and_rolled_back)
{
	const uint32_t builtin = BUILTIN(swiglu);
	struct pst_cmd_kernel_stat s;
	uint32_t good, twin, now = 0;
	struct pst_event e;
	struct host h;
	int events;

	host_open(&h, "[worker one]\ndevice = cpu:0\nthreads = 1\n");
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	events = open_events(&h, PST_EVENT_BIT(PST_EVENT_KERNEL_BOUND) |
					 PST_EVENT_BIT(PST_EVENT_KERNEL_LOADED));
	s = stat_kernel(h.control, builtin);
	EXPECT_STREQ("ref", (char *)s.out_name);
	EXPECT_EQ(1u, s.out_builtin);
	EXPECT_EQ(1u, s.out_workers);
	good = load_good(h.control, h.key, "swiglu", "good");
	twin = load_good(h.control, h.key, "swiglu", "twin");
	e = next_event(events);
	EXPECT_EQ(PST_EVENT_KERNEL_LOADED, (int)e.type);
	EXPECT_EQ(good, e.id);
	next_event(events);
	s = stat_kernel(h.control, good);
	EXPECT_STREQ("good", (char *)s.out_name);
	EXPECT_STREQ("swiglu", (char *)s.out_op);
	EXPECT_EQ((uint32_t)PST_DEVICE_CPU, s.out_kind);
	EXPECT_EQ(0u, s.out_builtin);
	EXPECT_EQ(0u, s.out_workers);
	STATE(good, TESTED);
	STATE(builtin, BOUND);

	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	e = next_event(events);
	EXPECT_EQ(PST_EVENT_KERNEL_BOUND, (int)e.type);
	EXPECT_EQ(good, e.id);
	EXPECT_EQ(builtin, (uint32_t)e.value);
	STATE(good, BOUND);
	STATE(builtin, REPLACED);
	EXPECT_EQ(1u, stat_kernel(h.control, good).out_workers);
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err)); /* as it is */
	EXPECT_EQ(0, bind_kernel(h.control, twin, &h.err));
	STATE(good, REPLACED);

	EXPECT_EQ(-EBUSY, unload_kernel(h.control, twin, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "roll it back"));
	EXPECT_EQ(-EBUSY, unload_kernel(h.control, good, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "kept for a rollback"));
	EXPECT_EQ(-EPERM, unload_kernel(h.control, builtin, &h.err));
	EXPECT_EQ(-ENOENT, unload_kernel(h.control, 99, &h.err));
	EXPECT_EQ(-EINVAL, rollback_kernel(h.control, good, &now, &h.err));
	EXPECT_EQ(-ENOENT, bind_kernel(h.control, 4711, &h.err));

	EXPECT_EQ(0, rollback_kernel(h.control, twin, &now, &h.err));
	EXPECT_EQ(good, now);
	STATE(twin, TESTED);
	STATE(good, BOUND);
	EXPECT_EQ(0, unload_kernel(h.control, twin, &h.err));
	EXPECT_EQ(0, rollback_kernel(h.control, good, &now, &h.err));
	EXPECT_EQ(builtin, now);
	EXPECT_EQ(-EINVAL, rollback_kernel(h.control, builtin, &now, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "has replaced none"));
	EXPECT_EQ(0, unload_kernel(h.control, good, &h.err));
	EXPECT_EQ((uint32_t)PST_OP_COUNT, count_kernels(&h));
	close(events);
	host_close(&h);
}

/* What is built in can be bound like any other, over what was loaded. */
TEST(the_builtin_one_is_bound_over_another)
{
	const uint32_t builtin = BUILTIN(swiglu);
	uint32_t good, twin, now = 0;
	struct host h;

	host_open(&h, "");
	good = load_good(h.control, h.key, "swiglu", "good");
	twin = load_good(h.control, h.key, "swiglu", "twin");
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	EXPECT_EQ(0, bind_kernel(h.control, builtin, &h.err));
	STATE(good, REPLACED);
	EXPECT_EQ(0, rollback_kernel(h.control, builtin, &now, &h.err));
	EXPECT_EQ(good, now);
	STATE(builtin, REPLACED);
	for (int i = 0; i < 40; i++)
		EXPECT_EQ(0, bind_kernel(h.control, i % 2 ? good : twin, &h.err));
	EXPECT_EQ(0, rollback_kernel(h.control, good, &now, &h.err));
	EXPECT_EQ(twin, now);
	EXPECT_EQ(0, rollback_kernel(h.control, twin, &now, &h.err));
	EXPECT_EQ(builtin, now);
	host_close(&h);
}

/* Checked every second, so the checks themselves are what it crashes, hangs or fails in. */
static void taken_back(const char *name, const char *says)
{
	uint32_t good, bad;
	struct pst_event e;
	struct host h;
	int events;

	host_open(&h, "check = 1s\n[children]\nsilence = 2s\n[worker one]\ndevice = cpu:0\n"
		      "threads = 1\n");
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	events = open_events(&h, PST_EVENT_BIT(PST_EVENT_KERNEL_TAKEN_BACK));
	good = load_good(h.control, h.key, "swiglu", "good");
	bad = load_good(h.control, h.key, "swiglu", name);
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	EXPECT_EQ(0, bind_kernel(h.control, bad, &h.err));
	e = next_event(events);
	printf("# %s\n", e.text);
	EXPECT_EQ(bad, e.id);
	EXPECT_EQ(good, (uint32_t)e.value);
	EXPECT_TRUE(strstr((char *)e.text, says));
	STATE(bad, TAKEN_BACK);
	STATE(good, BOUND);
	EXPECT_EQ(-EKEYREVOKED, bind_kernel(h.control, bad, &h.err));
	EXPECT_TRUE(strstr(h.err.text, "was taken back"));
	/* the worker is there again and has what is right: it is checked, and stays */
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	WAIT_FOR(stat_kernel(h.control, good).out_checks > 1);
	STATE(good, BOUND);
	EXPECT_EQ(0, unload_kernel(h.control, bad, &h.err));
	close(events);
	host_close(&h);
}

TEST(taken_back_when_it_disagrees)
{
	taken_back("late_wrong", "does not agree with ref in worker 1: swiglu: the relative error");
}

TEST(taken_back_when_it_crashes)
{
	taken_back("late_crash", "crashed while it served: SIGSEGV");
}

TEST(taken_back_when_it_hangs)
{
	taken_back("late_hang", "hung while it served");
}

/* A worker that an admin kills is no kernel's fault. */
TEST(not_taken_back_for_nothing)
{
	uint32_t good, pid;
	struct host h;

	host_open(&h, "[worker one]\ndevice = cpu:0\nthreads = 1\n");
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	good = load_good(h.control, h.key, "swiglu", "good");
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	pid = stat_worker(h.control, 1).out_pid;
	kill((pid_t)pid, SIGKILL);
	WAIT_FOR(stat_worker(h.control, 1).out_pid != pid &&
		 stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	STATE(good, BOUND);
	host_close(&h);
}

/* The next daemon binds the same and tries nothing again; its workers never noticed. */
TEST(a_daemon_that_comes_back)
{
	uint32_t good, twin, bad, now = 0, speed, pid;
	struct host h;

	host_open(&h, "check = 1s\n[worker one]\ndevice = cpu:0\nthreads = 1\n");
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	good = load_good(h.control, h.key, "swiglu", "good");
	twin = load_good(h.control, h.key, "swiglu", "twin");
	bad = load_good(h.control, h.key, "swiglu", "late_wrong");
	EXPECT_EQ(0, bind_kernel(h.control, good, &h.err));
	EXPECT_EQ(0, bind_kernel(h.control, twin, &h.err));
	EXPECT_EQ(0, bind_kernel(h.control, bad, &h.err));
	WAIT_FOR(stat_kernel(h.control, bad).out_state == PST_KERNEL_TAKEN_BACK);
	speed = stat_kernel(h.control, twin).out_speed;
	pid = stat_worker(h.control, 1).out_pid;

	pst_control_close(h.control);
	daemon_kill(&h.d);
	daemon_run(&h.d);
	h.control = daemon_connect(&h.d);
	STATE(good, REPLACED);
	STATE(twin, BOUND);
	STATE(bad, TAKEN_BACK);
	STATE(BUILTIN(swiglu), REPLACED);
	EXPECT_EQ(speed, stat_kernel(h.control, twin).out_speed);
	WAIT_FOR(stat_worker(h.control, 1).out_state == PST_WORKER_SERVING);
	EXPECT_EQ(pid, stat_worker(h.control, 1).out_pid);
	WAIT_FOR(stat_kernel(h.control, twin).out_checks > 2);
	EXPECT_EQ(-EKEYREVOKED, bind_kernel(h.control, bad, &h.err));
	EXPECT_EQ(0, rollback_kernel(h.control, twin, &now, &h.err));
	EXPECT_EQ(good, now);
	EXPECT_LT(bad, load_good(h.control, h.key, "swiglu", "twin"));
	kill((pid_t)pid, SIGKILL);
	host_close(&h);
}

TEST_MAIN
