/* SPDX-License-Identifier: Apache-2.0 */
/* gpu-bench without a GPU: that all of it runs, and what it says. Its figures mean nothing here. */
#include "kernels/cuda/cuda.h"
#include "selftests/gpu/run.h"

#include <ctype.h>

static int gpu_bench(const char *args)
{
	char path[PATH_MAX + 64], command[3 * PATH_MAX];

	beside(path, sizeof(path), "../bench/gpu-bench");
	snprintf(command, sizeof(command), "%s %s 2>&1", path, args);
	return shell(command);
}

/* With JSON, in @text. */
static int gpu_bench_json(const char *args, char *text, size_t len)
{
	char path[PATH_MAX], all[2 * PATH_MAX];
	int status;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/json", test_tmpdir());
	snprintf(all, sizeof(all), "--small --json %s %s", path, args);
	status = gpu_bench(all);
	f = fopen(path, "r");
	ASSERT_NE(NULL, f);
	n = fread(text, 1, len - 1, f);
	text[n] = '\0';
	fclose(f);
	return status;
}

/* RFC 8259: behind the value at @at, or NULL if there is none. */
static const char *json(const char *at);

static const char *space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static const char *json_string(const char *at)
{
	if (*at++ != '"')
		return NULL;
	for (; *at && *at != '"'; at++)
		if ((unsigned char)*at < ' ' || *at == '\\') /* we write no escapes */
			return NULL;
	return *at ? at + 1 : NULL;
}

static const char *json_list(const char *at, char end)
{
	const char *next = space(at + 1);

	if (*next == end)
		return next + 1;
	do {
		at = next;
		if (end == '}') {
			at = json_string(space(at));
			at = at ? space(at) : NULL;
			if (!at || *at++ != ':')
				return NULL;
		}
		at = json(space(at));
		if (!at)
			return NULL;
		next = space(at) + 1;
	} while (next[-1] == ',');
	return next[-1] == end ? next : NULL;
}

static const char *json(const char *at)
{
	char *end;

	switch (*at) {
	case '{':
		return json_list(at, '}');
	case '[':
		return json_list(at, ']');
	case '"':
		return json_string(at);
	case 'n':
		return strncmp(at, "null", 4) ? NULL : at + 4;
	default:
		if (*at != '-' && !isdigit((unsigned char)*at))
			return NULL;
		strtod(at, &end);
		return end == at ? NULL : end;
	}
}

static bool is_json(const char *text)
{
	const char *end = json(space(text));

	return end && !*space(end);
}

TEST(what_json_is)
{
	EXPECT_TRUE(is_json("{\"a\": [1, -2.5e-3, null, {}], \"b\": \"c\"}\n"));
	EXPECT_FALSE(is_json("{\"a\": [1,]}"));
	EXPECT_FALSE(is_json("{\"a\" 1}"));
	EXPECT_FALSE(is_json("{\"a\": nan}"));
	EXPECT_FALSE(is_json("[1] 2"));
	EXPECT_FALSE(is_json("[inf]"));
	EXPECT_FALSE(is_json(""));
}

/* One line, and a status that is no pass. */
TEST(no_gpu)
{
	use_standin(0);
	EXPECT_EQ((int)TEST_SKIP, gpu_bench(""));
	EXPECT_EQ(0, strncmp(said, "SKIP CUDA: the driver shows no GPU", 34));
	expect_said("make -C kernels gpu-bench");
	EXPECT_EQ(said + strlen(said) - 1, strchr(said, '\n'));
}

static char text[262144];

/* The rows of the JSON, one a line: kernel and shape of each. */
static int read_rows(char (*name)[128], int most)
{
	int n = 0;

	for (const char *at = text; n < most && (at = strstr(at, "{\"kernel\": ")); at++, n++) {
		const char *end = strstr(at, ", \"us\": ");

		ASSERT_NE(NULL, end);
		snprintf(name[n], sizeof(name[n]), "%.*s", (int)(end - at), at);
	}
	return n;
}

