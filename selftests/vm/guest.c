/* SPDX-License-Identifier: Apache-2.0 */
/* What selftests/vm/run promises of its guests: whoever needs one may lean on it. */
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* The first line of a file, without its end. */
static const char *line_of(const char *path)
{
	static char line[512];
	FILE *f = fopen(path, "re");

	line[0] = '\0';
	if (!f)
		return path;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	line[strcspn(line, "\n")] = '\0';
	return line;
}

FIXTURE(rail)
{
	char device[64];
};

FIXTURE_VARIANT(rail)
{
	const char *device, *link, *address;
	int uverbs;
};

/* The address is GID 1, an IPv4 address as IPv6 has it; GID 0 is the link-local one. */
FIXTURE_VARIANT_ADD(rail, rxe0){"rxe0", "va", "0000:0000:0000:0000:0000:ffff:0a00:0001", 0};
FIXTURE_VARIANT_ADD(rail, rxe1){"rxe1", "vb", "0000:0000:0000:0000:0000:ffff:0a00:0002", 1};
FIXTURE_VARIANT_ADD(rail, rxe2){"rxe2", "vc", "0000:0000:0000:0000:0000:ffff:0a00:0101", 2};
FIXTURE_VARIANT_ADD(rail, rxe3){"rxe3", "vd", "0000:0000:0000:0000:0000:ffff:0a00:0102", 3};

FIXTURE_SETUP(rail)
{
	snprintf(self->device, sizeof(self->device), "/sys/class/infiniband/%s", variant->device);
}

FIXTURE_TEARDOWN(rail)
{
}

static const char *of(const struct fixture_rail *self, const char *attribute)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", self->device, attribute);
	return line_of(path);
}

TEST_F(rail, is_active)
{
	EXPECT_STREQ("4: ACTIVE", of(self, "ports/1/state"));
	EXPECT_STREQ(variant->link, of(self, "ports/1/gid_attrs/ndevs/0"));
}

TEST_F(rail, has_its_addresses)
{
	char local[64];

	snprintf(local, sizeof(local), "fe80:0000:0000:0000:0000:00ff:fe00:000%d",
		 variant->uverbs + 1);
	EXPECT_STREQ(local, of(self, "ports/1/gids/0"));
	EXPECT_STREQ(variant->address, of(self, "ports/1/gids/1"));
	EXPECT_STREQ("RoCE v2", of(self, "ports/1/gid_attrs/types/1"));
}

/* Users who are not root may use it. */
TEST_F(rail, has_a_device_file)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/dev/infiniband/uverbs%d", variant->uverbs);
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0666u, st.st_mode & 0777);
}

TEST(connection_manager)
{
	struct stat st;

	ASSERT_EQ(0, stat("/dev/infiniband/rdma_cm", &st));
	EXPECT_EQ(0666u, st.st_mode & 0777);
}

/* Loss and delay can be put on a rail, and taken off. */
TEST(netem)
{
	EXPECT_EQ(0, system("tc qdisc add dev vd root netem delay 1ms loss 1%"));
	EXPECT_EQ(0, system("tc qdisc show dev vd | grep -q netem"));
	EXPECT_EQ(0, system("tc qdisc del dev vd root"));
}

/* A link that was down works again as it did before. */
TEST(a_link_that_comes_back)
{
	EXPECT_EQ(0, system("ip link set vd down"));
	EXPECT_STREQ("1: DOWN", line_of("/sys/class/infiniband/rxe3/ports/1/state"));
	EXPECT_STREQ("4: ACTIVE", line_of("/sys/class/infiniband/rxe0/ports/1/state"));
	EXPECT_EQ(0, system("ip link set vd up && selftests/vm/guest.sh routes"));
	for (int i = 0;
	     i < 100 && strcmp("4: ACTIVE", line_of("/sys/class/infiniband/rxe3/ports/1/state"));
	     i++)
		usleep(50000);
	EXPECT_STREQ("4: ACTIVE", line_of("/sys/class/infiniband/rxe3/ports/1/state"));
	EXPECT_EQ(0, system("ip route get 10.0.1.1 from 10.0.1.2 | grep -q 'dev vd'"));
}

TEST(memory_may_be_locked)
{
	struct rlimit r;

	ASSERT_EQ(0, getrlimit(RLIMIT_MEMLOCK, &r));
	EXPECT_EQ(RLIM_INFINITY, r.rlim_cur);
	EXPECT_EQ(RLIM_INFINITY, r.rlim_max);
}

TEST(huge_pages_on_both_nodes)
{
#define HUGE_OF(node) \
	"/sys/devices/system/node/node" node "/hugepages/hugepages-2048kB/nr_hugepages"
	EXPECT_STREQ("32", line_of(HUGE_OF("0")));
	EXPECT_STREQ("32", line_of(HUGE_OF("1")));
}

TEST(drive)
{
	EXPECT_STREQ("524288", line_of("/sys/block/nvme0n1/size")); /* of 512 bytes */
}

/* Groups may be made, with limits on RDMA objects. */
TEST(rdma_control_group)
{
	const char *group = "/sys/fs/cgroup/guest-test", *limit = "rxe0 hca_handle=2 hca_object=20";
	const char *file = "/sys/fs/cgroup/guest-test/rdma.max";
	int fd;

	ASSERT_EQ(0, mkdir(group, 0755));
	fd = open(file, O_WRONLY | O_CLOEXEC);
	EXPECT_LE(0, fd);
	EXPECT_EQ((ssize_t)strlen(limit), write(fd, limit, strlen(limit)));
	close(fd);
	EXPECT_TRUE(strstr(line_of(file), "hca_handle=2 hca_object=20"));
	EXPECT_EQ(0, rmdir(group));
}

/* The host's files are there, and what is written to them is not the host's; $VM_OUT is. */
TEST(files)
{
	const char *out = getenv("VM_OUT");
	char path[512];
	int fd;

	EXPECT_EQ(0, access("selftests/vm/guest.c", R_OK));
	EXPECT_EQ(0, mkdir("/penstock-guest-test", 0755));
	EXPECT_EQ(0, rmdir("/penstock-guest-test"));
	ASSERT_NE(NULL, out);
	snprintf(path, sizeof(path), "%s/guest-test", out);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ASSERT_LE(0, fd);
	EXPECT_EQ(5, write(fd, "hello", 5));
	close(fd);
	EXPECT_STREQ("hello", line_of(path));
	EXPECT_EQ(0, unlink(path));
}

TEST_MAIN
