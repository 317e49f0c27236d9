/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cores of a NUMA node as a device: what /sys and /proc tell of them.
 *
 * Load is of /proc/stat, memory of the node's meminfo, clocks of cpufreq, energy and cap of RAPL
 * (powercap), temperature of hwmon. A package of several nodes has one energy counter: it is the
 * first node's. Facts: Documentation/{admin-guide/pm/cpufreq,power/powercap/powercap,
 * hwmon/sysfs-interface}.rst and proc(5) of Linux.
 */
#include "daemon/devices/device_cpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shorter than this says nothing of load or power. */
#define SPAN_NS 50000000

/* Columns of /proc/stat: user nice system idle iowait irq softirq steal; guests' are in user's. */
enum { STAT_IDLE = 3, STAT_IOWAIT = 4, STAT_COLUMNS = 8 };

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* Whole files of unknown length. NULL: there is none. */
static char *slurp(const char *root, const char *path)
{
	size_t size = 16384;

	for (char *text = NULL, *more; size <= 64u << 20; size *= 4) {
		int n;

		more = realloc(text, size);
		if (!more) {
			free(text);
			return NULL;
		}
		text = more;
		n = device_text(root, text, size, "%s", path);
		if (n >= 0 && (size_t)n < size / 2)
			return text;
		if (n < 0 || size * 4 > 64u << 20) {
			free(text);
			return NULL;
		}
	}
	return NULL;
}

static bool count_line(const struct cpu_device *c, const char *line, uint64_t *busy, uint64_t *all)
{
	unsigned long long v[STAT_COLUMNS] = {0};
	unsigned int cpu;

	if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &v[0], &v[1], &v[2],
		   &v[3], &v[4], &v[5], &v[6], &v[7]) < 1 + STAT_IOWAIT ||
	    cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &c->cpus))
		return false;
	for (int i = 0; i < STAT_COLUMNS; i++) {
		*all += v[i];
		if (i != STAT_IDLE && i != STAT_IOWAIT)
			*busy += v[i];
	}
	return true;
}

static void read_load(struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	char *text = slurp(c->root, "/proc/stat"), *save = NULL;
	uint64_t busy = 0, all = 0;
	bool seen = false;

	if (text)
		for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
			if (!strncmp(l, "cpu", 3) && l[3] != ' ')
				seen = count_line(c, l, &busy, &all) || seen;
	free(text);
	if (!seen)
		return;
	/* clocks of idle cores may go back a little */
	if (c->have_load && all > c->all && busy >= c->busy)
		c->load = (uint32_t)((busy - c->busy) * 1000 / (all - c->all));
	if (!c->have_load || all != c->all) {
		c->busy = busy;
		c->all = all;
	}
	out->out_load = c->have_load ? c->load : PST_UNKNOWN32;
	c->have_load = true;
}

/* What cannot be had without taking it from somebody; the page cache can. */
static void read_memory(const struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	uint64_t total, free_kb, files, shmem, slab;
	char text[8192];

	if (c->numa) {
		if (device_text(c->root, text, sizeof(text),
				"/sys/devices/system/node/node%d/meminfo", c->dev.place.node) <= 0)
			return;
	} else if (device_text(c->root, text, sizeof(text), "/proc/meminfo") <= 0) {
		return;
	}
	total = device_field(text, "MemTotal:");
	free_kb = device_field(text, "MemFree:");
	files = device_field(text, c->numa ? "FilePages:" : "Cached:");
	shmem = device_field(text, "Shmem:");
	slab = device_field(text, "SReclaimable:");
	if (total == PST_UNKNOWN)
		return;
	out->out_memory_bytes = total * 1024;
	if (free_kb > total)
		return;
	total -= free_kb;
	if (files != PST_UNKNOWN && shmem != PST_UNKNOWN && files >= shmem &&
	    files - shmem <= total)
		total -= files - shmem;
	if (slab <= total)
		total -= slab;
	out->out_memory_used = total * 1024;
}

