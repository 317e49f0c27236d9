/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-perf with both ends: every test runs, and says in its JSON what it promises to. */
#include "selftests/tools/program.h"

static json_t *test_info(const json_t *root)
{
	json_t *info = json_object_get(root, "test_info");

	EXPECT_TRUE(json_is_object(info));
	return info;
}

static json_t *row_at(const json_t *root, size_t i)
{
	json_t *row = json_array_get(json_object_get(root, "results"), i);

	ASSERT_TRUE(json_is_object(row));
	return row;
}

static void expect_settings(const json_t *root, const char *fabric)
{
	static const char *const key[] = {
		"test",		 "command",	  "Device",	 "Transport_type", "TX_depth",
		"CQ_Moderation", "Number_of_qps", "completions", "NUMA_node",	   "page_bytes",
		"clock",	 "timeout_ms",	  "Mtu",	 "Max_inline_data"};
	const json_t *info = test_info(root);

	for (size_t i = 0; i < sizeof(key) / sizeof(*key); i++)
		if (!json_object_get(info, key[i])) {
			printf("# no %s in test_info\n", key[i]);
			test_failed = true;
		}
	EXPECT_STREQ(fabric, json_string_value(json_object_get(info, "Transport_type")));
}

static void expect_latency(const json_t *row)
{
	static const char *const rising[] = {"t_min",	      "t_typical",	 "percentile_90",
					     "percentile_99", "percentile_99.9", "percentile_99.99",
					     "t_max"};

	EXPECT_TRUE(number_of(row, "t_min") > 0);
	for (size_t i = 1; i < sizeof(rising) / sizeof(*rising); i++)
		EXPECT_TRUE(number_of(row, rising[i]) >= number_of(row, rising[i - 1]));
	EXPECT_TRUE(number_of(row, "t_avg") >= number_of(row, "t_min"));
	EXPECT_TRUE(number_of(row, "t_midmean") >= number_of(row, "t_min"));
	EXPECT_TRUE(number_of(row, "t_midmean") <= number_of(row, "percentile_90"));
	EXPECT_TRUE(number_of(row, "t_avg") <= number_of(row, "t_max"));
	EXPECT_TRUE(number_of(row, "t_stdev") >= 0);
	EXPECT_TRUE(number_of(row, "dropped") == 0);
}

static void expect_bandwidth(const json_t *row)
{
	EXPECT_TRUE(number_of(row, "BW_average") > 0);
	EXPECT_TRUE(number_of(row, "MsgRate") > 0);
	EXPECT_TRUE(number_of(row, "seconds") > 0);
}

/* A way to run it: what is between the test's name and its own options. */
FIXTURE(on)
{
	int unused;
};
FIXTURE_VARIANT(on)
{
	const char *fabric;
};
FIXTURE_VARIANT_ADD(on, shm){"shm"};
FIXTURE_VARIANT_ADD(on, tcp){"tcp"};
FIXTURE_SETUP(on)
{
	(void)self;
}
FIXTURE_TEARDOWN(on)
{
	(void)self;
}

#define RUN(test, options)                                                                \
	program_json(NULL, "penstock-perf " test " --self --fabric %s --json - " options, \
		     variant->fabric)

TEST_F(on, latencies)
{
	json_t *w = RUN("write_lat", "-s 8 -n 300"), *r = RUN("read_lat", "-s 64 -n 200"),
	       *s = RUN("send_lat", "-n 200"), *e = RUN("send_lat", "--event -n 100");

	expect_settings(w, variant->fabric);
	expect_latency(row_at(w, 0));
	expect_latency(row_at(r, 0));
	expect_latency(row_at(s, 0));
	expect_latency(row_at(e, 0));
	EXPECT_TRUE(number_of(row_at(w, 0), "MsgSize") == 8);
	EXPECT_TRUE(number_of(row_at(w, 0), "n_iterations") == 300);
	EXPECT_TRUE(number_of(row_at(s, 0), "MsgSize") == 2);
	EXPECT_STREQ("event", json_string_value(json_object_get(test_info(e), "completions")));
	json_decref(w);
	json_decref(r);
	json_decref(s);
	json_decref(e);
}

