/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: may it be pinned, on which pages, on which node, and how much of it. */
#include "tools/perf/doctor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NODE	     "/sys/devices/system/node/"
#define CAP_IPC_LOCK 14

static const struct {
	const char *name, *dir;
	double bytes;
} huge_sizes[] = {
	{"2 MiB", "hugepages-2048kB", 2048.0 * 1024},
	{"1 GiB", "hugepages-1048576kB", 1048576.0 * 1024},
};

static bool may_lock_all(const struct doctor *d)
{
	char status[4096];
	const char *caps;

	doctor_read(d, status, sizeof(status), "/proc/self/status");
	caps = strstr(status, "CapEff:");
	return caps && strtoull(caps + strlen("CapEff:"), NULL, 16) >> CAP_IPC_LOCK & 1;
}

void doctor_memlock(struct doctor *d)
{
	char limits[8192], size[24];
	const char *row;
	double bytes;

	doctor_read(d, limits, sizeof(limits), "/proc/self/limits");
	row = strstr(limits, "Max locked memory");
	if (!row) {
		doctor_say(d, DOCTOR_UNKNOWN, "memlock", "/proc/self/limits does not tell");
		return;
	}
	row += strlen("Max locked memory");
	row += strspn(row, " ");
	bytes = strtod(row, NULL);
	if (!strncmp(row, "unlimited", 9)) {
		doctor_say(d, DOCTOR_OK, "memlock", "unlimited");
	} else if (may_lock_all(d)) {
		doctor_say(d, DOCTOR_OK, "memlock", "%s, and CAP_IPC_LOCK is above it",
			   doctor_bytes(bytes, size));
	} else {
		doctor_say(d, DOCTOR_COSTS, "memlock", "%s", doctor_bytes(bytes, size));
		doctor_cost(d,
			    "no more memory than that can be pinned or registered over verbs://");
		doctor_mend(d, "a line '* - memlock unlimited' in /etc/security/limits.conf, or "
			       "LimitMEMLOCK=infinity in the unit, or --ulimit memlock=-1 for the "
			       "container");
	}
}

/* One size of one node. Returns how many bytes are reserved. */
static double huge_on_node(struct doctor *d, const char *node, size_t i)
{
	long long reserved, free;
	char check[80], a[24], b[24];

	if (!doctor_number(d, &reserved, NODE "%s/hugepages/%s/nr_hugepages", node,
			   huge_sizes[i].dir) ||
	    !doctor_number(d, &free, NODE "%s/hugepages/%s/free_hugepages", node,
			   huge_sizes[i].dir) ||
	    reserved <= 0)
		return 0;
	snprintf(check, sizeof(check), "huge pages %s", node);
	if (free > 0) {
		doctor_say(d, DOCTOR_OK, check, "%s of %s pages, %s free",
			   doctor_bytes((double)reserved * huge_sizes[i].bytes, a),
			   huge_sizes[i].name, doctor_bytes((double)free * huge_sizes[i].bytes, b));
	} else {
		doctor_say(d, DOCTOR_COSTS, check, "%s of %s pages, none free",
			   doctor_bytes((double)reserved * huge_sizes[i].bytes, a),
			   huge_sizes[i].name);
		doctor_cost(d, "what begins now gets small pages");
		doctor_mend(d, "echo %lld >%s%s/hugepages/%s/nr_hugepages", reserved * 2, NODE,
			    node, huge_sizes[i].dir);
	}
	return (double)reserved * huge_sizes[i].bytes;
}

static bool has_memory(const struct doctor *d, const char *node)
{
	char text[2048];

	doctor_read(d, text, sizeof(text), NODE "%s/meminfo", node);
	return doctor_field(text, "MemTotal") > 0;
}

void doctor_huge(struct doctor *d)
{
	struct doctor_names nodes;
	char check[80];

	doctor_nodes(d, &nodes);
	for (size_t i = 0; i < nodes.n; i++) {
		double bytes = 0;

		for (size_t k = 0; k < sizeof(huge_sizes) / sizeof(*huge_sizes); k++)
			bytes += huge_on_node(d, nodes.name[i], k);
		if (bytes > 0 || !has_memory(d, nodes.name[i]))
			continue;
		snprintf(check, sizeof(check), "huge pages %s", nodes.name[i]);
		doctor_say(d, DOCTOR_COSTS, check, "none reserved");
		doctor_cost(d, "longer registration, and misses of the TLB and of the NIC's table");
		doctor_mend(d, "echo 4096 >" NODE "%s/hugepages/hugepages-2048kB/nr_hugepages",
			    nodes.name[i]);
	}
	if (!nodes.n)
		doctor_say(d, DOCTOR_UNKNOWN, "huge pages", "no " NODE);
}

