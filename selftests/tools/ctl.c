/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstockctl against a door that answers what we want: tables and JSON of every command, what it
 * sends, and what it makes of errors, of a daemon that dies, and of bytes that are not meant well.
 */
#include "selftests/control/fakehost.h"
#include "selftests/tools/program.h"

#include <stdarg.h>

#define HEADER "uapi/penstock/ioctl.h"

static struct fakedoor door;

/* The door serves while a program runs, and is the test's to change in between. */
#define SERVED(call)                      \
	({                                \
		fakedoor_go(&door);       \
		__auto_type of_ = (call); \
		fakedoor_pause(&door);    \
		of_;                      \
	})
#define program_run(...)  SERVED(program_run(__VA_ARGS__))
#define program_json(...) SERVED(program_json(__VA_ARGS__))
#define program_refused(...)                  \
	do {                                  \
		fakedoor_go(&door);           \
		program_refused(__VA_ARGS__); \
		fakedoor_pause(&door);        \
	} while (0)

FIXTURE(ctl)
{
	const char *socket;
};
FIXTURE_SETUP(ctl)
{
	setenv("LC_ALL", "C.UTF-8", 1);
	setenv("TERM", "xterm", 1);
	setenv("TZ", "UTC", 1);
	self->socket = strdup(in_tmp("socket"));
	setenv("PENSTOCK_SOCKET", self->socket, 1);
	fakehost_open(&door, self->socket);
}
FIXTURE_TEARDOWN(ctl)
{
	fakedoor_close(&door);
	free((void *)self->socket);
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static bool has(const char *text, const char *what)
{
	if (strstr(text, what))
		return true;
	printf("# no '%s' in:\n# %s\n", what, text);
	return false;
}

/* What it prints when all is well. */
static struct ended good(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct ended good(const char *fmt, ...)
{
	char line[400];
	struct ended e;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	e = program_run("penstockctl %s", line);
	if (e.code) {
		printf("# %s: exit status %d: %s\n", line, e.code, e.err);
		_exit(TEST_FAIL);
	}
	return e;
}

/* $BIN is where the programs of this build are. */
static void find_programs(void)
{
	char path[256];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	ASSERT_GT(n, 0);
	path[n] = 0;
	*strstr(path, "/selftests/tools/") = 0;
	setenv("BIN", path, 1);
}

/* All lists, and the struct that each shows. */
static const struct {
	const char *command, *type;
	uint32_t cmd;
	size_t rows, lines; /* of the fake host; lines with the heading and notes */
} lists[] = {
	{"devices", "pst_cmd_device_stat", PST_CMD_DEVICE_STAT, 4, 6},
	{"pools", "pst_cmd_pool_stat", PST_CMD_POOL_STAT, 2, 4},
	{"kernels", "pst_cmd_kernel_stat", PST_CMD_KERNEL_STAT, 3, 4},
	{"workers", "pst_cmd_worker_stat", PST_CMD_WORKER_STAT, 3, 5},
	{"servers", "pst_cmd_server_stat", PST_CMD_SERVER_STAT, 1, 2},
	{"experts", "pst_cmd_expert_stat", PST_CMD_EXPERT_STAT, 3, 4},
	{"tables", "pst_cmd_table_stat", PST_CMD_TABLE_STAT, 2, 3},
	{"info", "pst_cmd_info", 0, 1, 12},
	{"events", "pst_event", 0, 6, 7},
};
#define LISTS (sizeof(lists) / sizeof(*lists))

/* The fields of struct @type in the header are the keys of @row, and nothing else is. */
static void expect_keys(const char *type, const json_t *row)
{
	char *text = read_file(HEADER, NULL), line[128], head[128], *at, *save = NULL;
	size_t fields = 0;

	snprintf(head, sizeof(head), "\nstruct %s {\n", type);
	at = strstr(text, head);
	ASSERT_NE(NULL, at);
	*strstr(at, "};") = 0;
	for (char *l = strtok_r(at + strlen(head), "\n", &save); l;
	     l = strtok_r(NULL, "\n", &save)) {
		char *name = line;

		if (sscanf(l, " __%*[a-z0-9_] %127[a-z0-9_]", line) != 1 || !strcmp(line, "size") ||
		    !strcmp(line, "flags") || !strncmp(line, "__", 2))
			continue;
		name += strncmp(line, "out_", 4) ? 0 : 4;
		if (!json_object_get(row, name)) {
			printf("# %s: no key %s\n", type, name);
			test_failed = true;
		}
		fields++;
	}
	EXPECT_GT(fields, (size_t)4);
	EXPECT_EQ(fields, json_object_size(row));
	free(text);
}

TEST_F(ctl, every_list_as_json)
{
	for (size_t i = 0; i < LISTS; i++) {
		json_t *root = program_json(NULL, "penstockctl --json %s", lists[i].command);

		ASSERT_TRUE(json_is_array(root));
		EXPECT_EQ(lists[i].rows, json_array_size(root));
		for (size_t k = 0; k < json_array_size(root); k++)
			expect_keys(lists[i].type, json_array_get(root, k));
		json_decref(root);
	}
}

TEST_F(ctl, every_list_as_a_table)
{
	for (size_t i = 0; i < LISTS; i++) {
		struct ended e = good("%s", lists[i].command);

		EXPECT_EQ(lists[i].lines, count_lines(e.out));
		EXPECT_STREQ("", e.err);
		EXPECT_EQ(NULL, strchr(e.out, '\33'));
		if (lists[i].lines != count_lines(e.out))
			printf("# %s\n", e.out);
		ended_free(&e);
	}
}

/* --json and --socket may stand on either side of the command. */
TEST_F(ctl, options_on_either_side)
{
	json_t *before, *behind;

	unsetenv("PENSTOCK_SOCKET");
	before = program_json(NULL, "penstockctl --socket %s --json pools", self->socket);
	behind = program_json(NULL, "penstockctl pools --json --socket=%s", self->socket);
	EXPECT_TRUE(json_equal(before, behind));
	json_decref(before);
	json_decref(behind);
}

TEST_F(ctl, columns_stand_below_each_other)
{
	static const char *const right[] = {"LOAD", "MEMORY", "POWER", "CLOCK"};
	struct ended e = good("devices");
	char *second = strchr(e.out, '\n') + 1, *third = strchr(second, '\n') + 1;

	for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
		size_t end = (size_t)(strstr(e.out, right[i]) - e.out) + strlen(right[i]);

		EXPECT_TRUE(end < (size_t)(third - second));
		EXPECT_EQ(' ', second[end]);
		EXPECT_NE(' ', second[end - 1]);
		EXPECT_NE(' ', third[end - 1]);
	}
	ended_free(&e);
}

TEST_F(ctl, units_for_people)
{
	struct ended e = good("devices");

	EXPECT_TRUE(has(e.out, "82.3 %"));
	EXPECT_TRUE(has(e.out, "755 GiB"));
	EXPECT_TRUE(has(e.out, "655 W"));
	EXPECT_TRUE(has(e.out, "1980 MHz"));
	EXPECT_TRUE(has(e.out, "58 \xc2\xb0"
			       "C"));
	EXPECT_TRUE(has(e.out, " throttled "));
	EXPECT_TRUE(has(e.out, "device 4: it is at 87 C"));
	EXPECT_EQ(NULL, strstr(e.out, "4294967295"));
	ended_free(&e);
	setenv("LC_ALL", "C", 1);
	e = good("devices");
	EXPECT_TRUE(has(e.out, "58 C"));
	ended_free(&e);
}

TEST_F(ctl, numbers_for_programs)
{
	json_t *root = program_json(NULL, "penstockctl --json devices"), *d;
	static const char *const untold[] = {"load",	   "memory_used",    "energy_uj",
					     "power_mw",   "cap_mw",	     "clock_mhz",
					     "cap_min_mw", "temperature_mc", "ecc_corrected"};

	d = json_array_get(root, 0);
	EXPECT_STREQ("cpu", json_string_value(json_object_get(d, "kind")));
	EXPECT_EQ(755ll << 30, json_integer_value(json_object_get(d, "memory_bytes")));
	EXPECT_EQ(301400, json_integer_value(json_object_get(d, "power_mw")));
	EXPECT_EQ(61250, json_integer_value(json_object_get(d, "temperature_mc")));
	EXPECT_EQ(81000000000000ll, json_integer_value(json_object_get(d, "energy_uj")));
	EXPECT_STREQ("", json_string_value(json_object_get(d, "uuid")));
	d = json_array_get(root, 1);
	for (size_t i = 0; i < sizeof(untold) / sizeof(*untold); i++)
		EXPECT_TRUE(json_is_null(json_object_get(d, untold[i])));
	d = json_array_get(root, 3);
	EXPECT_TRUE(json_is_null(json_object_get(d, "node")));
	EXPECT_STREQ("throttled", json_string_value(json_object_get(d, "health")));
	json_decref(root);
}

TEST_F(ctl, lists_within_json)
{
	json_t *root = program_json(NULL, "penstockctl --json experts"), *ids;

	ids = json_object_get(json_array_get(root, 0), "workers");
	ASSERT_EQ((size_t)2, json_array_size(ids));
	EXPECT_EQ(1, json_integer_value(json_array_get(ids, 0)));
	EXPECT_EQ(2, json_integer_value(json_array_get(ids, 1)));
	ids = json_object_get(json_array_get(root, 1), "workers");
	EXPECT_EQ(64, json_integer_value(json_array_get(ids, 0)));
	json_decref(root);
	root = program_json(NULL, "penstockctl --json pools");
	ids = json_object_get(json_array_get(root, 0), "flags");
	EXPECT_STREQ("huge", json_string_value(json_array_get(ids, 0)));
	EXPECT_STREQ("keep", json_string_value(json_array_get(ids, 1)));
	json_decref(root);
	root = program_json(NULL, "penstockctl --json kernels");
	EXPECT_TRUE(json_is_null(json_object_get(json_array_get(root, 0), "hash")));
	EXPECT_EQ((size_t)64,
		  strlen(json_string_value(json_object_get(json_array_get(root, 1), "hash"))));
	json_decref(root);
}

TEST_F(ctl, words_that_it_does_not_know_are_numbers)
{
	struct pst_cmd_worker_stat *w = fake_at(&door, PST_CMD_WORKER_STAT)->row;
	json_t *root;

	w->out_state = 77;
	root = program_json(NULL, "penstockctl --json workers");
	EXPECT_EQ(77, json_integer_value(json_object_get(json_array_get(root, 0), "state")));
	json_decref(root);
}

TEST_F(ctl, hot_experts_first)
{
	json_t *root = program_json(NULL, "penstockctl --json experts --top 2");

	ASSERT_EQ((size_t)2, json_array_size(root));
	EXPECT_EQ(255, json_integer_value(json_object_get(json_array_get(root, 0), "index")));
	EXPECT_EQ(0, json_integer_value(json_object_get(json_array_get(root, 1), "index")));
	json_decref(root);
	root = program_json(NULL, "penstockctl --json experts --layer 4 --top 2");
	ASSERT_EQ((size_t)1, json_array_size(root));
	EXPECT_EQ(4, json_integer_value(json_object_get(json_array_get(root, 0), "layer")));
	json_decref(root);
}

TEST_F(ctl, nothing_there)
{
	for (size_t i = 0; i < LISTS; i++) {
		struct ended e;
		json_t *root;

		if (!lists[i].cmd)
			continue;
		fake_at(&door, lists[i].cmd)->rows = 0;
		e = good("%s", lists[i].command);
		EXPECT_STREQ("", e.out);
		EXPECT_TRUE(!strncmp(e.err, "no ", 3) && has(e.err, lists[i].command));
		ended_free(&e);
		root = program_json(NULL, "penstockctl --json %s", lists[i].command);
		EXPECT_TRUE(json_is_array(root) && !json_array_size(root));
		json_decref(root);
	}
}

TEST_F(ctl, a_thousand_of_them)
{
	struct pst_cmd_pool_stat *pool = calloc(1000, sizeof(*pool));
	struct ended e;
	json_t *root;

	for (uint32_t i = 0; i < 1000; i++) {
		pool[i].id = 3 * i + 1;
		snprintf((char *)pool[i].out_name, sizeof(pool[i].out_name), "pool-%u", i);
	}
	fake_at(&door, PST_CMD_POOL_STAT)->row = pool;
	fake_at(&door, PST_CMD_POOL_STAT)->rows = 1000;
	e = good("pools");
	EXPECT_EQ((size_t)1001, count_lines(e.out));
	EXPECT_TRUE(has(e.out, "pool-999 "));
	ended_free(&e);
	root = program_json(NULL, "penstockctl --json pools");
	EXPECT_EQ((size_t)1000, json_array_size(root));
	EXPECT_EQ(2998, json_integer_value(json_object_get(json_array_get(root, 999), "id")));
	json_decref(root);
	free(pool);
}

/* Names that fill their field have no NUL behind them. */
TEST_F(ctl, long_names)
{
	struct pst_cmd_worker_stat *w = fake_at(&door, PST_CMD_WORKER_STAT)->row;
	struct pst_cmd_pool_stat *p = fake_at(&door, PST_CMD_POOL_STAT)->row;
	char url[sizeof(w->out_url) + 1], name[sizeof(p->out_name) + 1];
	struct ended e;

	memset(url, 'u', sizeof(url));
	memset(name, 'n', sizeof(name));
	memcpy(w->out_url, url, sizeof(w->out_url));
	memcpy(p->out_name, name, sizeof(p->out_name));
	url[sizeof(url) - 1] = name[sizeof(name) - 1] = 0;
	e = good("workers");
	EXPECT_TRUE(has(e.out, url));
	EXPECT_EQ((size_t)5, count_lines(e.out));
	ended_free(&e);
	e = good("pools");
	EXPECT_TRUE(has(e.out, name));
	ended_free(&e);
	e = good("pool destroy %s", name);
	EXPECT_STREQ("pool 1 is destroyed\n", e.out);
	ended_free(&e);
}

/* Escapes, a newline, half a character, C1, and what turns the direction of text. */
#define HOSTILE                       \
	"a\33]0;b\7\n\r\xc3+\xc2\x9b" \
	"2J\xe2\x80\xae\x7f\xffz"
#define HARMLESS "a?]0;b????+?2J???z"
#define HOSTILE_J                             \
	"a\33]0;b\7\n\r\xef\xbf\xbd+\xc2\x9b" \
	"2J\xe2\x80\xae\x7f\xef\xbf\xbdz"

static void expect_harmless(const char *text)
{
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 && *p != '\n') {
			printf("# byte %#x at %zd\n", (unsigned char)*p, p - text);
			test_failed = true;
		}
	EXPECT_EQ(NULL, strstr(text, "\xc2\x9b"));
	EXPECT_EQ(NULL, strstr(text, "\xe2\x80\xae"));
	EXPECT_EQ(NULL, strchr(text, '\x7f'));
	EXPECT_EQ(NULL, strchr(text, '\xff'));
}

