/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_cpu.h - what device_cpu.c (which reads) and device_cpu_power.c (which sets) share.
 */
#ifndef DAEMON_DEVICE_CPU_H
#define DAEMON_DEVICE_CPU_H

#include "daemon/devices/device.h"

#include <time.h>

#define CPU	"/sys/devices/system/cpu/cpu%d/"
#define CPUFREQ CPU "cpufreq/"
#define RAPL	"/sys/class/powercap/%s/"

#define RAPL_ZONES  32
#define CPU_ZONES   4
#define CPU_SENSORS 4
#define HWMON_CHIPS 64
/* RAPL names no least; less than this is a mistake of units. */
#define CAP_MIN_MW 5000
/* How long a core that was too hot is said to have been. */
#define SLOWED_NS 10000000000ll

struct rapl_zone {
	char name[32];	/* "intel-rapl:0" */
	int constraint; /* that is called long_term; -1: none */
	uint64_t range_uj, last_uj;
	bool have;
};

struct cpu_device {
	struct device dev;
	const char *root;
	bool numa, cpufreq;
	int package;
	cpu_set_t cpus;
	uint32_t hw_min_mhz, hw_max_mhz;
	struct rapl_zone zone[CPU_ZONES];
	uint32_t nzones, nsensors;
	char sensor[CPU_SENSORS][32]; /* "hwmon2/temp1" */
	/* what was read before, for differences */
	bool have_load;
	uint64_t busy, all, energy_uj, power_uj, slowed;
	int64_t power_ns, slowed_ns;
	uint32_t load, power_mw;
};

int cpu_power_check(struct device *dev, const struct pst_cmd_device_power *how,
		    struct pst_error *err);
int cpu_power_find(struct device *dev, const struct pst_cmd_device_power *how, json_t *found,
		   struct pst_error *err);
int cpu_power_set(struct device *dev, const struct pst_cmd_device_power *how,
		  struct pst_error *err);
int cpu_power_put_back(struct device *dev, const json_t *found, struct pst_error *err);

#endif /* DAEMON_DEVICE_CPU_H */