/* The word in brackets: "always [madvise] never". */
static void chosen(const struct doctor *d, const char *file, char to[32])
{
	char text[128], *open, *end;

	doctor_read(d, text, sizeof(text), "/sys/kernel/mm/transparent_hugepage/%s", file);
	open = strchr(text, '[');
	end = open ? strchr(open, ']') : NULL;
	if (end)
		*end = '\0';
	snprintf(to, 32, "%s", end ? open + 1 : "");
}

static void thp_of(struct doctor *d, const char *check, const char *file, const char *bad,
		   const char *mend)
{
	char word[32];

	chosen(d, file, word);
	if (!word[0]) {
		doctor_say(d, DOCTOR_UNKNOWN, check, "the kernel does not tell");
	} else if (!strstr(bad, word)) {
		doctor_say(d, DOCTOR_OK, check, "%s", word);
	} else {
		doctor_say(d, DOCTOR_COSTS, check, "%s", word);
		doctor_cost(d, "memory that is not on reserved huge pages is on small ones");
		doctor_mend(d, "echo %s >/sys/kernel/mm/transparent_hugepage/%s", mend, file);
	}
}

void doctor_thp(struct doctor *d)
{
	thp_of(d, "transparent huge pages", "enabled", "never", "madvise");
	/* pools are memfds, and those go by this one */
	thp_of(d, "transparent huge pages of memfds", "shmem_enabled", "never deny", "advise");
}

static void one_node(struct doctor *d, const char *node)
{
	char text[2048], cpus[256], distance[256], check[80], a[24], b[24];
	long long total, free;

	doctor_read(d, text, sizeof(text), NODE "%s/meminfo", node);
	doctor_read(d, cpus, sizeof(cpus), NODE "%s/cpulist", node);
	doctor_read(d, distance, sizeof(distance), NODE "%s/distance", node);
	total = doctor_field(text, "MemTotal");
	free = doctor_field(text, "MemFree");
	snprintf(check, sizeof(check), "NUMA %s", node);
	if (!total && cpus[0]) {
		doctor_say(d, DOCTOR_COSTS, check, "CPUs %.64s and no memory", cpus);
		doctor_cost(d, "its CPUs work on other nodes' memory");
		doctor_mend(d, "memory modules in this socket's slots");
		return;
	}
	doctor_say(d, DOCTOR_OK, check, "%s, %s free, CPUs %.64s, distances %.64s",
		   doctor_bytes((double)total * 1024, a), doctor_bytes((double)free * 1024, b),
		   cpus[0] ? cpus : "none", distance);
}

void doctor_numa(struct doctor *d)
{
	struct doctor_names nodes;

	doctor_nodes(d, &nodes);
	if (!nodes.n)
		doctor_say(d, DOCTOR_UNKNOWN, "NUMA", "no " NODE);
	for (size_t i = 0; i < nodes.n; i++)
		one_node(d, nodes.name[i]);
}

void doctor_balancing(struct doctor *d)
{
	struct doctor_names nodes;
	long long on;

	doctor_nodes(d, &nodes);
	if (!doctor_number(d, &on, "/proc/sys/kernel/numa_balancing"))
		doctor_say(d, DOCTOR_OK, "NUMA balancing", "the kernel has none");
	else if (!on || nodes.n < 2)
		doctor_say(d, DOCTOR_OK, "NUMA balancing", on ? "on, with one node" : "off");
	else {
		doctor_say(d, DOCTOR_COSTS, "NUMA balancing", "on");
		doctor_cost(d,
			    "page faults and moved pages under memory that was placed on purpose");
		doctor_mend(d, "sysctl -w kernel.numa_balancing=0");
	}
}

void doctor_swap(struct doctor *d)
{
	char text[4096], size[24];
	double kib = 0;
	int n = doctor_read(d, text, sizeof(text), "/proc/swaps");

	if (n < 0) {
		doctor_say(d, DOCTOR_UNKNOWN, "swap", "no /proc/swaps");
		return;
	}
	for (char *row = strchr(text, '\n'); row; row = strchr(row + 1, '\n')) {
		long long of_one;

		/* name, type, size in KiB */
		if (sscanf(row + 1, "%*s %*s %lld", &of_one) == 1)
			kib += (double)of_one;
	}
	if (kib <= 0) {
		doctor_say(d, DOCTOR_OK, "swap", "none");
		return;
	}
	doctor_say(d, DOCTOR_COSTS, "swap", "%s", doctor_bytes(kib * 1024, size));
	doctor_cost(d, "what is not pinned may be read back from a drive in the middle of a step");
	doctor_mend(d, "swapoff -a");
}