TEST_F(ctl, hostile_bytes)
{
	struct pst_cmd_device_stat *d = fake_at(&door, PST_CMD_DEVICE_STAT)->row;
	struct fake_command *drain = fake_at(&door, PST_CMD_WORKER_DRAIN);
	static const char *const commands[] = {"devices", "top --once --interval 0.01", "events",
					       "power 1"};
	struct ended e;
	json_t *root;

	strcpy((char *)d->out_name, HOSTILE);
	strcpy((char *)d->out_note, HOSTILE);
	strcpy((char *)door.event[0].text, HOSTILE);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		e = good("%s", commands[i]);
		EXPECT_TRUE(has(e.out, "a?]0;b????+?2"));
		expect_harmless(e.out);
		ended_free(&e);
	}
	root = program_json(NULL, "penstockctl --json devices");
	EXPECT_STREQ(HOSTILE_J,
		     json_string_value(json_object_get(json_array_get(root, 0), "name")));
	json_decref(root);
	drain->rc = -ETIMEDOUT;
	drain->why = HOSTILE;
	e = program_run("penstockctl worker drain 1");
	EXPECT_STREQ("penstockctl: " HARMLESS "\n", e.err);
	ended_free(&e);
}

/* Every command that is given to the door: what it sends, and its error. */
static const struct order {
	const char *line, *said;
	uint32_t cmd;
	int rc;
	const void *sent;
	size_t bytes;
} orders[] = {
#define ORDER(line, said, CMD, name, rc, ...)                                                 \
	{                                                                                     \
		line, said, PST_CMD_##CMD, rc,                                                \
			&(const struct pst_cmd_##name){.size = sizeof(struct pst_cmd_##name), \
						       __VA_ARGS__},                          \
			sizeof(struct pst_cmd_##name)                                         \
	}
	ORDER("info", "keep,signed", INFO, info, -ENOMEM, .flags = 0),
	ORDER("kernel bind 7", "kernel 7 is bound", KERNEL_BIND, kernel_bind, -EKEYREVOKED,
	      .id = 7),
	ORDER("kernel bind amx-bf16", "kernel 2 is bound", KERNEL_BIND, kernel_bind, -ECHILD,
	      .id = 2),
	ORDER("kernel rollback 2", "kernel 0 serves again", KERNEL_ROLLBACK, kernel_rollback,
	      -EINVAL, .id = 2),
	ORDER("kernel unload fast", "kernel 9 is unloaded", KERNEL_UNLOAD, kernel_unload, -EBUSY,
	      .id = 9),
	ORDER("worker start", "listens at", WORKER_START, worker_start, -ECHILD, .flags = 0),
	ORDER("worker start --device gpu:1 --threads 3 --url tcp://0.0.0.0:0", "listens at",
	      WORKER_START, worker_start, -EADDRINUSE, .device = 4, .threads = 3,
	      .url = "tcp://0.0.0.0:0"),
	ORDER("worker drain 5", "worker 5 is drained", WORKER_DRAIN, worker_drain, -ETIMEDOUT,
	      .id = 5, .timeout_ms = 60000),
	ORDER("worker drain tcp://192.168.70.12:7472 --timeout 1.5", "worker 5 is drained",
	      WORKER_DRAIN, worker_drain, -ETIMEDOUT, .id = 5, .timeout_ms = 1500),
	ORDER("worker stop 2", "worker 2 is stopped", WORKER_STOP, worker_stop, -ENOENT, .id = 2),
	ORDER("pool create a 5", "pool 0:", POOL_CREATE, pool_create, -EEXIST,
	      .flags = PST_POOL_CREATE_KEEP, .bytes = 5, .node = -1, .name = "a"),
	ORDER("pool create abc 1.5GiB --node 1 --huge --lock", "pool 0:", POOL_CREATE, pool_create,
	      -EDQUOT, .flags = 7, .bytes = 3ull << 29, .node = 1, .name = "abc"),
	ORDER("pool destroy 2", "pool 2 is destroyed", POOL_DESTROY, pool_destroy, -EBUSY, .id = 2),
	ORDER("pool destroy scratch", "pool 2 is destroyed", POOL_DESTROY, pool_destroy, -EPERM,
	      .id = 2),
	ORDER("expert place 3 255 2", "expert 255 of layer 3 is brought to worker 2", EXPERT_PLACE,
	      expert_place, -ENODATA, .layer = 3, .index = 255, .worker = 2,
	      .order = PST_EXPERT_BRING),
	ORDER("expert pin 3 255 2", "is pinned at worker 2", EXPERT_PLACE, expert_place, -ENOSPC,
	      .layer = 3, .index = 255, .worker = 2, .order = PST_EXPERT_PIN),
	ORDER("expert unpin 0 0 1", "no longer pinned", EXPERT_PLACE, expert_place, -EPERM,
	      .worker = 1, .order = PST_EXPERT_UNPIN),
	ORDER("expert evict 0 1 shm://penstock-worker-1", "is evicted from worker 1", EXPERT_PLACE,
	      expert_place, -EPERM, .index = 1, .worker = 1, .order = PST_EXPERT_EVICT),
	ORDER("power 3 --cap 450.5", "NVIDIA H200", DEVICE_POWER, device_power, -ERANGE,
	      .flags = PST_DEVICE_POWER_CAP, .id = 3, .cap_mw = 450500),
	ORDER("power gpu:0 --clock 1200-1800 --cap 300", "NVIDIA H200", DEVICE_POWER, device_power,
	      -ENODEV, .flags = 3, .id = 3, .cap_mw = 300000, .clock_min_mhz = 1200,
	      .clock_max_mhz = 1800),
	ORDER("power GPU-02d9f3b4-77aa-4c1f-8c57-1e5a90b64f02 --clock 1500", "NVIDIA H200",
	      DEVICE_POWER, device_power, -EPERM, .flags = PST_DEVICE_POWER_CLOCK, .id = 4,
	      .clock_min_mhz = 1500, .clock_max_mhz = 1500),
	ORDER("power cpu1 --reset", "AMD EPYC", DEVICE_POWER, device_power, -EPERM,
	      .flags = PST_DEVICE_POWER_RESET, .id = 2),
	ORDER("events --past 3 --type died,xid hung", "died", EVENTS, events, -EMFILE,
	      .mask = 1 << PST_EVENT_DIED | 1 << PST_EVENT_XID | 1 << PST_EVENT_HUNG, .past = 3),
};
#define ORDERS (sizeof(orders) / sizeof(*orders))

TEST_F(ctl, orders_as_they_arrive)
{
	for (size_t i = 0; i < ORDERS; i++) {
		struct fake_command *c = fake_at(&door, orders[i].cmd);
		struct ended e;

		door.event[4].type = PST_EVENT_DIED;
		e = good("%s", orders[i].line);
		if (!has(e.out, orders[i].said) ||
		    memcmp(c->last, orders[i].sent, orders[i].bytes)) {
			printf("# not as wanted: %s\n", orders[i].line);
			test_failed = true;
		}
		EXPECT_STREQ("", e.err);
		ended_free(&e);
	}
}

TEST_F(ctl, orders_that_are_refused)
{
	for (size_t i = 0; i < ORDERS; i++) {
		struct fake_command *c = fake_at(&door, orders[i].cmd);

		c->rc = orders[i].rc;
		c->why = "the moon stands wrong; wait for another: sleep 1";
		program_refused(NULL, 1, "penstockctl: the moon stands wrong; wait for another",
				"penstockctl %s", orders[i].line);
		/* a door without a sentence */
		c->why = NULL;
		program_refused(NULL, 1, "penstockctl: ", "penstockctl --json %s", orders[i].line);
		c->rc = 0;
	}
	for (size_t i = 0; i < LISTS; i++) {
		if (!lists[i].cmd)
			continue;
		fake_at(&door, lists[i].cmd)->rc = -ENOTTY;
		fake_at(&door, lists[i].cmd)->why = "this door has no such thing";
		program_refused(NULL, 1, "no such thing", "penstockctl %s", lists[i].command);
	}
}

/* Takes both. */
static void expect_json(json_t *got, json_t *wanted)
{
	EXPECT_TRUE(json_equal(got, wanted));
	json_decref(got);
	json_decref(wanted);
}

/* What an order brought. */
TEST_F(ctl, orders_as_json)
{
	static const struct pst_cmd_worker_start start = {
		.out_id = 8, .out_pid = 99, .out_url = "shm://x"};
	static const struct pst_cmd_pool_create create = {
		.out_bytes = 4096, .out_page_bytes = 4096, .out_id = 12, .out_node = -1};
	static const struct pst_cmd_kernel_rollback back = {.out_id = 3};
	json_t *root;

	fake_at(&door, PST_CMD_WORKER_START)->answer = &start;
	fake_at(&door, PST_CMD_POOL_CREATE)->answer = &create;
	fake_at(&door, PST_CMD_KERNEL_ROLLBACK)->answer = &back;
	root = program_json(NULL, "penstockctl --json worker start");
	expect_json(root, json_pack("[{s:i, s:i, s:s}]", "id", 8, "pid", 99, "url", "shm://x"));
	root = program_json(NULL, "penstockctl --json pool create a 1");
	expect_json(root, json_pack("[{s:i, s:i, s:i, s:n}]", "id", 12, "bytes", 4096, "page_bytes",
				    4096, "node"));
	root = program_json(NULL, "penstockctl --json kernel rollback 4");
	expect_json(root, json_pack("[{s:i}]", "id", 3));
	root = program_json(NULL, "penstockctl --json kernel bind 4");
	EXPECT_TRUE(json_is_array(root) && !json_array_size(root));
	json_decref(root);
}

TEST_F(ctl, kernel_load_sends_both_files)
{
	static const struct pst_cmd_kernel_load loaded = {.out_id = 5, .out_speed = 512};
	struct fake_command *c = fake_at(&door, PST_CMD_KERNEL_LOAD);
	struct ended e;

	c->answer = &loaded;
	write_file(in_tmp("image"), "12345", 5);
	write_file(in_tmp("manifest"), "123", 3);
	e = good("kernel load %s %s --slower", in_tmp("image"), in_tmp("manifest"));
	EXPECT_TRUE(has(e.out, "kernel 5 is right, and takes 51.2 % of the time"));
	EXPECT_EQ((uint64_t)5, c->fd_bytes[0]);
	EXPECT_EQ((uint64_t)3, c->fd_bytes[1]);
	EXPECT_EQ((uint32_t)PST_KERNEL_LOAD_SLOWER, ((struct pst_cmd_kernel_load *)c->last)->flags);
	ended_free(&e);
	program_refused(NULL, 1, "nowhere cannot be read: No such file",
			"penstockctl kernel load %s %s", in_tmp("image"), in_tmp("nowhere"));
	c->rc = -EDOM;
	c->why = "gate_topk/fast differs from ref at 3 x 0: nan";
	program_refused(NULL, 1, "differs from ref", "penstockctl kernel load %s %s",
			in_tmp("image"), in_tmp("manifest"));
}

TEST_F(ctl, names_that_nobody_or_several_have)
{
	program_refused(NULL, 1, "no pool is called 'none'", "penstockctl pool destroy none");
	program_refused(NULL, 1, "no worker is called", "penstockctl worker stop nobody");
	program_refused(NULL, 1, "2 devices are called 'NVIDIA H200'",
			"penstockctl power 'NVIDIA H200' --reset");
	program_refused(NULL, 1, "no device is called 'gpu:2'", "penstockctl power gpu:2");
	EXPECT_EQ(0u, fake_at(&door, PST_CMD_POOL_DESTROY)->calls);
	EXPECT_EQ(0u, fake_at(&door, PST_CMD_DEVICE_POWER)->calls);
}

TEST_F(ctl, command_lines_that_are_wrong)
{
	static const struct {
		const char *line, *text;
	} wrong[] = {
		{"bogus", "unknown command 'bogus'"},
		{"pool", "what should be done with the pool"},
		{"pool fill", "unknown command 'pool fill'"},
		{"--socket", "no PATH"},
		{"--bogus devices", "unknown option"},
		{"devices --bogus", "unknown option"},
		{"devices 3", "too many words"},
		{"kernel load image", "IMAGE MANIFEST"},
		{"pool create a", "NAME SIZE"},
		{"pool create a b", "'b' is no size"},
		{"pool create a 0", "'0' is no size"},
		{"pool create a 12X", "'12X' is no size"},
		{"pool create a 9E", "'9E' is no size"},
		{"pool create '' 1G", "is no name"},
		{"pool create 12345678901234567890123456789012 1G", "is no name"},
		{"pool create a 1G --node x", "--node x"},
		{"power", "DEVICE"},
		{"power 1 --cap 0", "--cap 0"},
		{"power 1 --clock a-b", "--clock a-b"},
		{"power 1 --clock 5-", "--clock 5-"},
		{"power 1 --reset --cap 5", "--reset goes alone"},
		{"expert pin x 1 1", "no layer"},
		{"expert pin 1 -1 1", "-1"},
		{"expert pin 1 1", "LAYER INDEX WORKER"},
		{"experts --top 0", "--top 0"},
		{"experts --layer 4294967296", "--layer"},
		{"events --type bogus", "'bogus' is no type of event"},
		{"events --past x", "--past x"},
		{"top --interval 0", "--interval 0"},
		{"worker drain 1 --timeout 0", "--timeout 0"},
		{"worker start --threads -1", "--threads -1"},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		program_refused(NULL, 2, wrong[i].text, "penstockctl %s", wrong[i].line);
	EXPECT_EQ(0u, door.requests);
}

TEST_F(ctl, no_daemon)
{
	fakedoor_close(&door);
	fakedoor_open(&door, in_tmp("another"));
	for (size_t i = 0; i < LISTS; i++)
		program_refused(NULL, 1, "to start one: penstockd", "penstockctl --socket %s %s",
				self->socket, lists[i].command);
	program_refused(NULL, 1, "to start one: penstockd", "penstockctl --socket %s top --once",
			self->socket);
}

/* After any number of answers. */
TEST_F(ctl, a_daemon_that_dies)
{
	static const char *const commands[] = {"workers", "--json pools", "pool destroy scratch",
					       "top --once --interval 0.01", "events"};

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		for (unsigned int n = 1; n <= 3; n++) {
			door.die_after = n;
			program_refused(NULL, 1, "penstockctl: ", "penstockctl %s", commands[i]);
			fakedoor_close(&door);
			fakedoor_open(&door, self->socket);
		}
	door.die_after = 0;
}

TEST_F(ctl, a_list_without_an_end)
{
	door.circles = true;
	program_refused(NULL, 1, "does not go forward", "penstockctl pools");
	program_refused(NULL, 1, "does not go forward", "penstockctl --json experts");
}

TEST_F(ctl, events_that_were)
{
	struct ended e = good("events --past 2");
	json_t *root;

	EXPECT_EQ((size_t)3, count_lines(e.out));
	EXPECT_TRUE(has(e.out, "2023-11-14 22:14:10.005  device               4  device 4"));
	ended_free(&e);
	/* more than a socket holds: they come as they are read */
	while (door.events < FAKE_EVENTS) {
		door.event[door.events] = door.event[door.events - 1];
		door.event[door.events].value = (int64_t)door.events;
		door.events++;
	}
	root = program_json(NULL, "penstockctl --json events");
	EXPECT_EQ((size_t)FAKE_EVENTS, json_array_size(root));
	EXPECT_EQ(FAKE_EVENTS - 1, json_integer_value(json_object_get(
					   json_array_get(root, FAKE_EVENTS - 1), "value")));
	json_decref(root);
}

/* Waits until @p has said @lines lines; what it said. */
static char *said_lines(const struct program *p, size_t lines)
{
	double end = now_ms() + 30000;

	for (;;) {
		char *said = program_said(p);

		if (count_lines(said) >= lines)
			return said;
		if (now_ms() > end || !program_runs(p)) {
			printf("# it said:\n# %s\n", said);
			_exit(TEST_FAIL);
		}
		free(said);
		sleep_ms(2);
	}
}

/* Until command @cmd came @calls times; it serves meanwhile. */
static void await_calls(uint32_t cmd, unsigned int calls)
{
	unsigned int came = 0;

	while (came < calls) {
		fakedoor_pause(&door);
		came = fake_at(&door, cmd)->calls;
		fakedoor_go(&door);
		sleep_ms(2);
	}
}

TEST_F(ctl, events_as_they_come)
{
	struct pst_event e = {.size = sizeof(e),
			      .type = PST_EVENT_XID,
			      .time_ns = 1700000000000000000ull,
			      .id = 3,
			      .value = 79,
			      .text = "device 3 fell off the bus"};
	struct program people, programs;
	struct ended end;
	char *said;
	json_t *o;

	program_start(&people, NULL, "penstockctl events --follow --past 1");
	program_start(&programs, NULL, "penstockctl --json events --follow --past 0");
	fakedoor_go(&door);
	free(said_lines(&people, 1));
	await_calls(PST_CMD_EVENTS, 2);
	fakedoor_pause(&door);
	fakedoor_event(&door, &e);
	fakedoor_go(&door);
	said = said_lines(&people, 2);
	EXPECT_TRUE(has(said, "xid                  3  device 3 fell off the bus\n"));
	free(said);
	said = said_lines(&programs, 1);
	o = json_loads(said, 0, NULL);
	EXPECT_STREQ("xid", json_string_value(json_object_get(o, "type")));
	EXPECT_EQ(79, json_integer_value(json_object_get(o, "value")));
	json_decref(o);
	free(said);
	fakedoor_pause(&door);
	fakedoor_close(&door);
	program_wait(&people, 20000, &end);
	EXPECT_EQ(1, end.code);
	EXPECT_STREQ("penstockctl: the daemon is gone\n", end.err);
	ended_free(&end);
	program_wait(&programs, 20000, &end);
	EXPECT_EQ(1, end.code);
	ended_free(&end);
	fakedoor_open(&door, self->socket);
}

/* ... who waits for an event ends when nobody reads any more, without another event. */
TEST_F(ctl, events_that_nobody_reads)
{
	find_programs();
	fakedoor_go(&door);
	shell("$BIN/penstockctl events --follow --past 1 | head -n 1 >/dev/null");
	fakedoor_pause(&door);
}

TEST_F(ctl, top_once)
{
	struct ended e;

	door.grow = 1000;
	e = good("top --once --interval 0.05");
	EXPECT_TRUE(has(e.out, "penstockd 0.1.0, process 4699, up "));
	EXPECT_TRUE(has(e.out, "612/755 GiB"));
	EXPECT_TRUE(has(e.out, "655/700 W"));
	EXPECT_TRUE(has(e.out, "throttled"));
	EXPECT_TRUE(has(e.out, "failed"));
	EXPECT_TRUE(has(e.out, "worker 2 died of signal 11"));
	EXPECT_TRUE(has(e.out, "NODE  POOLS"));
	expect_harmless(e.out);
	/* a thousand rows in each of 0.05 s or more */
	EXPECT_EQ(NULL, strstr(e.out, "\n0 rows/s"));
	ended_free(&e);
	/* without a terminal it is the same */
	e = good("top --interval 0.05");
	EXPECT_TRUE(has(e.out, "655/700 W"));
	expect_harmless(e.out);
	ended_free(&e);
}

TEST_F(ctl, top_as_json)
{
	json_t *root = program_json(NULL, "penstockctl --json top"), *o = json_array_get(root, 0);

	EXPECT_EQ((size_t)1, json_array_size(root));
	EXPECT_EQ((size_t)4, json_array_size(json_object_get(o, "devices")));
	EXPECT_EQ((size_t)3, json_array_size(json_object_get(o, "workers")));
	EXPECT_EQ((size_t)2, json_array_size(json_object_get(o, "pools")));
	EXPECT_EQ((size_t)1, json_array_size(json_object_get(o, "servers")));
	EXPECT_EQ((size_t)2, json_array_size(json_object_get(o, "tables")));
	EXPECT_EQ((size_t)1, json_array_size(json_object_get(o, "info")));
	EXPECT_EQ((size_t)6, json_array_size(json_object_get(o, "events")));
	json_decref(root);
}

TEST_F(ctl, output_that_cannot_be_written)
{
	const struct how full = {.out = "/dev/full"};

	program_refused(&full, 1, "standard output cannot be written", "penstockctl devices");
	program_refused(&full, 1, "standard output cannot be written",
			"penstockctl --json devices");
}

static void copy_file(char *out, size_t len, const char *path)
{
	char *text = read_file(path, NULL);

	ASSERT_LT((size_t)snprintf(out, len, "%s", text), len);
	free(text);
}

/* What --help of the program and of all its commands names, in order and once each. */
static void options_of_help(char *out, size_t len)
{
	shell("for c in '' info devices pools kernels workers servers experts tables "
	      "events top 'kernel load' 'kernel bind' 'worker start' 'worker drain' 'pool create' "
	      "'expert pin' power; do $BIN/penstockctl $c --help; done | "
	      "sed -n 's/^  --\\([a-z-]*\\).*/\\1/p' | sort -u | tr '\\n' ' ' >%s",
	      in_tmp("options"));
	copy_file(out, len, in_tmp("options"));
}

TEST_F(ctl, the_page_has_what_help_says)
{
	char options[1024], page[1024];

	find_programs();
	options_of_help(options, sizeof(options));
	shell("sed -n 's/^\\.It Fl -\\([a-z-]*\\).*/\\1/p' doc/man/penstockctl.1 | sort -u | "
	      "tr '\\n' ' ' >%s",
	      in_tmp("page"));
	copy_file(page, sizeof(page), in_tmp("page"));
	EXPECT_STREQ(options, page);
	shell("$BIN/penstockctl --help | sed -n 's/^  \\([a-z]\\+\\( [a-z]\\+\\)\\?\\)  *.*/\\1/p' "
	      "| "
	      "sed 's/ *$//' | sort >%s",
	      in_tmp("of-help"));
	shell("sed -n 's/^\\.It Cm \\([a-z]*\\( [a-z]*\\)\\?\\).*/\\1/p' doc/man/penstockctl.1 | "
	      "sed 's/ *$//' | sort >%s",
	      in_tmp("of-page"));
	shell("[ -s %s ] && diff %s %s", in_tmp("of-help"), in_tmp("of-help"), in_tmp("of-page"));
}

TEST_MAIN
