/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting the cores of a node: files of cpufreq and powercap. What was found is kept as
 * {"files": [[path, value], ...]}, paths without the root, to be written back in that order.
 */
#include "daemon/devices/device_cpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int check_cap(const struct cpu_device *c, uint32_t cap_mw, struct pst_error *err)
{
	struct pst_cmd_device_stat s = c->dev.last;
	uint64_t max = 0;

	if (!c->nzones)
		return pst_fail(
			err, -ENODEV,
			"cpu:%u has no cap that can be set: the kernel shows no RAPL zone of "
			"it; load its driver with: modprobe intel_rapl_msr",
			c->dev.place.index);
	for (uint32_t i = 0; i < c->nzones; i++) {
		uint64_t most = PST_UNKNOWN;

		if (c->zone[i].constraint < 0)
			return pst_fail(err, -ENODEV,
					"cpu:%u has no cap that can be set: %s tells energy only",
					c->dev.place.index, c->zone[i].name);
		most = device_number(c->root, RAPL "constraint_%d_max_power_uw", c->zone[i].name,
				     c->zone[i].constraint);
		max = !most || most == PST_UNKNOWN || max == PST_UNKNOWN ? PST_UNKNOWN : max + most;
	}
	s.out_cap_min_mw = CAP_MIN_MW * c->nzones;
	if (cap_mw < s.out_cap_min_mw || (max != PST_UNKNOWN && cap_mw > max / 1000))
		return pst_fail(err, -ERANGE,
				"cpu:%u cannot be held at %u W: say %u W or more%s%.0llu%s",
				c->dev.place.index, cap_mw / 1000, s.out_cap_min_mw / 1000,
				max == PST_UNKNOWN ? "" : ", and at most ",
				max == PST_UNKNOWN ? 0ull : (unsigned long long)max / 1000000,
				max == PST_UNKNOWN ? "" : " W");
	return 0;
}

int cpu_power_check(struct device *dev, const struct pst_cmd_device_power *how,
		    struct pst_error *err)
{
	const struct cpu_device *c = (const struct cpu_device *)dev;
	int rc = 0;

	if (how->flags & PST_DEVICE_POWER_CAP)
		rc = check_cap(c, how->cap_mw, err);
	if (rc || !(how->flags & PST_DEVICE_POWER_CLOCK))
		return rc;
	if (!c->cpufreq)
		return pst_fail(err, -ENODEV,
				"cpu:%u has no clock that can be set: the kernel has no cpufreq "
				"driver for it (in a virtual machine the host sets it)",
				dev->place.index);
	if (how->clock_min_mhz < c->hw_min_mhz || how->clock_max_mhz > c->hw_max_mhz)
		return pst_fail(err, -ERANGE, "cpu:%u runs at %u to %u MHz; say a range within",
				dev->place.index, c->hw_min_mhz, c->hw_max_mhz);
	return 0;
}

/* A file and what is to be in it. */
struct setting {
	char path[128], value[32];
};

/* Each file that @how changes, in the order in which the kernel takes the values. */
typedef int setting_fn(void *ctx, const struct setting *s);

static int each_cap(const struct cpu_device *c, uint32_t cap_mw, setting_fn *fn, void *ctx)
{
	struct setting s;
	int rc = 0;

	for (uint32_t i = 0; i < c->nzones && !rc; i++) {
		snprintf(s.path, sizeof(s.path), RAPL "constraint_%d_power_limit_uw",
			 c->zone[i].name, c->zone[i].constraint);
		snprintf(s.value, sizeof(s.value), "%llu", cap_mw * 1000ull / c->nzones);
		rc = fn(ctx, &s);
		/* a zone that is off has a limit and does not keep it */
		snprintf(s.path, sizeof(s.path), RAPL "enabled", c->zone[i].name);
		snprintf(s.value, sizeof(s.value), "1");
		if (!rc && device_number(c->root, "%s", s.path) == 0)
			rc = fn(ctx, &s);
	}
	return rc;
}

static int each_clock(const struct cpu_device *c, const struct pst_cmd_device_power *how,
		      setting_fn *fn, void *ctx)
{
	int rc = 0;

	for (int cpu = 0; cpu < CPU_SETSIZE && !rc; cpu++) {
		struct setting low, high;
		bool up;

		if (!CPU_ISSET(cpu, &c->cpus) ||
		    device_number(c->root, CPUFREQ "scaling_max_freq", cpu) == PST_UNKNOWN)
			continue;
		snprintf(low.path, sizeof(low.path), CPUFREQ "scaling_min_freq", cpu);
		snprintf(low.value, sizeof(low.value), "%u", how->clock_min_mhz * 1000);
		snprintf(high.path, sizeof(high.path), CPUFREQ "scaling_max_freq", cpu);
		snprintf(high.value, sizeof(high.value), "%u", how->clock_max_mhz * 1000);
		/* kernels refuse a least above the most, also for a moment */
		up = how->clock_min_mhz * 1000ull > device_number(c->root, "%s", high.path);
		rc = fn(ctx, up ? &high : &low);
		if (!rc)
			rc = fn(ctx, up ? &low : &high);
	}
	return rc;
}

