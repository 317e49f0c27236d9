/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-perf --compare reads its own JSON, and what perftest printed and wrote. */
#include "selftests/tools/program.h"

#define SAMPLES "selftests/tools/perf/"

/* The figure that the earlier run had for the one size that is measured now; 0: none. */
static double earlier(const char *test, const char *size, const char *file)
{
	json_t *r = program_json(NULL, "penstock-perf %s --self --json - -n 20 -s %s --compare %s",
				 test, size, file);
	const json_t *row = json_array_get(json_object_get(r, "results"), 0);
	double v = json_number_value(json_object_get(row, "earlier"));

	json_decref(r);
	return v;
}

TEST(own)
{
	json_t *r = program_json(NULL, "penstock-perf write_bw --self --json - -n 50 -s 4K");
	json_t *row = json_array_get(json_object_get(r, "results"), 0);
	double then = number_of(row, "BW_average"), now;

	ASSERT_EQ(0, json_dump_file(r, in_tmp("own"), 0));
	now = earlier("write_bw", "4K", in_tmp("own"));
	EXPECT_TRUE(now > 0.999 * then && now < 1.001 * then);
	EXPECT_TRUE(earlier("write_bw", "8K", in_tmp("own")) == 0);
	json_decref(r);
}

/* What perftest printed, and the JSON it wrote, which no JSON parser takes. */
TEST(perftest)
{
	EXPECT_TRUE(earlier("write_bw", "8M", SAMPLES "write_bw.txt") == 10.79);
	EXPECT_TRUE(earlier("read_bw", "4K", SAMPLES "write_bw.txt") == 7.79);
	EXPECT_TRUE(earlier("write_bw", "8M", SAMPLES "write_bw.json") == 10.79);
	EXPECT_TRUE(earlier("write_lat", "8", SAMPLES "write_lat.txt") == 11288.56);
	EXPECT_TRUE(earlier("write_lat", "8", SAMPLES "write_lat.json") == 11288.56);
	EXPECT_TRUE(earlier("read_lat", "8", SAMPLES "read_lat.json") == 69.62);
	/* a size that is not there, and a figure of the other kind */
	EXPECT_TRUE(earlier("write_lat", "16", SAMPLES "write_lat.txt") == 0);
	EXPECT_TRUE(earlier("write_lat", "8", SAMPLES "write_bw.txt") == 0);
}

/* A table says its unit; gigabits become MiB. */
TEST(units)
{
	static const char mib[] =
		" #bytes     #iterations    BW peak[MiB/sec]    BW average[MiB/sec]   "
		"MsgRate[Mpps]\n"
		" 65536      5000             0.00               100.50              0.001\n";
	static const char gbit[] =
		" #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n"
		" 65536      5000             0.00               8.388608              0.001\n"
		"-----\n 65536 1 1 1 1\n";

	write_file(in_tmp("mib"), mib, sizeof(mib) - 1);
	write_file(in_tmp("gbit"), gbit, sizeof(gbit) - 1);
	EXPECT_TRUE(earlier("write_bw", "64K", in_tmp("mib")) == 100.5);
	EXPECT_TRUE(earlier("write_bw", "64K", in_tmp("gbit")) == 1000);
}

TEST(neither)
{
	write_file(in_tmp("empty"), "", 0);
	program_refused(NULL, 1, "neither", "penstock-perf write_bw --self --compare %s",
			in_tmp("empty"));
	write_file(in_tmp("head"), " #bytes #iterations BW average[MiB/sec]\n", 40);
	program_refused(NULL, 1, "neither", "penstock-perf write_bw --self --compare %s",
			in_tmp("head"));
	write_file(in_tmp("other"), "{\"MsgSize\": 8, \"x\": 3}", 23);
	program_refused(NULL, 1, "neither", "penstock-perf write_bw --self --compare %s",
			in_tmp("other"));
}

TEST_MAIN
