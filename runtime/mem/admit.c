/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/admit.h"

#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

const char *pst_admit_size(char *text, size_t len, uint64_t bytes)
{
	static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	unsigned int u = 0;
	uint64_t whole = bytes, part = 0;

	for (; whole >= 1024 && u < 4; u++) {
		part = whole % 1024;
		whole /= 1024;
	}
	if (part && whole < 10)
		snprintf(text, len, "%llu.%llu %s", (unsigned long long)whole,
			 (unsigned long long)(part * 10 / 1024), unit[u]);
	else
		snprintf(text, len, "%llu %s", (unsigned long long)whole, unit[u]);
	return text;
}

/* The number behind "@key" in a file of lines; all of the file is one number with key "". */
static int read_number(const char *root, const char *path, const char *key, int base, uint64_t *out)
{
	char name[4352], line[256];
	int rc = -1;
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	f = fopen(name, "re");
	if (!f)
		return -1;
	while (rc && fgets(line, sizeof(line), f)) {
		const char *at = *key ? strstr(line, key) : line;
		char *end;

		if (!at)
			continue;
		at += strlen(key);
		*out = strtoull(at, &end, base);
		if (end != at)
			rc = 0;
		else if (!*key)
			break;
	}
	fclose(f);
	return rc;
}

static int may_lock(const char *root)
{
	uint64_t caps;

	return !read_number(root, "/proc/self/status", "CapEff:", 16, &caps) &&
	       (caps >> CAP_IPC_LOCK & 1);
}

uint64_t pst_admit_lock(const char *root, uint64_t *limit)
{
	struct rlimit r;
	uint64_t locked;

	*limit = PST_ADMIT_UNLIMITED;
	if (getrlimit(RLIMIT_MEMLOCK, &r) || r.rlim_cur == RLIM_INFINITY)
		return PST_ADMIT_UNLIMITED;
	*limit = r.rlim_cur;
	if (may_lock(root))
		return PST_ADMIT_UNLIMITED;
	if (read_number(root, "/proc/self/status", "VmLck:", 10, &locked))
		locked = 0;
	locked *= 1024;
	return r.rlim_cur > locked ? r.rlim_cur - locked : 0;
}

uint64_t pst_admit_memory(const char *root)
{
	uint64_t kib;

	if (read_number(root, "/proc/meminfo", "MemAvailable:", 10, &kib))
		return PST_ADMIT_UNLIMITED;
	return kib * 1024;
}

uint64_t pst_admit_node(const char *root, int node)
{
	static const char *const keys[] = {"MemFree:", "Active(file):", "Inactive(file):"};
	uint64_t sum = 0, kib;
	char path[96];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (read_number(root, path, keys[i], 10, &kib))
			return PST_ADMIT_UNLIMITED;
		sum += kib * 1024;
	}
	return sum;
}

struct cgroup_files {
	const char *mount, *max, *now, *cache;
};

/* Bytes left in the group at @path; the page cache that it can drop counts as left. */
static uint64_t room_of(const char *root, const struct cgroup_files *c, const char *path,
			uint64_t *limit)
{
	uint64_t max, now, cache;
	char name[4224];

	snprintf(name, sizeof(name), "%s%s/%s", c->mount, path, c->max);
	/* v2 says "max", v1 the largest multiple of a page. */
	if (read_number(root, name, "", 10, &max) || max >= 1ull << 62)
		return PST_ADMIT_UNLIMITED;
	snprintf(name, sizeof(name), "%s%s/%s", c->mount, path, c->now);
	if (read_number(root, name, "", 10, &now))
		return PST_ADMIT_UNLIMITED;
	snprintf(name, sizeof(name), "%s%s/memory.stat", c->mount, path);
	if (read_number(root, name, c->cache, 10, &cache))
		cache = 0;
	now -= cache < now ? cache : now;
	*limit = max;
	return max > now ? max - now : 0;
}

/* The group at @path and all around it, up to the root of what is mounted here. */
static uint64_t room_around(const char *root, const struct cgroup_files *c, char *path,
			    uint64_t *limit)
{
	uint64_t least = PST_ADMIT_UNLIMITED, max;

	for (;;) {
		uint64_t room = room_of(root, c, path, &max);
		char *slash = strrchr(path, '/');

		if (room < least) {
			least = room;
			*limit = max;
		}
		if (!slash)
			return least;
		*slash = '\0';
	}
}

uint64_t pst_admit_cgroup(const char *root, uint64_t *limit)
{
	static const struct cgroup_files v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
					       "memory.usage_in_bytes", "total_inactive_file"};
	static const struct cgroup_files v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
					       "inactive_file"};
	uint64_t least = PST_ADMIT_UNLIMITED;
	char name[256], line[4096];
	FILE *f;

	*limit = PST_ADMIT_UNLIMITED;
	snprintf(name, sizeof(name), "%s/proc/self/cgroup", root);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
		int is_v1 = path && !strncmp(names, ":memory:", 8);
		uint64_t room, max = 0;

		if (!path || (!is_v1 && strncmp(line, "0::", 3)))
			continue;
		path[strcspn(path, "\n")] = '\0';
		if (!strcmp(path + 1, "/"))
			path[1] = '\0';
		room = room_around(root, is_v1 ? &v1 : &v2, path + 1, &max);
		if (room < least) {
			least = room;
			*limit = max;
		}
	}
	if (f)
		fclose(f);
	return least;
}

uint64_t pst_admit_huge(const char *root, int node, uint64_t page)
{
	unsigned long long kib = page / 1024;
	uint64_t n;
	char path[160];

	if (node < 0)
		snprintf(path, sizeof(path),
			 "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages", kib);
	else
		snprintf(
			path, sizeof(path),
			"/sys/devices/system/node/node%d/hugepages/hugepages-%llukB/free_hugepages",
			node, kib);
	return read_number(root, path, "", 10, &n) ? 0 : n;
}