TEST_F(on, bandwidths)
{
	json_t *w = RUN("write_bw", "-s 4K -n 1000 -q 3"), *r = RUN("read_bw", "-n 100 -t 4"),
	       *s = RUN("send_bw", "-s 128 -n 1000 -Q 7");

	expect_settings(w, variant->fabric);
	expect_bandwidth(row_at(w, 0));
	expect_bandwidth(row_at(r, 0));
	expect_bandwidth(row_at(s, 0));
	EXPECT_TRUE(number_of(row_at(w, 0), "n_iterations") == 3000);
	EXPECT_TRUE(number_of(row_at(w, 0), "BW_peak") >= number_of(row_at(w, 0), "BW_average"));
	EXPECT_TRUE(number_of(row_at(r, 0), "MsgSize") == 65536);
	json_decref(w);
	json_decref(r);
	json_decref(s);
}

TEST_F(on, work)
{
	json_t *pull = RUN("pull", "--experts 4 --hidden 64 --inter 32 -n 40 -q 2 -s 1000 -t 3"),
	       *push = RUN("push", "--hidden 64 --inter 32 -n 40 -q 2"),
	       *out = RUN("dispatch", "--engines 2 --workers 3 --hidden 32 --tokens 8 -n 20"),
	       *back = RUN("combine", "--engines 1 --workers 2 --hidden 32 --tokens 8 -n 20 "
				      "--routing zipf:1.5");

	/* three matrices, two bytes a weight; four a gradient */
	EXPECT_TRUE(number_of(row_at(pull, 0), "MsgSize") == 3 * 64 * 32 * 2);
	EXPECT_TRUE(number_of(row_at(push, 0), "MsgSize") == 3 * 64 * 32 * 4);
	EXPECT_TRUE(number_of(row_at(out, 0), "MsgSize") == 8 * 4 * 32 * 4);
	EXPECT_TRUE(number_of(row_at(out, 0), "n_iterations") == 40);
	expect_latency(row_at(pull, 0));
	expect_latency(row_at(push, 0));
	expect_latency(row_at(out, 0));
	expect_latency(row_at(back, 0));
	expect_bandwidth(row_at(pull, 0));
	expect_bandwidth(row_at(back, 0));
	json_decref(pull);
	json_decref(push);
	json_decref(out);
	json_decref(back);
}

TEST_F(on, incast)
{
	json_t *r = RUN("incast", "--engines 3 -s 4K -n 300");
	const json_t *row = row_at(r, 0);

	expect_bandwidth(row);
	EXPECT_TRUE(number_of(row, "n_iterations") == 900);
	EXPECT_TRUE(number_of(row, "BW_slowest") > 0);
	EXPECT_TRUE(number_of(row, "BW_slowest") <= number_of(row, "BW_fastest"));
	json_decref(r);
}

TEST_F(on, duration)
{
	json_t *lat = RUN("write_lat", "-D 0.05"), *bw = RUN("write_bw", "-D 0.05 -s 4K"),
	       *pull = RUN("pull", "-D 0.05 --hidden 64 --inter 64"),
	       *out = RUN("dispatch", "-D 0.05 --hidden 64 --engines 1 --workers 1");

	EXPECT_TRUE(number_of(row_at(lat, 0), "seconds") >= 0.05);
	EXPECT_TRUE(number_of(row_at(bw, 0), "seconds") >= 0.05);
	EXPECT_TRUE(number_of(row_at(pull, 0), "seconds") >= 0.05);
	EXPECT_TRUE(number_of(row_at(out, 0), "seconds") >= 0.05);
	EXPECT_TRUE(number_of(row_at(lat, 0), "n_iterations") >= 1);
	json_decref(lat);
	json_decref(bw);
	json_decref(pull);
	json_decref(out);
}

TEST_F(on, all_sizes)
{
	json_t *w = RUN("write_lat", "-a -n 5 --warm-up 1"), *s = RUN("send_bw", "-a -n 50");
	size_t n = json_array_size(json_object_get(w, "results"));

	ASSERT_EQ((size_t)23, n);
	for (size_t i = 0; i < n; i++)
		EXPECT_TRUE(number_of(row_at(w, i), "MsgSize") == 2ull << i);
	/* messages end at 4032 bytes */
	EXPECT_EQ((size_t)11, json_array_size(json_object_get(s, "results")));
	json_decref(w);
	json_decref(s);
}

TEST(registration)
{
	json_t *r = program_json(NULL, "penstock-perf register --json - -s 4M -n 3 --pages 4K");
	const json_t *row = row_at(r, 0);

	EXPECT_EQ((size_t)1, json_array_size(json_object_get(r, "results")));
	EXPECT_TRUE(number_of(row, "ms_per_GiB") > 0);
	EXPECT_TRUE(number_of(row, "t_typical") > 0);
	EXPECT_TRUE(number_of(row, "MsgSize") == 4 << 20);
	json_decref(r);
	/* pieces are for those that register with a device */
	program_refused(NULL, 1, "chunk", "penstock-perf register --chunks 1M -s 4M");
}

