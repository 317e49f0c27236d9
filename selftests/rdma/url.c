/* SPDX-License-Identifier: Apache-2.0 */
/* URLs of fabrics: what they mean, and that nothing is taken which means nothing. */
#include "rdma/url.h"
#include "selftests/lib/test.h"

static struct pst_url good(const char *text)
{
	struct pst_error err = {0};
	struct pst_url url;

	ASSERT_OK(pst_url_parse(text, &url, &err), &err);
	EXPECT_EQ(0, err.code);
	return url;
}

/* Refused, with a sentence that says @why; the output stays as it was. */
static void refused(const char *text, const char *why)
{
	struct pst_error err = {0};
	struct pst_url url, before;

	memset(&url, 0x5a, sizeof(url));
	before = url;
	EXPECT_EQ(-EINVAL, pst_url_parse(text, &url, &err));
	EXPECT_EQ(-EINVAL, err.code);
	if (!strstr(err.text, why)) {
		printf("# %s: \"%s\" does not say \"%s\"\n", text ? text : "(null)", err.text, why);
		test_failed = true;
	}
	EXPECT_FALSE(memcmp(&url, &before, sizeof(url)));
	EXPECT_EQ(-EINVAL, pst_url_parse(text, &url, NULL));
}

TEST(defaults)
{
	struct pst_url url = good("tcp://host");

	EXPECT_STREQ("tcp", url.scheme);
	EXPECT_EQ(1u, url.hosts);
	EXPECT_STREQ("host", url.host[0]);
	EXPECT_STREQ("host", url.name);
	EXPECT_EQ(PST_DEFAULT_PORT, url.port);
	EXPECT_EQ(2000u, url.set.timeout_ms);
	EXPECT_EQ(1024u, url.set.links);
	EXPECT_EQ(1u, url.set.conns);
	EXPECT_EQ(1ull << 30, url.set.chunk);
	EXPECT_TRUE(url.set.crc);
	EXPECT_FALSE(url.set.poll);
	EXPECT_TRUE(url.set.map);
	EXPECT_STREQ("auto", url.set.io);
	EXPECT_STREQ("", url.set.dev);
	EXPECT_STREQ("", url.set.key);
}

TEST(hosts)
{
	struct pst_url url = good("verbs://a,10.0.0.2,[fe80::1%va],[::1]:7");

	EXPECT_EQ(4u, url.hosts);
	EXPECT_STREQ("a", url.host[0]);
	EXPECT_STREQ("10.0.0.2", url.host[1]);
	EXPECT_STREQ("fe80::1%va", url.host[2]);
	EXPECT_STREQ("::1", url.host[3]);
	EXPECT_STREQ("a,10.0.0.2,[fe80::1%va],[::1]:7", url.name);
	EXPECT_EQ(7, url.port);
	EXPECT_EQ(0, good("tcp://a:0").port);
	EXPECT_EQ(65535, good("tcp://a:65535").port);
	EXPECT_STREQ("fe80::1%eth0.5", good("tcp://[fe80::1%eth0.5]").host[0]);
	EXPECT_EQ(8u, good("verbs://a,b,c,d,e,f,g,h").hosts);
}

TEST(no_host)
{
	struct pst_url url = good("verbs://");

	EXPECT_EQ(0u, url.hosts);
	EXPECT_STREQ("", url.name);
	EXPECT_FALSE(good("tcp://?crc=0").set.crc);
}

TEST(shm_names)
{
	struct pst_url url = good("shm:///run/a:b,c?map=0");

	EXPECT_STREQ("shm", url.scheme);
	EXPECT_STREQ("/run/a:b,c", url.name);
	EXPECT_EQ(0u, url.hosts);
	EXPECT_STREQ("", url.host[0]);
	EXPECT_FALSE(url.set.map);
	EXPECT_STREQ("a b", good("shm://a b").name);
	EXPECT_STREQ("", good("shm://").name);
}

