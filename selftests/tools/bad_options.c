/* SPDX-License-Identifier: Apache-2.0 */
/* Options, text and URLs that make no sense: one clear line, and exit 1 or 2. */
#include "selftests/tools/program.h"

#include <sys/stat.h>

#define TRAIN "penstock train --preset nano --steps 2 --batch 2 --seq 64 --json - "

TEST(usage)
{
	program_refused(NULL, 2, "'bake'", "penstock bake");
	program_refused(NULL, 2, "''", "penstock ''");
	program_refused(NULL, 2, "--data", "penstock train");
	program_refused(NULL, 2, "--stpes", TRAIN "--data " TEXT " --stpes 3");
	program_refused(NULL, 2, "'word'", "penstock train word --data " TEXT);
	program_refused(NULL, 2, "'-x'", TRAIN "-x --data " TEXT);
	program_refused(NULL, 2, "--steps", "penstock train --data " TEXT " --steps");
	program_refused(NULL, 2, "--steps", "penstock train --steps --data " TEXT);
	program_refused(NULL, 2, "--data", "penstock train --data");
	program_refused(NULL, 2, "--embedded", TRAIN "--data " TEXT " --embedded=1");
	program_refused(NULL, 2, "exclude", TRAIN "--config x --data " TEXT);
	program_refused(NULL, 2, "--resume", TRAIN "--resume x --data " TEXT);
	program_refused(NULL, 2, "DIR", "penstock inspect");
	program_refused(NULL, 2, "DIR", "penstock inspect a b");
	program_refused(NULL, 2, "--all", "penstock inspect --all");
}

TEST(numbers)
{
	static const char *const bad[] = {
		"--steps 0",	     "--steps -1",	   "--steps abc",   "--steps 1e99",
		"--steps 1.5",	     "--steps ''",	   "--steps nan",   "--steps 4294967296",
		"--workers 0",	     "--workers 257",	   "--servers 0",   "--servers 1000000",
		"--batch 0",	     "--batch 65537",	   "--seq 1",	    "--seq 2097152",
		"--seed -1",	     "--seed x",	   "--lr -1",	    "--lr inf",
		"--lr 1e400",	     "--clip -1",	   "--beta1 1",	    "--beta2 1.5",
		"--eps 0",	     "--threads -1",	   "--threads 1e9", "--node -2",
		"--lock 3",	     "--huge 2",	   "--keep -1",	    "--save-every 0x",
		"--sample -1",	     "--worker-timeout 0", "--bias-rate 2", "--weight-decay -0.1",
		"--balance-alpha -1"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char name[32];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(bad[i], " "), bad[i]);
		program_refused(NULL, 2, name, TRAIN "--data " TEXT " %s", bad[i]);
	}
}

TEST(what_is_not_there)
{
	program_refused(NULL, 1, "nano", "penstock train --preset giga --data " TEXT);
	program_refused(NULL, 1, "pigeons", TRAIN "--fabric pigeons --data " TEXT);
	program_refused(NULL, 1, "256 positions",
			"penstock train --preset nano --seq 257 --data " TEXT);
	program_refused(NULL, 1, "node 4000", TRAIN "--node 4000 --data " TEXT);
	program_refused(NULL, 1, "output directory", TRAIN "--out '' --data " TEXT);
}

/* Where servers and workers are to be. */
TEST(places)
{
	static const struct {
		int code;
		const char *options, *text;
	} bad[] = {
		{2, "--server-at", "--server-at"},
		{2, "--servers 3 --server-at tcp://a tcp://b", "--server-at names 2"},
		{2, "--workers 1 --worker-at tcp://a tcp://b", "--worker-at names 2"},
		{2, "--embedded --server-at tcp://a --worker-at tcp://b", "--embedded"},
		{2, "--connect-timeout 0", "--connect-timeout"},
		{1, "--fabric ''", "a name is wanted"},
		{1, "--fabric tcp://a", "a name is wanted"},
		{1, "--fabric ?timeout=500", "a name is wanted"},
		{1, "--fabric infiniband", "a name is wanted"},
		{1, "--fabric tcp?speed=9", "speed"},
		{1, "--fabric tcp?timeout=fast", "timeout=fast"},
		{1, "--fabric shm?timeout=500", "timeout"},
		{1, "--fabric shm?map=2", "map=2"},
		{1, "--fabric shm --key k", "shm has none"},
		{1, "--fabric tcp?key=a --key b", "one already"},
		{1, "--fabric tcp --key a&b", "& in it"},
		{1, "--fabric tcp --key ''", "a file is wanted"},
		{1, "--fabric tcp --key /nowhere/key", "/nowhere/key"},
		{1, "--server-at a", "over which fabric"},
		{1, "--server-at tcp://a shm://b", "not of the tcp fabric"},
		{1, "--server-at tcp://a --worker-at verbs://b", "not of the tcp fabric"},
		{1, "--fabric shm --server-at tcp://a", "not of the shm fabric"},
		{1, "--fabric tcp --server-at a b a", "tcp://a: is in the list twice"},
		{1, "--fabric tcp --server-at a?crc=0", "settings are the fabric's"},
		{1, "--fabric tcp --server-at a:0", "port 0"},
		{1, "--fabric tcp --server-at a:70000", "70000"},
		{1, "--fabric tcp --server-at a,b", "1 host"},
		{1, "--fabric tcp --server-at fe80::1", "brackets"},
		{1, "--fabric tcp --server-at ''", "no host"},
		{1, "--fabric tcp --server-at 'a b'", "a b"},
		{1, "--fabric tcp --worker-at 10.0.0.1", "--listen-host"},
		{1, "--fabric tcp --listen-host 0.0.0.0", "no address that others"},
		{1, "--fabric tcp --listen-host ::", "no address that others"},
		{1, "--fabric tcp --listen-host ''", "no host"},
		{1, "--fabric tcp --listen-host a,b", "1 host"},
		{1, "--fabric shm --listen-host 127.0.0.1", "on this host"},
		{1, "--listen-host 127.0.0.1 --server-at tcp://a --worker-at tcp://b",
		 "nothing is started here"},
	};
	char far[400] = "--fabric tcp --server-at ";

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		program_refused(NULL, bad[i].code, bad[i].text, TRAIN "--data " TEXT " %s",
				bad[i].options);
	memset(far + strlen(far), 'a', 200);
	program_refused(NULL, 1, "longer than", TRAIN "--data " TEXT " %s", far);
}

