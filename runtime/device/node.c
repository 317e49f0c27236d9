/* SPDX-License-Identifier: Apache-2.0 */
/* The cores of a NUMA node, from the cpulist that sysfs gives: "0-3,8,10-11". */
#include "runtime/device/team.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>

static int parse_range(char **s, long *first, long *last)
{
	char *end;

	*first = strtol(*s, &end, 10);
	if (end == *s || *first < 0)
		return -EINVAL;
	*last = *first;
	*s = end;
	if (**s != '-')
		return 0;
	*last = strtol(*s + 1, &end, 10);
	if (end == *s + 1 || *last < *first)
		return -EINVAL;
	*s = end;
	return 0;
}

static int parse_list(char *s, cpu_set_t *out)
{
	CPU_ZERO(out);
	while (*s && *s != '\n') {
		long first, last;

		if (parse_range(&s, &first, &last))
			return -EINVAL;
		for (long cpu = first; cpu <= last && cpu < CPU_SETSIZE; cpu++)
			CPU_SET(cpu, out);
		if (*s == ',')
			s++;
		else if (*s && *s != '\n')
			return -EINVAL;
	}
	return 0;
}

static int read_list(const char *path, cpu_set_t *out)
{
	char line[4096] = "";
	FILE *f = fopen(path, "re");

	if (!f)
		return -ENOENT;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return parse_list(line, out);
}

int pst_node_cpus(const char *sysfs, int node, cpu_set_t *out, struct pst_error *err)
{
	cpu_set_t allowed, cpus;
	char path[4096];
	int rc;

	if (sched_getaffinity(0, sizeof(allowed), &allowed)) {
		rc = -errno;
		return pst_fail(err, rc, "device: the kernel does not say which cores may be used");
	}
	if (node < 0) {
		*out = allowed;
		return 0;
	}
	snprintf(path, sizeof(path), "%s/node%d/cpulist", sysfs, node);
	rc = read_list(path, &cpus);
	if (rc)
		return pst_fail(err, -EINVAL,
				"device: there is no NUMA node %d (%s %s); list them with lscpu",
				node, path,
				rc == -ENOENT ? "is missing" : "is not a list of cores");
	CPU_AND(&cpus, &cpus, &allowed);
	if (!CPU_COUNT(&cpus))
		return pst_fail(err, -ENODEV,
				"device: NUMA node %d has no core that this process may use; widen "
				"its affinity with taskset or numactl",
				node);
	*out = cpus;
	return 0;
}
