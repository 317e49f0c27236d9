/* SPDX-License-Identifier: Apache-2.0 */
/* penstockd.conf: what each key means, and what is said of what means nothing. */
#include "daemon/config.h"

#include "selftests/lib/test.h"

#include <sys/stat.h>

static struct config parse(const char *text)
{
	struct pst_error err = {0};
	struct config config;

	ASSERT_OK(config_parse("c", text, &config, &err), &err);
	return config;
}

/* It is refused with this sentence, and nothing is written. */
static void expect_wrong(const char *text, const char *sentence)
{
	struct config config, before;
	struct pst_error err = {0};

	memset(&config, 0x5a, sizeof(config));
	before = config;
	EXPECT_EQ(-EINVAL, config_parse("c", text, &config, &err));
	EXPECT_EQ(-EINVAL, err.code);
	EXPECT_STREQ(sentence, err.text);
	EXPECT_EQ(0, memcmp(&before, &config, sizeof(config)));
}

TEST(defaults)
{
	struct config a, b = parse("");

	config_defaults(&a);
	EXPECT_EQ(0, memcmp(&a, &b, sizeof(a)));
	EXPECT_STREQ("/run/penstock/penstockd.sock", a.socket);
	EXPECT_STREQ("penstock", a.group);
	EXPECT_STREQ("127.0.0.1:9464", a.metrics);
	EXPECT_EQ(0ull, a.quota_bytes);
	EXPECT_EQ(60u, a.check_s);
	EXPECT_FALSE(a.unsigned_ok);
}

TEST(everything)
{
	struct config c = parse("# a comment\n"
				"; another\n"
				"[daemon]\n"
				"socket = /run/x.sock\n"
				"group=gpu\r\n"
				"metrics = [::1]:9000 ; said behind\n"
				"key = /etc/penstock/key\n"
				"\n"
				"  [pools]\n"
				"  quota = 64G\n"
				"[kernels]\n"
				"trust = /etc/penstock/a.pem\n"
				"trust = /etc/penstock/b.pem\n"
				"unsigned = yes\n"
				"check = 2min\n"
				"trial = 1500ms\n"
				"[children]\n"
				"silence = 3s\n"
				"[worker a]\n"
				"device = gpu:1\n"
				"url = tcp://10.0.0.1:7000\n"
				"threads = 8\n"
				"[worker b-2.c_d]\n"
				"[server ps]\n"
				"url = shm://ps\n"
				"node = 1\n"
				"threads = 0");

	EXPECT_STREQ("/run/x.sock", c.socket);
	EXPECT_STREQ("gpu", c.group);
	EXPECT_STREQ("[::1]:9000", c.metrics);
	EXPECT_STREQ("/etc/penstock/key", c.key);
	EXPECT_EQ(64ull << 30, c.quota_bytes);
	EXPECT_EQ(2u, c.ntrusted);
	EXPECT_STREQ("/etc/penstock/a.pem", c.trusted[0]);
	EXPECT_STREQ("/etc/penstock/b.pem", c.trusted[1]);
	EXPECT_TRUE(c.unsigned_ok);
	EXPECT_EQ(120u, c.check_s);
	EXPECT_EQ(1500u, c.trial_ms);
	EXPECT_EQ(3000u, c.silence_ms);
	EXPECT_EQ(2u, c.nworkers);
	EXPECT_STREQ("a", c.worker[0].name);
	EXPECT_STREQ("gpu:1", c.worker[0].device);
	EXPECT_STREQ("tcp://10.0.0.1:7000", c.worker[0].url);
	EXPECT_EQ(8u, c.worker[0].threads);
	/* one that has a name only is one too */
	EXPECT_STREQ("b-2.c_d", c.worker[1].name);
	EXPECT_STREQ("cpu:0", c.worker[1].device);
	EXPECT_STREQ("", c.worker[1].url);
	EXPECT_EQ(1u, c.nservers);
	EXPECT_STREQ("ps", c.server[0].name);
	EXPECT_EQ(1, c.server[0].node);
}

TEST(sections)
{
	expect_wrong("socket = /x\n", "c:1: 'socket' stands before the first [section]");
	expect_wrong("\n[cats]\n",
		     "c:2: unknown section [cats]; there may be daemon, pools, kernels, children, "
		     "worker NAME and server NAME");
	expect_wrong(
		"[daemon x]\n",
		"c:1: unknown section [daemon]; there may be daemon, pools, kernels, children, "
		"worker NAME and server NAME");
	expect_wrong("[]\n", "c:1: unknown section []; there may be daemon, pools, kernels, "
			     "children, worker NAME and server NAME");
	expect_wrong("[daemon\n", "c:1: a section has no ']'");
	expect_wrong("[daemon] x = y\n", "c:1: there is more behind the ']'");
	expect_wrong("[worker]\n", "c:1: [worker NAME]: a name has 1 to 31 letters, digits, '_', "
				   "'.' or '-'");
	expect_wrong("[worker a b]\n",
		     "c:1: [worker NAME]: a name has 1 to 31 letters, digits, '_', "
		     "'.' or '-'");
	expect_wrong("[server abcdefghijklmnopqrstuvwxyz012345]\n",
		     "c:1: [server NAME]: a name has 1 to 31 letters, digits, '_', '.' or '-'");
	expect_wrong("[worker a]\n[server a]\nurl = shm://x\n[worker a]\n",
		     "c:4: there is a worker 'a' already");
	expect_wrong("[server a]\n[server a]\n", "c:2: there is a server 'a' already");
}