TEST(settings)
{
	struct pst_url url = good("tcp://h?timeout=100&key=/a b/\xc3\xa4=c&crc=0&links=1&poll=1"
				  "&conns=8&io=epoll");

	EXPECT_EQ(100u, url.set.timeout_ms);
	EXPECT_STREQ("/a b/\xc3\xa4=c", url.set.key);
	EXPECT_FALSE(url.set.crc);
	EXPECT_EQ(1u, url.set.links);
	EXPECT_TRUE(url.set.poll);
	EXPECT_EQ(8u, url.set.conns);
	EXPECT_STREQ("epoll", url.set.io);
	EXPECT_STREQ("h", url.name);

	url = good("verbs://h:1?dev=mlx5_0,mlx5_1&chunk=1099511627776&timeout=600000");
	EXPECT_STREQ("mlx5_0,mlx5_1", url.set.dev);
	EXPECT_EQ(1ull << 40, url.set.chunk);
	EXPECT_EQ(600000u, url.set.timeout_ms);
	EXPECT_EQ(4096u, good("verbs://h?chunk=4096").set.chunk);
	EXPECT_STREQ("uring", good("tcp://h?io=uring").set.io);
	EXPECT_TRUE(good("shm://h?crc=1&links=65535&poll=0&map=1").set.crc);
}

TEST(bad_schemes)
{
	refused(NULL, "1 to 319 characters");
	refused("", "no fabric");
	refused("host", "no fabric");
	refused("tcp:/host", "no fabric");
	refused("://host", "no fabric");
	refused("udp://host", "no fabric");
	refused("TCP://host", "no fabric");
	refused(" tcp://host", "no fabric");
	refused("tcp://host\n", "0xa");
	refused("shm://a\x7f", "0x7f");
	refused("shm://a\x1b[1m", "0x1b");
}

TEST(bad_hosts)
{
	refused("tcp://:7471", "0.0.0.0");
	refused("tcp://a b", "no host");
	refused("tcp://a/b", "no host");
	refused("tcp://a@b", "no host");
	refused("tcp://a%b", "no host");
	refused("tcp://a,b", "no more than 1 hosts");
	refused("verbs://a,,b", "no host");
	refused("verbs://a,", "no host");
	refused("verbs://,a", "no host");
	refused("verbs://a,b,c,d,e,f,g,h,i", "no more than 8 hosts");
	refused("verbs://a:1,b:2", "one port");
	refused("tcp://fe80::1", "brackets");
	refused("tcp://fe80::1:7471", "brackets");
	refused("tcp://[fe80::1", "no IPv6 address");
	refused("tcp://[]", "no IPv6 address");
	refused("tcp://[10.0.0.1]", "no IPv6 address");
	refused("tcp://[host]", "no IPv6 address");
	refused("tcp://[fe80::1%]", "no IPv6 address");
	refused("tcp://[fe80::1%a b]", "no IPv6 address");
	refused("tcp://[fe80::1%a%b]", "no IPv6 address");
	refused("tcp://[fe80::1::2]", "no IPv6 address");
	refused("tcp://[::1]7471", "behind a host");
	refused("tcp://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", "no IPv6");
	refused("tcp://"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"63 characters");
}

TEST(bad_ports)
{
	refused("tcp://a:", "no port");
	refused("tcp://a:65536", "no port");
	refused("tcp://a:-1", "no port");
	refused("tcp://a:+1", "no port");
	refused("tcp://a: 1", "no port");
	refused("tcp://a:1x", "no port");
	refused("tcp://a:0x10", "no port");
	refused("tcp://a:000007471", "no port");
	refused("tcp://[::1]:", "no port");
}