/* A token's experts come from the file, line by line. */
TEST(trace)
{
	static const char text[] = "# two tokens\n0 1\n2, 1 # a word\n\n";
	json_t *r;

	write_file(in_tmp("trace"), text, sizeof(text) - 1);
	r = program_json(NULL,
			 "penstock-perf dispatch --self --json - --routing trace:%s --topk 2 "
			 "--experts 3 --tokens 2 --hidden 16 --engines 1 --workers 3 -n 10",
			 in_tmp("trace"));
	EXPECT_TRUE(number_of(row_at(r, 0), "n_iterations") == 10);
	json_decref(r);
	program_refused(NULL, 1, "line 3",
			"penstock-perf dispatch --self --routing trace:%s --topk 2 --experts 2",
			in_tmp("trace"));
	program_refused(NULL, 1, "--topk",
			"penstock-perf dispatch --self --routing trace:%s --topk 3 --experts 3",
			in_tmp("trace"));
	program_refused(NULL, 1, "/nowhere", "penstock-perf pull --self --routing trace:/nowhere");
	write_file(in_tmp("trace"), "# none\n", 7);
	program_refused(NULL, 1, "no token", "penstock-perf pull --self --routing trace:%s",
			in_tmp("trace"));
}

TEST(plot)
{
	struct ended e = program_run("penstock-perf write_bw --self -a -n 20");

	EXPECT_EQ(0, e.code);
	EXPECT_TRUE(strstr(e.out, "RDMA_Write BW Test") != NULL);
	EXPECT_TRUE(strstr(e.out, "BW average[MiB/sec]") != NULL);
	EXPECT_TRUE(strstr(e.out, " 8388608 |#") != NULL);
	ended_free(&e);
}

TEST(usage)
{
	static const char *const bad[][2] = {
		{"'bake'", "bake"},
		{"--sise", "write_bw --self --sise 3"},
		{"'-x'", "write_bw --self -x"},
		{"--size", "write_bw --self -s 0"},
		{"--size", "write_bw --self -s 4X"},
		{"--size", "write_bw --self -s 2G"},
		{"--size", "send_lat --self -s 5000"},
		{"exclude", "write_bw --self -a -s 8"},
		{"exclude", "write_bw --self -n 5 -D 2"},
		{"exclude", "write_bw --self --poll --event"},
		{"exclude", "write_bw --self --pin --cpu 1"},
		{"--iters", "write_bw --self -n 0"},
		{"--event", "write_lat --self -e"},
		{"--hidden", "write_bw --self --hidden 8"},
		{"--all", "pull --self -a"},
		{"--tx-depth", "read_lat --self -t 4"},
		{"--qp", "write_bw --self -q 0"},
		{"--topk", "dispatch --self --topk 5 --experts 4"},
		{"--routing", "dispatch --self --routing random"},
		{"--routing", "dispatch --self --routing zipf:-1"},
		{"--fabric", "write_bw --self --fabric ud"},
		{"--cpu", "write_bw --self --cpu a"},
		{"--pages", "write_bw --self --pages 5K"},
		{"--port", "write_bw -p 70000"},
		{"localhost", "write_bw far.example"},
		{"HOST", "write_bw --self --fabric verbs"},
		{"one host", "write_bw localhost localhost"},
		{"--self", "register --self"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		program_refused(NULL, 2, bad[i][0], "penstock-perf %s", bad[i][1]);
}

TEST(what_is_not_there)
{
	program_refused(NULL, 1, "CPU 3000", "penstock-perf write_bw --self --cpu 3000");
	program_refused(NULL, 1, "hugepages", "penstock-perf write_bw --self --pages 1G");
	program_refused(NULL, 1, "perf-4711", "penstock-perf write_bw localhost -p 4711");
	program_refused(NULL, 1, "nonsense", "penstock-perf write_bw --self --set nonsense=1");
	program_refused(NULL, 1, "/nowhere",
			"penstock-perf write_bw --self -n 1 --compare /nowhere");
	program_refused(NULL, 1, "/nowhere/x",
			"penstock-perf write_bw --self -n 1 --json /nowhere/x");
	program_refused(NULL, 1, "neither", "penstock-perf write_bw --self --compare " TEXT);
}

TEST_MAIN