static int each_setting(const struct cpu_device *c, const struct pst_cmd_device_power *how,
			setting_fn *fn, void *ctx)
{
	int rc = 0;

	if (how->flags & PST_DEVICE_POWER_CAP)
		rc = each_cap(c, how->cap_mw, fn, ctx);
	if (!rc && how->flags & PST_DEVICE_POWER_CLOCK)
		rc = each_clock(c, how, fn, ctx);
	return rc;
}

struct finding {
	const struct cpu_device *c;
	json_t *files;
};

static bool has_path(const json_t *files, const char *path)
{
	json_t *pair;
	size_t i;

	json_array_foreach(files, i, pair)
	{
		if (!strcmp(json_string_value(json_array_get(pair, 0)), path))
			return true;
	}
	return false;
}

static int find_setting(void *ctx, const struct setting *s)
{
	struct finding *f = ctx;
	char value[64];

	if (has_path(f->files, s->path))
		return 0;
	if (device_text(f->c->root, value, sizeof(value), "%s", s->path) <= 0)
		return -ENODEV;
	return json_array_append_new(f->files, json_pack("[s, s]", s->path, value)) ? -ENOMEM : 0;
}

int cpu_power_find(struct device *dev, const struct pst_cmd_device_power *how, json_t *found,
		   struct pst_error *err)
{
	struct finding f = {(const struct cpu_device *)dev, json_object_get(found, "files")};
	int rc = 0;

	if (!f.files) {
		f.files = json_array();
		rc = json_object_set_new(found, "files", f.files) ? -ENOMEM : 0;
	}
	if (!rc)
		rc = each_setting(f.c, how, find_setting, &f);
	return rc ? pst_fail(err, rc, "cpu:%u: what is set cannot be read: %s", dev->place.index,
			     strerror(-rc))
		  : 0;
}

static int write_setting(const struct cpu_device *c, const char *path, const char *value,
			 struct pst_error *err)
{
	int rc = device_write(c->root, path, value);

	if (rc == -EACCES || rc == -EPERM || rc == -EROFS)
		return pst_fail(err, -EPERM,
				"%s%s: %s; penstockd sets it as root only, and under systemd with "
				"ProtectKernelTunables=no",
				c->root, path, strerror(-rc));
	return rc ? pst_fail(err, rc, "%s%s: %s is refused: %s", c->root, path, value,
			     strerror(-rc))
		  : 0;
}

struct changing {
	const struct cpu_device *c;
	json_t *undo; /* pairs, the last change first */
	struct pst_error *err;
};

static int change_setting(void *ctx, const struct setting *s)
{
	struct changing *ch = ctx;
	char before[64];

	if (device_text(ch->c->root, before, sizeof(before), "%s", s->path) <= 0)
		before[0] = '\0';
	if (json_array_insert_new(ch->undo, 0, json_pack("[s, s]", s->path, before)))
		return pst_fail(ch->err, -ENOMEM, "power: no memory");
	return write_setting(ch->c, s->path, s->value, ch->err);
}

/* Pairs that do not go in the first time may do when the others are in: a least above a most. */
static int write_pairs(const struct cpu_device *c, const json_t *pairs, struct pst_error *err)
{
	int rc = 0;

	for (int turn = 0; turn < 2; turn++) {
		json_t *pair;
		size_t i;

		rc = 0;
		json_array_foreach((json_t *)pairs, i, pair)
		{
			const char *path = json_string_value(json_array_get(pair, 0));
			const char *value = json_string_value(json_array_get(pair, 1));
			int one = path && value ? write_setting(c, path, value, turn ? err : NULL)
						: -EINVAL;

			rc = rc ? rc : one;
		}
	}
	return rc;
}

int cpu_power_set(struct device *dev, const struct pst_cmd_device_power *how, struct pst_error *err)
{
	struct changing ch = {(const struct cpu_device *)dev, json_array(), err};
	int rc;

	if (!ch.undo)
		return pst_fail(err, -ENOMEM, "power: no memory");
	rc = each_setting(ch.c, how, change_setting, &ch);
	if (rc)
		write_pairs(ch.c, ch.undo, NULL);
	json_decref(ch.undo);
	return rc;
}

/* Only files that this kind of device could have changed: what is kept was in others' hands. */
static bool ours(const json_t *files)
{
	json_t *pair;
	size_t i;

	json_array_foreach((json_t *)files, i, pair)
	{
		const char *path = json_string_value(json_array_get(pair, 0));

		if (!path || strstr(path, "..") ||
		    (strncmp(path, "/sys/devices/system/cpu/", 24) &&
		     strncmp(path, "/sys/class/powercap/", 20)))
			return false;
	}
	return json_is_array(files);
}

int cpu_power_put_back(struct device *dev, const json_t *found, struct pst_error *err)
{
	const json_t *files = json_object_get(found, "files");

	if (!ours(files))
		return pst_fail(
			err, -EINVAL,
			"cpu:%u: what an earlier daemon kept makes no sense; set it by hand",
			dev->place.index);
	return write_pairs((const struct cpu_device *)dev, files, err);
}