TEST(keys)
{
	expect_wrong("[daemon]\n\nsockets = /x\n",
		     "c:3: unknown key 'sockets'; here may stand: socket, group, metrics, key");
	expect_wrong("[pools]\nsocket = /x\n", "c:2: unknown key 'socket'; here may stand: quota");
	expect_wrong("[worker a]\nnode = 1\n",
		     "c:2: unknown key 'node'; here may stand: device, url, threads");
	expect_wrong("[pools]\nquota = 1\n[daemon]\n[pools]\nquota = 2\n",
		     "c:5: quota is said twice");
	expect_wrong("[worker a]\nthreads = 1\nthreads = 2\n", "c:3: threads is said twice");
	expect_wrong("[pools]\nquota\n",
		     "c:2: this is no [section], no key = value and no comment");
	expect_wrong("[pools]\nquota =\n", "c:2: quota: there is no value");
	/* what is indented stands for itself */
	expect_wrong("[pools]\nquota = 1\n   more\n",
		     "c:3: this is no [section], no key = value and no comment");
	/* the same key of two workers is said once for each */
	EXPECT_EQ(2u, parse("[worker a]\nthreads = 1\n[worker b]\nthreads = 2\n").nworkers);
}

TEST(the_first_error_is_told)
{
	expect_wrong("[pools]\nquota = x\nnonsense\n[cats]\n",
		     "c:2: quota: 'x' is no size; say 0, or bytes as in 64G (K, M, G, T)");
	expect_wrong("[pools]\nnonsense\nquota = x\n",
		     "c:2: this is no [section], no key = value and no comment");
}

TEST(sizes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0},
		    {"1", 1},
		    {"4K", 4096},
		    {"3M", 3 << 20},
		    {"64G", 64ull << 30},
		    {"2T", 2ull << 40},
		    {"16777215T", 16777215ull << 40},
		    {"18446744073709551615", ~0ull}};
	static const char *const bad[] = {
		"-1", "G",  "4k", "4KB", "4 G", "1.5G", "0x10", "16777216T", "18446744073709551616",
		"+1", "1G1"};
	char text[64], want[128];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "[pools]\nquota = %s\n", good[i].text);
		EXPECT_EQ(good[i].bytes, parse(text).quota_bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "[pools]\nquota = %s\n", bad[i]);
		snprintf(want, sizeof(want),
			 "c:2: quota: '%s' is no size; say 0, or bytes as in 64G (K, M, G, T)",
			 bad[i]);
		expect_wrong(text, want);
	}
}

TEST(times)
{
	static const char *const bad[] = {
		"5", "0s", "-5s", "25h", "5 s", "1d", "s", "86400001ms", "99999999999999999999s"};
	char text[64], want[128];

	EXPECT_EQ(86400000u, parse("[children]\nsilence = 24h\n").silence_ms);
	EXPECT_EQ(1u, parse("[children]\nsilence = 1ms\n").silence_ms);
	EXPECT_EQ(0u, parse("[kernels]\ncheck = never\n").check_s);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "[children]\nsilence = %s\n", bad[i]);
		snprintf(want, sizeof(want),
			 "c:2: silence: '%s' is no time; say one from 1ms to 24h (ms, s, min, h)",
			 bad[i]);
		expect_wrong(text, want);
	}
	expect_wrong("[kernels]\ncheck = 1500ms\n", "c:2: check: '1500ms' is not in whole seconds");
}

