/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int door_open(int flags)
{
	const int fd = open(DOOR, flags | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		SKIP("the module is not loaded", "make vm-check");
	return fd;
}

/* 0 or -errno, as the daemon's door has it. */
int order(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

int create(int fd, const char *name, uint64_t bytes, int node, uint32_t flags,
	   struct pst_cmd_pool_create *out)
{
	*out = (struct pst_cmd_pool_create){
		.size = sizeof(*out), .flags = flags, .bytes = bytes, .node = node};
	strncpy((char *)out->name, name, sizeof(out->name) - 1);
	return order(fd, PST_IOC_POOL_CREATE, out);
}

/* A descriptor, or -errno. */
int export_pool(int fd, uint32_t id, uint32_t flags)
{
	struct pst_cmd_pool_map how = {.size = sizeof(how), .flags = flags, .id = id};
	const int rc = order(fd, PST_IOC_POOL_MAP, &how);

	return rc ? rc : how.out_fd;
}

int destroy(int fd, uint32_t id)
{
	struct pst_cmd_pool_destroy how = {.size = sizeof(how), .id = id};

	return order(fd, PST_IOC_POOL_DESTROY, &how);
}

struct pst_cmd_info info(int fd)
{
	struct pst_cmd_info i = {.size = sizeof(i)};

	ASSERT_EQ(0, order(fd, PST_IOC_INFO, &i));
	return i;
}

struct pst_cmd_pool_stat stat_of(int fd, uint32_t id)
{
	struct pst_cmd_pool_stat s = {.size = sizeof(s), .id = id};

	ASSERT_EQ(0, order(fd, PST_IOC_POOL_STAT, &s));
	return s;
}

/* At a multiple of a huge page, where a huge block can be mapped as one. */
unsigned char *map_at(int fd, size_t bytes, int prot)
{
	char *room = mmap(NULL, bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));

	return mmap(at, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0);
}

struct mapped map_new(int door, const char *name, size_t bytes, int node)
{
	struct mapped m;

	ASSERT_EQ(0, create(door, name, bytes, node, PST_POOL_CREATE_HUGE, &m.pool));
	m.fd = export_pool(door, m.pool.out_id, 0);
	ASSERT_LE(0, m.fd);
	m.at = map_at(m.fd, bytes, PROT_READ | PROT_WRITE);
	ASSERT_TRUE(m.at != MAP_FAILED);
	return m;
}

void pattern(unsigned char *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += PAGE)
		*(uint64_t *)(at + i) = ~i;
}

bool has_pattern(const unsigned char *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += PAGE)
		if (*(const uint64_t *)(at + i) != ~i)
			return false;
	return true;
}

void write_file(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)strlen(text), write(fd, text, strlen(text)));
	close(fd);
}

/* The number behind @key in a file, in bytes where it says kB. */
uint64_t number_in(const char *path, const char *key)
{
	char line[256];
	uint64_t n = 0;
	FILE *f = fopen(path, "re");

	ASSERT_TRUE(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, key);

		if (at && sscanf(at + strlen(key), *key ? "%*[: ]%lu" : "%lu", &n) == 1) {
			n *= strstr(at, "kB") ? 1024 : 1;
			break;
		}
	}
	fclose(f);
	return n;
}

/* What was freed by a process that ended arrives a little later. */
bool becomes(int fd, uint64_t bytes)
{
	for (int i = 0; i < 500; i++) {
		if (info(fd).out_pool_bytes == bytes)
			return true;
		usleep(10000);
	}
	return false;
}

void become_nobody(void)
{
	ASSERT_EQ(0, setgid(NOBODY));
	ASSERT_EQ(0, setuid(NOBODY));
}

/* A child that dies with the test; 0 in the child. */
pid_t child(void)
{
	const pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

int ended(pid_t pid)
{
	int status;

	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	return status;
}