/* Exactly 4294967295 steps, or a batch that fills all memory, can be asked for. */
TEST(more_than_there_is)
{
	static const struct how small = {.limit_of = RLIMIT_AS, .limit = 8ull << 30};

	if (SANITIZED)
		SKIP("a sanitizer needs the address space", "make quick");
	program_refused(&small, 1, "",
			"penstock train --preset nano --batch 65536 --seq 256 --json - "
			"--data " TEXT);
}

static void no_text(const char *text, const char *path)
{
	program_refused(NULL, 1, text, TRAIN "--data %s", path);
}

TEST(text_that_cannot_be_read)
{
	no_text("/nowhere/text", "/nowhere/text");
	no_text("neither a file nor a directory", "/dev/zero");
	no_text("neither a file nor a directory", "/dev/null");
	no_text("neither a file nor a directory", "/dev/tty");
	ASSERT_EQ(0, mkfifo(in_tmp("fifo"), 0600));
	no_text("neither a file nor a directory", in_tmp("fifo"));
	ASSERT_EQ(0, symlink("self", in_tmp("self")));
	no_text("self", in_tmp("self"));
	ASSERT_EQ(0, symlink("/dev/zero", in_tmp("zero")));
	no_text("neither a file nor a directory", in_tmp("zero"));
	shell("mkdir %s && ln -s ../loop %s/up && cp " TEXT " %s/a", in_tmp("loop"), in_tmp("loop"),
	      in_tmp("loop"));
	json_decref(program_json(NULL, TRAIN "--embedded --data %s", in_tmp("loop")));
	shell("mkdir -p %s", in_tmp("empty/more"));
	no_text("no text", in_tmp("empty"));
	no_text("No such file", "''");
}

TEST(text_that_is_none)
{
	char binary[3000];
	size_t len;
	char *gz;

	memset(binary, 'a', sizeof(binary));
	binary[1234] = 0;
	write_file(in_tmp("binary"), binary, sizeof(binary));
	no_text("NUL at byte 1234", in_tmp("binary"));
	write_file(in_tmp("nothing"), "", 0);
	no_text("no text", in_tmp("nothing"));
	write_file(in_tmp("short"), "a few words", 11);
	no_text("bytes of text in all", in_tmp("short"));
	shell("gzip -c " TEXT " >%s", in_tmp("text.gz"));
	json_decref(program_json(NULL, TRAIN "--embedded --data %s", in_tmp("text.gz")));
	gz = read_file(in_tmp("text.gz"), &len);
	write_file(in_tmp("cut.gz"), gz, len / 2);
	no_text("cut.gz: broken or cut off", in_tmp("cut.gz"));
	write_file(in_tmp("cut.gz"), gz, len - 3);
	no_text("cut.gz: broken or cut off", in_tmp("cut.gz"));
	write_file(in_tmp("cut.gz"), gz, 3);
	no_text("cut.gz: broken or cut off", in_tmp("cut.gz"));
	gz[len / 2] ^= 0x55;
	write_file(in_tmp("broken.gz"), gz, len);
	no_text("broken.gz: broken or cut off", in_tmp("broken.gz"));
	free(gz);
}