/* Where the files of this process's control group are, and what the one for memory is called. */
static const char *cgroup_of(const struct doctor *d, char to[512], const char **root)
{
	char text[4096], *line = text, *next;
	const char *file = NULL;

	doctor_read(d, text, sizeof(text), "/proc/self/cgroup");
	for (; line && *line; line = next) {
		char *controllers = strchr(line, ':'),
		     *path = controllers ? strchr(controllers + 1, ':') : NULL;

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!path || (next && path > next))
			continue;
		*path++ = '\0';
		if (!strcmp(controllers + 1, "memory")) {
			snprintf(to, 512, "%s", path);
			*root = "/sys/fs/cgroup/memory";
			return "memory.limit_in_bytes";
		}
		if (!controllers[1]) {
			snprintf(to, 512, "%s", path);
			*root = doctor_there(d, "/sys/fs/cgroup/cgroup.controllers")
					? "/sys/fs/cgroup"
					: "/sys/fs/cgroup/unified";
			file = "memory.max";
		}
	}
	return file;
}

/* From the group up to the root: call @look in each. */
static void each_group(const struct doctor *d, const char *root, const char *path,
		       void (*look)(const struct doctor *d, const char *group, void *to), void *to)
{
	char group[640];
	char *slash;

	snprintf(group, sizeof(group), "%s%s", root, strcmp(path, "/") ? path : "");
	for (;;) {
		look(d, group, to);
		slash = strrchr(group, '/');
		if (!slash || strlen(group) <= strlen(root))
			return;
		*slash = '\0';
	}
}

struct limit {
	const char *file;
	double bytes;
	char group[256];
};

static void least_memory(const struct doctor *d, const char *group, void *to)
{
	struct limit *limit = to;
	long long bytes;

	/* "max" is no number */
	if (!doctor_number(d, &bytes, "%s/%s", group, limit->file) ||
	    (limit->group[0] && (double)bytes >= limit->bytes))
		return;
	limit->bytes = (double)bytes;
	snprintf(limit->group, sizeof(limit->group), "%.255s", group);
}

struct rdma_limit {
	char text[160];
	char group[256];
};

static void rdma_limits(const struct doctor *d, const char *group, void *to)
{
	struct rdma_limit *limit = to;
	char text[1024], *line = text, *next;

	doctor_read(d, text, sizeof(text), "%s/rdma.max", group);
	for (; line && *line && !limit->text[0]; line = next) {
		const char *handles = strstr(line, "hca_handle="),
			   *objects = strstr(line, "hca_object=");

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if ((!handles || !strncmp(handles, "hca_handle=max", 14)) &&
		    (!objects || !strncmp(objects, "hca_object=max", 14)))
			continue;
		snprintf(limit->text, sizeof(limit->text), "%.159s", line);
		snprintf(limit->group, sizeof(limit->group), "%.255s", group);
	}
}

void doctor_cgroup(struct doctor *d)
{
	char path[512], meminfo[4096], size[24];
	const char *root = NULL, *file = cgroup_of(d, path, &root);
	struct limit memory = {.file = file};
	struct rdma_limit rdma = {0};
	double total;

	if (!file) {
		doctor_say(d, DOCTOR_UNKNOWN, "cgroup", "/proc/self/cgroup does not tell");
		return;
	}
	doctor_read(d, meminfo, sizeof(meminfo), "/proc/meminfo");
	total = (double)doctor_field(meminfo, "MemTotal") * 1024;
	each_group(d, root, path, least_memory, &memory);
	if (memory.group[0] && memory.bytes < total) {
		doctor_say(d, DOCTOR_COSTS, "cgroup memory", "%s in %s",
			   doctor_bytes(memory.bytes, size), memory.group);
		doctor_cost(d, "a pool that is larger gets its process killed");
		doctor_mend(d, "systemctl set-property UNIT MemoryMax=infinity, or a larger "
			       "--memory for the container");
	} else {
		doctor_say(d, DOCTOR_OK, "cgroup memory", "no limit");
	}
	each_group(d, root, path, rdma_limits, &rdma);
	if (rdma.text[0]) {
		doctor_say(d, DOCTOR_COSTS, "cgroup rdma", "%s in %s", rdma.text, rdma.group);
		doctor_cost(d, "so many queue pairs and memory regions, and no more");
		doctor_mend(d, "echo '%.*s hca_handle=max hca_object=max' >%s/rdma.max",
			    (int)strcspn(rdma.text, " "), rdma.text, rdma.group);
	} else {
		doctor_say(d, DOCTOR_OK, "cgroup rdma", "no limit");
	}
}