TEST(values)
{
	expect_wrong("[daemon]\nsocket = x\n", "c:2: socket: 'x' is no path that begins with /");
	expect_wrong("[kernels]\nunsigned = maybe\n",
		     "c:2: unsigned: 'maybe' is neither yes nor no");
	expect_wrong("[worker a]\ndevice = tpu:0\n",
		     "c:2: device: 'tpu:0' is no device; say cpu:N or gpu:N, counted from 0");
	expect_wrong("[worker a]\ndevice = cpu:\n",
		     "c:2: device: 'cpu:' is no device; say cpu:N or gpu:N, counted from 0");
	expect_wrong("[worker a]\ndevice = cpu:0x\n",
		     "c:2: device: 'cpu:0x' is no device; say cpu:N or gpu:N, counted from 0");
	expect_wrong("[worker a]\nthreads = 4097\n",
		     "c:2: threads: '4097' is no number from 0 (all cores) to 4096");
	expect_wrong("[server a]\nnode = -1\n",
		     "c:2: node: '-1' is no NUMA node; say its number, or any");
	expect_wrong("[server a]\nurl = shm\n", "c:2: url: 'shm' is no URL without settings; say "
						"shm://NAME, tcp://HOST:PORT or verbs://HOST:PORT");
	expect_wrong("[server a]\nurl = tcp://h:1?io=epoll\n",
		     "c:2: url: 'tcp://h:1?io=epoll' is no URL without settings; say shm://NAME, "
		     "tcp://HOST:PORT or verbs://HOST:PORT");
	expect_wrong("[kernels]\ntrust = /a\ntrust = /a\n", "c:3: trust: '/a' is said twice");
}

TEST(metrics)
{
	static const char *const good[] = {"unix:/run/m.sock", "0.0.0.0:1", "localhost:65535",
					   "[::]:0"};
	static const char *const bad[] = {
		"9464", ":9464", "localhost", "localhost:", "a:65536", "unix:m", "a:b", "a:1x"};
	char text[64], want[128];

	EXPECT_STREQ("", parse("[daemon]\nmetrics = none\n").metrics);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "[daemon]\nmetrics = %s\n", good[i]);
		EXPECT_STREQ(good[i], parse(text).metrics);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "[daemon]\nmetrics = %s\n", bad[i]);
		snprintf(want, sizeof(want),
			 "c:2: metrics: '%s' is no address; say HOST:PORT, unix:/PATH or none",
			 bad[i]);
		expect_wrong(text, want);
	}
}

TEST(long_lines)
{
	char text[512] = "[daemon]\ngroup = ";

	memset(text + strlen(text), 'g', 40);
	expect_wrong(text, "c:2: group: longer than 31 bytes");
	memset(text + 9, 'g', 400);
	text[409] = '\0';
	expect_wrong(text, "c:2: a line is longer than 198 bytes");
}

TEST(too_many)
{
	char text[4096];
	size_t n = 0;

	for (int i = 0; i < CONFIG_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "[worker w%d]\n[server w%d]\n", i,
				      i);
	EXPECT_EQ((uint32_t)CONFIG_MAX, parse(text).nworkers);
	snprintf(text + n, sizeof(text) - n, "[worker x]\n");
	expect_wrong(text, "c:65: more than 32 workers");
	snprintf(text + n, sizeof(text) - n, "[server x]\n");
	expect_wrong(text, "c:65: more than 32 servers");
	n = (size_t)snprintf(text, sizeof(text), "[kernels]\n");
	for (int i = 0; i <= CONFIG_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "trust = /%d\n", i);
	expect_wrong(text, "c:34: trust: more than 32 keys");
}

/* Files. */

static const char *in_tmp(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	return path;
}

static const char *write_config(const char *text, size_t len, mode_t mode)
{
	const char *path = in_tmp("conf");
	FILE *f = fopen(path, "w");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(len, fwrite(text, 1, len, f));
	ASSERT_EQ(0, fchmod(fileno(f), mode));
	ASSERT_EQ(0, fclose(f));
	return path;
}

TEST(files)
{
	static char big[(1 << 20) + 1];
	struct pst_error err = {0};
	struct config config;
	char want[512];

	ASSERT_OK(config_read(NULL, &config, &err), &err);
	ASSERT_OK(config_read(write_config("[pools]\nquota = 1K\n", 19, 0644), &config, &err),
		  &err);
	EXPECT_EQ(1024ull, config.quota_bytes);
	EXPECT_EQ(-EPERM, config_read(write_config("", 0, 0646), &config, &err));
	snprintf(want, sizeof(want),
		 "config %s: everybody may write to it (to mend it: chmod o-w %s)", in_tmp("conf"),
		 in_tmp("conf"));
	EXPECT_STREQ(want, err.text);
	EXPECT_EQ(-EINVAL, config_read(write_config("[pools]\0", 8, 0644), &config, NULL));
	memset(big, '#', sizeof(big));
	EXPECT_EQ(-EINVAL, config_read(write_config(big, sizeof(big), 0644), &config, NULL));
	EXPECT_EQ(-ENOENT, config_read(in_tmp("none"), &config, NULL));
	EXPECT_EQ(-EINVAL, config_read("/dev/null", &config, NULL));
	EXPECT_EQ(-EINVAL, config_read(test_tmpdir(), &config, NULL));
	EXPECT_EQ(1024ull, config.quota_bytes);
}

TEST_MAIN