TEST(bad_settings)
{
	refused("tcp://a?", "no setting");
	refused("tcp://a?&crc=1", "no setting");
	refused("tcp://a?crc=1&", "no setting");
	refused("tcp://a?crc", "no setting");
	refused("tcp://a?=1", "no setting");
	refused("tcp://a?size=1", "no setting \"size\"");
	refused("tcp://a?CRC=1", "no setting \"CRC\"");
	refused("tcp://a?cr=1", "no setting \"cr\"");
	refused("tcp://a?crc=1&crc=1", "twice");
	refused("tcp://a?crc=1?poll=1", "neither 0 nor 1");
	refused("tcp://a?crc=", "neither 0 nor 1");
	refused("tcp://a?crc=2", "neither 0 nor 1");
	refused("tcp://a?poll=yes", "neither 0 nor 1");
	refused("tcp://a?crc=01", "neither 0 nor 1");
	refused("tcp://a?timeout=99", "from 100 to 600000");
	refused("tcp://a?timeout=600001", "from 100 to 600000");
	refused("tcp://a?timeout=", "timeout");
	refused("tcp://a?timeout=1e3", "timeout");
	refused("tcp://a?timeout=-200", "timeout");
	refused("tcp://a?timeout=18446744073709552616", "timeout");
	refused("tcp://a?links=0", "from 1 to 65535");
	refused("tcp://a?links=65536", "from 1 to 65535");
	refused("tcp://a?conns=0", "from 1 to 8");
	refused("tcp://a?conns=9", "from 1 to 8");
	refused("tcp://a?io=", "auto, uring, epoll");
	refused("tcp://a?io=Auto", "auto, uring, epoll");
	refused("tcp://a?io=auto1", "auto, uring, epoll");
	refused("tcp://a?key=", "path of a file");
	refused("verbs://a?chunk=4095", "from 4096");
	refused("verbs://a?chunk=4097", "multiple of 4096");
	refused("verbs://a?chunk=1099511631872", "from 4096");
	refused("verbs://a?dev=", "no list of devices");
	refused("verbs://a?dev=,a", "no list of devices");
	refused("verbs://a?dev=a,", "no list of devices");
	refused("verbs://a?dev=a b", "no list of devices");
	refused("verbs://a?dev=../a", "no list of devices");
	refused("verbs://a?dev=a,b,c,d,e,f,g,h,i", "more than 8 devices");
	refused("shm://a?map=2", "neither 0 nor 1");
}

/* A setting of one fabric has no meaning on another, and none is passed over in silence. */
TEST(settings_of_others)
{
	refused("shm://a?timeout=500", "shm:// has no setting \"timeout\"; it has crc links map");
	refused("shm://a?key=/k", "has no setting");
	refused("shm://a?io=auto", "has no setting");
	refused("shm://a?dev=a", "has no setting");
	refused("tcp://a?map=0", "has no setting");
	refused("tcp://a?chunk=4096", "has no setting");
	refused("tcp://a?dev=a", "has no setting");
	refused("verbs://a?conns=2", "has no setting");
	refused("verbs://a?io=auto", "has no setting");
	refused("verbs://a?map=0", "has no setting");
}

/* shm://aaa... of @len characters in all */
static const char *long_url(const char *head, size_t len)
{
	static char text[1024];

	memset(text, 'a', sizeof(text));
	memcpy(text, head, strlen(head));
	text[len] = '\0';
	return text;
}

TEST(lengths)
{
	EXPECT_EQ(319u - 6, strlen(good(long_url("shm://", 319)).name));
	refused(long_url("shm://", 320), "319 characters");
	EXPECT_EQ(255u, strlen(good(long_url("tcp://a?key=", 12 + 255)).set.key));
	refused(long_url("tcp://a?key=", 12 + 256), "255 characters");
	EXPECT_EQ(63u, strlen(good(long_url("verbs://a?dev=", 14 + 63)).set.dev));
	refused(long_url("verbs://a?dev=", 14 + 64), "63 characters");
	EXPECT_EQ(63u, strlen(good(long_url("tcp://", 6 + 63)).host[0]));
	/* what is quoted leaves room for the reason */
	refused(long_url("tcp://a?", 319), "is no setting; write ?name=value");
	refused(long_url("tcp://a?timeout=", 319), "from 100 to 600000");
}

TEST_MAIN