/* A row per kernel and shape, each with all its members. */
TEST(all_rows)
{
	static const char *const members[] = {
		"\"us\": ",   "\"gbs\": ",   "\"tflops\": ", "\"ceiling\": ", "\"percent\": ",
		"\"peer\": ", "\"ratio\": ", "\"peers\": ",  "\"of_even\": ", "\"sm_mhz\": "};
	static char name[256][128];
	int n;

	use_standin(1);
	EXPECT_EQ(0, gpu_bench_json("", text, sizeof(text)));
	EXPECT_TRUE(is_json(text));
	expect_said("# ceiling: copy ");
	expect_said("# ceiling: bf16 unknown");
	expect_said("uneven groups take ");
	n = read_rows(name, 256);
	EXPECT_GT(n, 40);
	for (int i = 0; i < n; i++)
		for (int j = 0; j < i; j++)
			EXPECT_NE(0, strcmp(name[i], name[j]));
	for (int i = 0; i < 10; i++) {
		int found = 0;

		for (const char *at = text; (at = strstr(at, members[i])); at++)
			found++;
		EXPECT_EQ(n, found);
	}
	/* an unknown ceiling leaves the part of it unknown */
	EXPECT_NE(NULL, strstr(text, "\"ceiling\": \"bf16\", \"percent\": null"));
	EXPECT_EQ(NULL, strstr(text, "\"ceiling\": \"copy\", \"percent\": null"));
}

/* The fastest peer is the one that a row is held against. */
TEST(peers)
{
	char path[PATH_MAX], args[2 * PATH_MAX];
	FILE *f;

	if (shell("python3 -c pass 2>&1"))
		SKIP("no python3", "install python3");
	use_standin(1);
	snprintf(path, sizeof(path), "%s/peers.py", test_tmpdir());
	f = fopen(path, "w");
	ASSERT_NE(NULL, f);
	fputs("import sys\n"
	      "print('READY two peers', flush=True)\n"
	      "for line in sys.stdin:\n"
	      "    known = line.startswith('add ')\n"
	      "    print('5e-1 slow one\\t2.5e-1 other one' if known else '', flush=True)\n",
	      f);
	fclose(f);
	snprintf(args, sizeof(args), "--peers %s add swiglu_bwd", path);
	EXPECT_EQ(0, gpu_bench_json(args, text, sizeof(text)));
	EXPECT_TRUE(is_json(text));
	expect_said("# peers: two peers\n");
	EXPECT_NE(NULL, strstr(text, "\"peer\": \"other one\", \"ratio\": "));
	EXPECT_NE(NULL, strstr(text, "{\"name\": \"slow one\", \"us\": 500000}"));
	EXPECT_NE(NULL, strstr(text, "\"peer\": null, \"ratio\": null, \"peers\": []"));
}

/* The script that comes with it says why it has none, and they are left out. */
TEST(no_peers)
{
	use_standin(1);
	EXPECT_EQ(0, gpu_bench("--small --peers /nowhere/peers.py add"));
	expect_said("# peers: python3 is not here, or ends at once\n");
	expect_said("\nadd ");
}

/* A launch that fails for good ends it, and which one that was is said. */
TEST(a_launch_that_fails)
{
	use_standin(1);
	s->fn[STANDIN_cuEventSynchronize].fail_in = 8;
	s->fn[STANDIN_cuEventSynchronize].fail_rc = CUDA_ERROR_ILLEGAL_ADDRESS;
	EXPECT_EQ(1, gpu_bench_json("add", text, sizeof(text)));
	expect_said("# a launch: CUDA_ERROR_ILLEGAL_ADDRESS (700");
	expect_said("# add (n=384): not timed\n");
	expect_said("does nothing more for this process");
	EXPECT_TRUE(is_json(text));
}

/* Fast is whoever does nothing, so that is looked at. */
TEST(a_kernel_that_does_nothing)
{
	use_standin(1);
	setenv("STANDIN_IDLE", "to_bf16", 1);
	EXPECT_EQ(1, gpu_bench("--small to_bf16 from_bf16"));
	expect_said("# to_bf16 (n=384): the first result is still NaN\n");
	expect_said("\nfrom_bf16 ");
	EXPECT_EQ(NULL, strstr(said, "\nto_bf16 "));
}

TEST(too_little_memory)
{
	use_standin(1);
	s->gpu[0].memory_bytes = 160 << 10;
	EXPECT_EQ(1, gpu_bench("--small experts_dw add"));
	expect_said(
		"# experts_dw (8 experts, even, 88 rows): left out, it needs more memory than is "
		"free on this GPU\n");
	expect_said("\nadd ");
}

/* NVML is not made with the kernels alone. */
TEST(clocks)
{
	char path[PATH_MAX + 64];

	beside(path, sizeof(path), "libnvidia-ml.so.1");
	if (access(path, R_OK))
		SKIP("there is no stand-in for NVML", "make tests");
	*strrchr(path, '/') = '\0';
	setenv("LD_LIBRARY_PATH", path, 1);
	use_standin(1);
	EXPECT_EQ(0, gpu_bench_json("add", text, sizeof(text)));
	expect_said("# clock: 1980 MHz before\n");
	EXPECT_NE(NULL, strstr(text, "\"sm_mhz\": 1980}"));
}

TEST_MAIN