TEST(lists)
{
	write_file(in_tmp("good"), TEXT "\n\n" TEXT "\n", 2 * sizeof(TEXT) + 1);
	json_decref(program_json(NULL, TRAIN "--embedded --data @%s", in_tmp("good")));
	write_file(in_tmp("list"), TEXT "\n/nowhere/page\n", sizeof(TEXT) + 14);
	program_refused(NULL, 1, "/nowhere/page", TRAIN "--data @%s", in_tmp("list"));
	program_refused(NULL, 1, "/nowhere", TRAIN "--data @/nowhere/list");
	write_file(in_tmp("empty"), "\n\n", 2);
	program_refused(NULL, 1, "no text", TRAIN "--data @%s", in_tmp("empty"));
	program_refused(NULL, 1, "zero", TRAIN "--data @/dev/zero");
}

/* What was refused wrote nothing. */
TEST(nothing_is_left)
{
	program_refused(NULL, 1, "/nowhere", TRAIN "--data /nowhere --out %s", in_tmp("out"));
	shell("test -z \"$(ls -A %s 2>/dev/null)\"", in_tmp("out"));
	EXPECT_NE(0, access(in_tmp("r.json"), F_OK));
	program_refused(NULL, 1, "/nowhere",
			"penstock train --preset nano --data /nowhere --json %s", in_tmp("r.json"));
	EXPECT_NE(0, access(in_tmp("r.json"), F_OK));
}

/* Without a key nobody listens to a network, nor to this host; the sentence says how to make one.
 */
static void needs_key(const char *program)
{
	static const char *const at[] = {"0.0.0.0", "[::]", "127.0.0.1"};

	setenv("HOME", in_tmp("home"), 1);
	unsetenv("PENSTOCK_KEY");
	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
		program_refused(NULL, 1, "umask 077", "%s --listen tcp://%s:0", program, at[i]);
		program_refused(NULL, 1, ".config/penstock/key", "%s --listen tcp://%s:0", program,
				at[i]);
	}
	write_file(in_tmp("open"), "sixteen bytes, or a few more", 28);
	shell("chmod 644 %s", in_tmp("open"));
	program_refused(NULL, 1, "chmod", "%s --listen tcp://0.0.0.0:0 --key %s", program,
			in_tmp("open"));
	write_file(in_tmp("short"), "fifteen bytes..", 15);
	shell("chmod 600 %s", in_tmp("short"));
	program_refused(NULL, 1, "16", "%s --listen tcp://0.0.0.0:0 --key %s", program,
			in_tmp("short"));
}

static void refuses_urls(const char *program)
{
	struct program first;
	char url[64];
	pid_t pid[4];

	program_refused(NULL, 2, "--listen", "%s", program);
	program_refused(NULL, 2, "--listen", "%s --listen", program);
	program_refused(NULL, 2, "--bad", "%s --bad", program);
	program_refused(NULL, 2, "word", "%s word", program);
	program_refused(NULL, 2, "x", "%s --listen shm://a --threads x", program);
	program_refused(NULL, 2, "-2", "%s --listen shm://a --node -2", program);
	program_refused(NULL, 2, "7", "%s --listen shm://a --lock 7", program);
	program_refused(NULL, 1, "", "%s --listen ''", program);
	program_refused(NULL, 1, "pigeons", "%s --listen pigeons://localhost:1", program);
	program_refused(NULL, 1, "speed", "%s --listen tcp://localhost:1?speed=9", program);
	program_refused(NULL, 1, "/nowhere/key", "%s --listen tcp://[::]:0 --key /nowhere/key",
			program);
	program_refused(NULL, 1, "one already", "%s --listen tcp://0.0.0.0?key=a --key b", program);
	program_refused(NULL, 1, "key", "%s --listen shm://a --key b", program);
	program_refused(NULL, 1, "shm:", "%s --listen shm://", program);
	program_refused(NULL, 1, "nowhere", "%s --listen shm:///nowhere/sock", program);
	program_refused(NULL, 1, "", "%s --listen shm://%0300d", program, 7);

	snprintf(url, sizeof(url), "shm://penstock-test-%d", getpid());
	program_serve(&first, url, sizeof(url), NULL, "%s --listen %s", program, url);
	program_refused(NULL, 1, url, "%s --listen %s", program, url);
	program_end(&first, SIGTERM, NULL);
	EXPECT_EQ(0, program_children(getpid(), "penstock", pid, 4));
}

TEST(servers)
{
	refuses_urls("penstock-ps");
	needs_key("penstock-ps");
}

TEST(workers)
{
	refuses_urls("penstock-worker");
	needs_key("penstock-worker");
}

TEST(help_and_version)
{
	static const char *const command[] = {"penstock --help",	  "penstock train --help",
					      "penstock generate --help", "penstock inspect --help",
					      "penstock --version",	  "penstock-ps --help",
					      "penstock-worker --version"};

	for (size_t i = 0; i < sizeof(command) / sizeof(*command); i++) {
		struct ended e = program_run("%s", command[i]);

		EXPECT_EQ(0, e.code);
		EXPECT_STREQ("", e.err);
		EXPECT_GT(strlen(e.out), (size_t)8);
		ended_free(&e);
	}
}

TEST_MAIN