static void read_clocks(const struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	uint64_t sum = 0, n = 0, min = PST_UNKNOWN, max = 0;

	for (int cpu = 0; c->cpufreq && cpu < CPU_SETSIZE; cpu++) {
		uint64_t now, low, high;

		if (!CPU_ISSET(cpu, &c->cpus))
			continue;
		now = device_number(c->root, CPUFREQ "scaling_cur_freq", cpu);
		low = device_number(c->root, CPUFREQ "scaling_min_freq", cpu);
		high = device_number(c->root, CPUFREQ "scaling_max_freq", cpu);
		if (now != PST_UNKNOWN) {
			sum += now;
			n++;
		}
		min = low < min ? low : min;
		max = high != PST_UNKNOWN && high > max ? high : max;
	}
	if (n)
		out->out_clock_mhz = device_u32(sum / n / 1000);
	if (min != PST_UNKNOWN)
		out->out_clock_min_mhz = device_u32(min / 1000);
	if (max)
		out->out_clock_max_mhz = device_u32(max / 1000);
}

/* Counters wrap, each at its own end; the sum that is told does not. */
static void read_energy(struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	int64_t now = now_ns();

	if (!c->nzones)
		return;
	for (uint32_t i = 0; i < c->nzones; i++) {
		struct rapl_zone *z = &c->zone[i];
		uint64_t e = device_number(c->root, RAPL "energy_uj", z->name);

		if (e == PST_UNKNOWN)
			return;
		if (z->have)
			c->energy_uj +=
				e >= z->last_uj ? e - z->last_uj : e + z->range_uj - z->last_uj;
		z->last_uj = e;
		z->have = true;
	}
	if (c->power_ns && now - c->power_ns >= SPAN_NS)
		c->power_mw = (uint32_t)((c->energy_uj - c->power_uj) * 1000000 /
					 (uint64_t)(now - c->power_ns));
	if (!c->power_ns || now - c->power_ns >= SPAN_NS) {
		c->power_uj = c->energy_uj;
		c->power_ns = now;
	}
	out->out_energy_uj = c->energy_uj;
	out->out_power_mw = c->power_mw;
}

static void read_cap(const struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	uint64_t cap = 0, max = 0;

	for (uint32_t i = 0; i < c->nzones; i++) {
		const struct rapl_zone *z = &c->zone[i];
		uint64_t limit, most;

		if (z->constraint < 0)
			return;
		limit = device_number(c->root, RAPL "constraint_%d_power_limit_uw", z->name,
				      z->constraint);
		most = device_number(c->root, RAPL "constraint_%d_max_power_uw", z->name,
				     z->constraint);
		if (limit == PST_UNKNOWN)
			return;
		cap += limit;
		/* firmware that does not tell says nothing, or 0 */
		max = !most || most == PST_UNKNOWN || max == PST_UNKNOWN ? PST_UNKNOWN : max + most;
	}
	if (!c->nzones)
		return;
	out->out_cap_mw = device_u32(cap / 1000);
	out->out_cap_min_mw = CAP_MIN_MW * c->nzones;
	if (max != PST_UNKNOWN)
		out->out_cap_max_mw = device_u32(max / 1000);
}

static void read_temperature(const struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	uint64_t hottest = 0;

	for (uint32_t i = 0; i < c->nsensors; i++) {
		uint64_t t = device_number(c->root, "/sys/class/hwmon/%s_input", c->sensor[i]);

		hottest = t != PST_UNKNOWN && t > hottest ? t : hottest;
	}
	if (hottest)
		out->out_temperature_mc = device_u32(hottest);
}

/* How often cores were slowed down because they, or their package, were too hot. */
static uint64_t slowed(const struct cpu_device *c)
{
	static const char *const of[] = {"core", "package"};
	uint64_t sum = 0;

	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		for (int i = 0; CPU_ISSET(cpu, &c->cpus) && i < 2; i++) {
			uint64_t n = device_number(
				c->root, CPU "thermal_throttle/%s_throttle_count", cpu, of[i]);

			sum += n != PST_UNKNOWN ? n : 0;
		}
	}
	return sum;
}

