/* SPDX-License-Identifier: Apache-2.0 */
/* From what people say of fabrics and hosts to URLs: their settings, keys and addresses. */
#include "runtime/launch/where.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/stat.h>

static struct pst_where open_where(const struct pst_where_options *o)
{
	struct pst_error err = {0};
	struct pst_where w;

	ASSERT_OK(pst_where_open(o, &w, &err), &err);
	return w;
}

static const char *fabric_of(const struct pst_where *w)
{
	static char url[PST_URL_MAX];

	pst_where_fabric(w, url);
	return url;
}

static const char *listen_of(struct pst_where *w)
{
	static char url[PST_URL_MAX];
	struct pst_error err = {0};

	ASSERT_OK(pst_where_listen(w, "name", url, &err), &err);
	return url;
}

TEST(shm)
{
	struct pst_where w = open_where(&(struct pst_where_options){0});

	EXPECT_STREQ("shm://engine", fabric_of(&w));
	EXPECT_STREQ("shm://name", listen_of(&w));
	EXPECT_EQ(-1, w.key_fd);
	w = open_where(&(struct pst_where_options){.fabric = "shm?map=0"});
	EXPECT_STREQ("shm://engine?map=0", fabric_of(&w));
	EXPECT_STREQ("shm://name?map=0", listen_of(&w));
}

TEST(peers_say_which_fabric)
{
	const char *peer[] = {"a", "tcp://b:1"};
	struct pst_where w = open_where(&(struct pst_where_options){.peers = peer, .npeers = 2});
	char url[PST_WIRE_URL];

	EXPECT_STREQ("tcp://engine", fabric_of(&w));
	EXPECT_EQ(0, pst_where_peer(&w, "a", url, NULL));
	EXPECT_STREQ("tcp://a", url);
	EXPECT_EQ(0, pst_where_peer(&w, "tcp://b:1", url, NULL));
	EXPECT_STREQ("tcp://b:1", url);
	EXPECT_EQ(-EINVAL, pst_where_peer(&w, "verbs://b:1", url, NULL));
	EXPECT_EQ(-EINVAL, pst_where_peer(&w, "b:1?crc=0", url, NULL));
	EXPECT_STREQ("tcp://b:1", url);
	/* their key is not made here */
	EXPECT_EQ(-1, w.key_fd);
}