static void judge(struct cpu_device *c, struct pst_cmd_device_stat *out)
{
	uint64_t heat = slowed(c);
	int64_t now = now_ns();

	if (heat > c->slowed)
		c->slowed_ns = now;
	c->slowed = heat;
	if (c->slowed_ns && now - c->slowed_ns < SLOWED_NS) {
		out->out_health = PST_HEALTH_THROTTLED;
		snprintf((char *)out->out_note, sizeof(out->out_note),
			 "its cores were slowed down because of heat; look at fans and air");
	} else if (c->hw_max_mhz != PST_UNKNOWN32 && out->out_clock_max_mhz < c->hw_max_mhz) {
		out->out_health = PST_HEALTH_THROTTLED;
		snprintf((char *)out->out_note, sizeof(out->out_note),
			 "its clock is held at %u of %u MHz%s", out->out_clock_max_mhz,
			 c->hw_max_mhz,
			 c->dev.found ? "; penstockctl power reset lifts what was set" : "");
	}
}

static bool cpu_read(struct device *dev, bool wait, struct pst_cmd_device_stat *out)
{
	struct cpu_device *c = (struct cpu_device *)dev;

	/* nothing here tells of itself, so it is read when somebody asks */
	if (!wait)
		return false;
	read_load(c, out);
	read_memory(c, out);
	read_clocks(c, out);
	read_energy(c, out);
	read_cap(c, out);
	read_temperature(c, out);
	judge(c, out);
	return true;
}

static void cpu_free(struct device *dev)
{
	free(dev);
}

static const struct device_ops cpu_ops = {
	.kind = PST_DEVICE_CPU,
	.name = "cpu",
	.read = cpu_read,
	.check = cpu_power_check,
	.find = cpu_power_find,
	.set = cpu_power_set,
	.put_back = cpu_power_put_back,
	.free = cpu_free,
};

/* What there is: nodes, their cores, and the files that tell of them. */

static void find_name(struct cpu_device *c, int first)
{
	char *text = slurp(c->root, "/proc/cpuinfo"), *at = text, *end;
	char mark[32];

	if (!text)
		return;
	/* the paragraph of the first core; other architectures have other words */
	snprintf(mark, sizeof(mark), "processor\t: %d\n", first);
	at = strstr(text, mark);
	at = strstr(at ? at : text, "model name\t: ");
	if (at) {
		at += strlen("model name\t: ");
		end = strchr(at, '\n');
		if (end)
			*end = '\0';
		snprintf((char *)c->dev.still.out_name, sizeof(c->dev.still.out_name), "%s", at);
	}
	free(text);
}

/* The zones "package-N" and "package-N-die-M" of this node's packages. */
static void find_zones(struct cpu_device *c)
{
	char zone[32], name[64], want[32];

	for (int i = 0; i < RAPL_ZONES && c->nzones < CPU_ZONES; i++) {
		struct rapl_zone *z = &c->zone[c->nzones];
		size_t len;

		snprintf(zone, sizeof(zone), "intel-rapl:%d", i);
		if (device_text(c->root, name, sizeof(name), RAPL "name", zone) <= 0)
			continue;
		len = (size_t)snprintf(want, sizeof(want), "package-%d", c->package);
		if (strncmp(name, want, len) || (name[len] && name[len] != '-'))
			continue;
		*z = (struct rapl_zone){.constraint = -1};
		memcpy(z->name, zone, sizeof(zone));
		z->range_uj = device_number(c->root, RAPL "max_energy_range_uj", zone);
		for (int n = 0; n < 4 && z->constraint < 0; n++)
			if (device_text(c->root, name, sizeof(name), RAPL "constraint_%d_name",
					zone, n) > 0 &&
			    !strcmp(name, "long_term"))
				z->constraint = n;
		c->nzones++;
	}
}

static bool our_sensor(const struct cpu_device *c, int chip, const char *kind, int input)
{
	char label[64], want[32];
	uint64_t node;

	if (!strcmp(kind, "coretemp")) {
		device_text(c->root, label, sizeof(label), "/sys/class/hwmon/hwmon%d/temp%d_label",
			    chip, input);
		snprintf(want, sizeof(want), "Package id %d", c->package);
		return !strcmp(label, want);
	}
	node = device_number(c->root, "/sys/class/hwmon/hwmon%d/device/numa_node", chip);
	return (!strcmp(kind, "k10temp") || !strcmp(kind, "zenpower")) && input == 1 &&
	       (node == PST_UNKNOWN || node == (uint64_t)c->dev.place.node);
}

static void find_sensors(struct cpu_device *c)
{
	char kind[32];

	for (int chip = 0; chip < HWMON_CHIPS; chip++) {
		if (device_text(c->root, kind, sizeof(kind), "/sys/class/hwmon/hwmon%d/name",
				chip) <= 0)
			continue;
		for (int input = 1; input <= 8 && c->nsensors < CPU_SENSORS; input++)
			if (our_sensor(c, chip, kind, input))
				snprintf(c->sensor[c->nsensors++], sizeof(c->sensor[0]),
					 "hwmon%d/temp%d", chip, input);
	}
}

static void find_clocks(struct cpu_device *c)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		uint64_t low, high;

		if (!CPU_ISSET(cpu, &c->cpus))
			continue;
		low = device_number(c->root, CPUFREQ "cpuinfo_min_freq", cpu);
		high = device_number(c->root, CPUFREQ "cpuinfo_max_freq", cpu);
		if (low == PST_UNKNOWN || high == PST_UNKNOWN)
			continue;
		/* cores may differ: the range is what some core can do */
		if (!c->cpufreq || device_u32(low / 1000) < c->hw_min_mhz)
			c->hw_min_mhz = device_u32(low / 1000);
		if (!c->cpufreq || device_u32(high / 1000) > c->hw_max_mhz)
			c->hw_max_mhz = device_u32(high / 1000);
		c->cpufreq = true;
	}
}

static int first_of(const cpu_set_t *set)
{
	int cpu = 0;

	while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, set))
		cpu++;
	return cpu;
}

static int add_node(struct devices *devices, const struct device_world *world, int node, bool numa,
		    const cpu_set_t *cpus, uint64_t *packages)
{
	struct cpu_device *c = calloc(1, sizeof(*c));
	int rc = c ? 0 : -ENOMEM, first = first_of(cpus);
	uint64_t package;

	if (!rc)
		rc = devices_add(devices, &c->dev, &cpu_ops, node, (uint32_t)CPU_COUNT(cpus));
	if (rc) {
		free(c);
		return rc;
	}
	c->root = world->root;
	c->numa = numa;
	c->cpus = *cpus;
	c->power_mw = c->hw_min_mhz = c->hw_max_mhz = PST_UNKNOWN32;
	package = device_number(c->root, CPU "topology/physical_package_id", first);
	c->package = package < 64 ? (int)package : 0;
	find_name(c, first);
	find_clocks(c);
	find_sensors(c);
	if (!(*packages & 1ull << c->package))
		find_zones(c);
	*packages |= 1ull << c->package;
	c->slowed = slowed(c);
	read_load(c, &c->dev.last);
	return 0;
}

static void allowed_cpus(const struct device_world *world, cpu_set_t *out)
{
	if (world->allowed)
		*out = *world->allowed;
	else if (sched_getaffinity(0, sizeof(*out), out))
		memset(out, 0xff, sizeof(*out));
}

int device_cpus_open(struct devices *devices, const struct device_world *world,
		     struct pst_error *err)
{
	cpu_set_t allowed, nodes, cpus;
	uint64_t packages = 0;
	char list[4096];
	int rc = 0;
	bool numa = device_text(world->root, list, sizeof(list),
				"/sys/devices/system/node/online") > 0 &&
		    !device_cpulist(list, &nodes);

	allowed_cpus(world, &allowed);
	if (!numa)
		/* a kernel without NUMA: one node of all cores */
		return add_node(devices, world, 0, false, &allowed, &packages)
			       ? pst_fail(err, -ENOMEM, "devices: no memory")
			       : 0;
	for (int node = 0; node < CPU_SETSIZE && !rc; node++) {
		if (!CPU_ISSET(node, &nodes) ||
		    device_text(world->root, list, sizeof(list),
				"/sys/devices/system/node/node%d/cpulist", node) < 0 ||
		    device_cpulist(list, &cpus))
			continue;
		CPU_AND(&cpus, &cpus, &allowed);
		if (CPU_COUNT(&cpus))
			rc = add_node(devices, world, node, true, &cpus, &packages);
	}
	return rc ? pst_fail(err, rc, "devices: no memory") : 0;
}