/* A key of this run's own: in memory, for this user alone, and never the same one. */
TEST(fresh_keys)
{
	struct pst_where w[2];
	char want[96], path[64], key[2][128] = {{0}};
	struct stat st;

	for (int i = 0; i < 2; i++) {
		int fd;

		w[i] = open_where(&(struct pst_where_options){.fabric = "tcp?crc=0"});
		ASSERT_GE(w[i].key_fd, 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", w[i].key_fd);
		snprintf(want, sizeof(want), "tcp://engine?crc=0&key=%s", path);
		EXPECT_STREQ(want, fabric_of(&w[i]));
		ASSERT_EQ(0, fstat(w[i].key_fd, &st));
		EXPECT_EQ(0600, (int)(st.st_mode & 07777));
		EXPECT_EQ(0, (int)st.st_nlink);
		EXPECT_EQ(FD_CLOEXEC, fcntl(w[i].key_fd, F_GETFD));
		fd = open(path, O_RDONLY);
		ASSERT_GE(fd, 0);
		EXPECT_EQ(64, (int)read(fd, key[i], sizeof(key[i])));
		EXPECT_EQ(64, (int)strspn(key[i], "0123456789abcdef"));
		close(fd);
	}
	EXPECT_NE(0, strcmp(key[0], key[1]));
	for (int i = 0; i < 2; i++) {
		pst_where_close(&w[i]);
		EXPECT_EQ(-1, w[i].key_fd);
	}
}

TEST(keys_from_outside)
{
	struct pst_where w =
		open_where(&(struct pst_where_options){.fabric = "tcp", .key = "/a key"});
	char url[PST_URL_MAX] = "untouched";

	EXPECT_STREQ("tcp://engine?key=/a key", fabric_of(&w));
	w = open_where(&(struct pst_where_options){.fabric = "tcp?key=b"});
	EXPECT_STREQ("tcp://engine?key=b", fabric_of(&w));
	EXPECT_EQ(-1, w.key_fd);
	EXPECT_EQ(-EINVAL, pst_where_add_key("tcp://h?key=a", "b", url, NULL));
	EXPECT_EQ(-EINVAL, pst_where_add_key("tcp://h?crc=0&key=a", "b", url, NULL));
	EXPECT_EQ(-EINVAL, pst_where_add_key("tcp://h", "a&b", url, NULL));
	EXPECT_STREQ("untouched", url);
	EXPECT_EQ(0, pst_where_add_key("tcp://h?crc=0", "b", url, NULL));
	EXPECT_STREQ("tcp://h?crc=0&key=b", url);
	EXPECT_EQ(0, pst_where_add_key("tcp://h", NULL, url, NULL));
	EXPECT_STREQ("tcp://h", url);
}

TEST(hosts_to_listen_on)
{
	struct pst_where_options o = {.fabric = "tcp", .key = "k"};
	struct pst_where w = open_where(&o);

	EXPECT_STREQ("tcp://127.0.0.1:0?key=k", listen_of(&w));
	o.host = "10.0.0.1";
	w = open_where(&o);
	EXPECT_STREQ("tcp://10.0.0.1:0?key=k", listen_of(&w));
	o.host = "fe80::1%eth0";
	w = open_where(&o);
	EXPECT_STREQ("tcp://[fe80::1%eth0]:0?key=k", listen_of(&w));
	o.fabric = "verbs";
	o.host = "10.0.0.1,fe80::1%va,[fe80::2%vb]";
	w = open_where(&o);
	EXPECT_STREQ("verbs://10.0.0.1,[fe80::1%va],[fe80::2%vb]:0?key=k", listen_of(&w));
	o.host = "10.0.0.1,[::]";
	EXPECT_EQ(-EINVAL, pst_where_open(&o, &w, NULL));
}

TEST(what_no_other_host_reaches)
{
	EXPECT_TRUE(pst_where_local("shm://a"));
	EXPECT_TRUE(pst_where_local("tcp://localhost:1"));
	EXPECT_TRUE(pst_where_local("tcp://127.8.9.1"));
	EXPECT_TRUE(pst_where_local("tcp://[::1]:9"));
	EXPECT_FALSE(pst_where_local("tcp://10.0.0.1"));
	EXPECT_FALSE(pst_where_local("verbs://127.0.0.1,10.0.0.1"));
}

static void make(const char *path, const char *text)
{
	char full[600], *slash;
	FILE *f;

	snprintf(full, sizeof(full), "%s/class/infiniband/%s", test_tmpdir(), path);
	for (slash = full + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = 0;
		mkdir(full, 0700);
	}
	f = fopen(full, "w");
	ASSERT_NE(NULL, f);
	fprintf(f, "%s\n", text);
	fclose(f);
}

/* The first active port's interface has an address: here that of lo. */
TEST(addresses_of_rdma_devices)
{
	struct pst_error err = {0};
	char host[64] = "untouched";

	EXPECT_EQ(-ENODEV, pst_where_rdma(test_tmpdir(), "", host, &err));
	EXPECT_NE(NULL, strstr(err.text, "--listen-host"));
	make("a0/ports/1/state", "1: DOWN");
	make("a0/ports/1/gid_attrs/ndevs/0", "lo");
	EXPECT_EQ(-ENODEV, pst_where_rdma(test_tmpdir(), "", host, NULL));
	make("b0/ports/1/state", "4: ACTIVE");
	make("b0/ports/1/gid_attrs/ndevs/0", "no-such-netdev");
	EXPECT_EQ(-ENODEV, pst_where_rdma(test_tmpdir(), "", host, NULL));
	EXPECT_STREQ("untouched", host);
	make("c0/ports/1/state", "1: DOWN");
	make("c0/ports/2/state", "4: ACTIVE");
	make("c0/ports/2/gid_attrs/ndevs/1", "lo");
	EXPECT_EQ(0, pst_where_rdma(test_tmpdir(), "", host, NULL));
	EXPECT_STREQ("127.0.0.1", host);
	EXPECT_EQ(-ENODEV, pst_where_rdma(test_tmpdir(), "b0,c01,d0", host, NULL));
	EXPECT_EQ(0, pst_where_rdma(test_tmpdir(), "d0,c0", host, NULL));
	/* over InfiniBand the interfaces stand on the device */
	make("d0/ports/1/state", "4: ACTIVE");
	make("d0/device/net/lo/address", "");
	EXPECT_EQ(0, pst_where_rdma(test_tmpdir(), "d0", host, NULL));
}

TEST_MAIN
