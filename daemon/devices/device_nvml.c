/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of NVML behind a GPU's figures and settings. Any of them may hang. */
#include "daemon/devices/device_gpu.h"

#include <stdio.h>
#include <string.h>

/* Has the device, not the figure, failed? Others say "not supported" and the like. */
static bool gone(int rc)
{
	return rc == NVML_ERROR_GPU_IS_LOST || rc == NVML_ERROR_RESET_REQUIRED ||
	       rc == NVML_ERROR_GPU_NOT_FOUND || rc == NVML_ERROR_NOT_FOUND ||
	       rc == NVML_ERROR_UNKNOWN;
}

/* Was figure @call of @g read? The first failure that matters stays in @worst. */
#define GOT(call, ...) \
	got(g->gpus->nvml.call ? g->gpus->nvml.call(g->handle, __VA_ARGS__) : -1, &worst)

static bool got(int rc, int *worst)
{
	if (gone(rc) && !*worst)
		*worst = rc;
	return rc == NVML_SUCCESS;
}

/* FP32 cores of a multiprocessor (CUDA C++ Programming Guide, "Arithmetic Instructions"). */
static uint32_t cores_each(int major, int minor)
{
	return major == 7 || (major == 8 && minor == 0) || major == 6 ? 64 : 128;
}

static int node_of(const struct gpu *g, const char *bus_id)
{
	unsigned int domain, bus, device;
	uint64_t node;

	if (sscanf(bus_id, "%x:%x:%x", &domain, &bus, &device) != 3)
		return PST_ANY;
	/* -1 there means unknown too */
	node = device_number(g->gpus->root, "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node",
			     domain, bus, device);
	return node < 4096 ? (int)node : PST_ANY;
}

static int find_handle(struct gpu *g)
{
	nvml_device handle;
	int rc = g->gpus->nvml.DeviceGetHandleByIndex_v2(g->index, &handle);

	if (!rc)
		g->handle = handle;
	return rc;
}

int gpu_describe(struct gpu *g, struct pst_cmd_device_stat *still)
{
	unsigned int cores, min, max;
	int worst = 0, major, minor, rc;
	struct nvml_pci pci;

	rc = find_handle(g);
	if (rc)
		return rc;
	GOT(DeviceGetName, (char *)still->out_name, sizeof(still->out_name));
	if (GOT(DeviceGetUUID, g->uuid, sizeof(g->uuid)))
		memcpy(still->out_uuid, g->uuid, sizeof(still->out_uuid));
	if (GOT(DeviceGetPciInfo_v3, &pci))
		still->out_node = node_of(g, pci.bus_id);
	if (GOT(DeviceGetNumGpuCores, &cores) &&
	    GOT(DeviceGetCudaComputeCapability, &major, &minor))
		still->out_cores = cores / cores_each(major, minor);
	if (GOT(DeviceGetMinMaxClockOfPState, NVML_CLOCK_SM, 0, &min, &max)) {
		still->out_clock_min_mhz = min;
		still->out_clock_max_mhz = max;
	} else if (GOT(DeviceGetMaxClockInfo, NVML_CLOCK_SM, &max)) {
		still->out_clock_max_mhz = max;
	}
	if (GOT(DeviceGetPowerManagementLimitConstraints, &min, &max)) {
		still->out_cap_min_mw = min;
		still->out_cap_max_mw = max;
	}
	return 0;
}

static void read_power(struct gpu *g, struct pst_cmd_device_stat *out, int *w)
{
	unsigned long long mj;
	unsigned int v;
	int worst = *w;

	if (GOT(DeviceGetPowerUsage, &v))
		out->out_power_mw = v;
	if (GOT(DeviceGetPowerManagementLimit, &v))
		out->out_cap_mw = v;
	if (GOT(DeviceGetTotalEnergyConsumption, &mj))
		out->out_energy_uj = mj * 1000;
	if (GOT(DeviceGetTemperature, NVML_TEMPERATURE_GPU, &v))
		out->out_temperature_mc = v * 1000;
	*w = worst;
}

static void read_clocks(struct gpu *g, struct pst_cmd_device_stat *out, uint64_t *slow, int *w)
{
	unsigned long long reasons;
	unsigned int v;
	int worst = *w;

	if (GOT(DeviceGetClockInfo, NVML_CLOCK_SM, &v))
		out->out_clock_mhz = v;
	if (GOT(DeviceGetClockInfo, NVML_CLOCK_MEM, &v))
		out->out_memory_clock_mhz = v;
	if (GOT(DeviceGetCurrentClocksEventReasons, &reasons) ||
	    GOT(DeviceGetCurrentClocksThrottleReasons, &reasons))
		*slow = reasons;
	*w = worst;
}

static void read_errors(struct gpu *g, struct pst_cmd_device_stat *out, int *w)
{
	unsigned long long n;
	int worst = *w;

	if (GOT(DeviceGetTotalEccErrors, NVML_MEMORY_ERROR_CORRECTED, NVML_VOLATILE_ECC, &n))
		out->out_ecc_corrected = n;
	if (GOT(DeviceGetTotalEccErrors, NVML_MEMORY_ERROR_UNCORRECTED, NVML_VOLATILE_ECC, &n))
		out->out_ecc_uncorrected = n;
	*w = worst;
}

int gpu_figures(struct gpu *g, struct pst_cmd_device_stat *out, uint64_t *slow)
{
	struct nvml_utilization load;
	struct nvml_memory memory;
	nvml_device again;
	int worst = 0;

	/* one that was lost may be back under another handle */
	if (g->rc && g->gpus->nvml.DeviceGetHandleByUUID &&
	    !g->gpus->nvml.DeviceGetHandleByUUID(g->uuid, &again))
		g->handle = again;
	if (!g->handle)
		worst = find_handle(g);
	if (worst)
		return worst;
	*slow = 0;
	if (GOT(DeviceGetMemoryInfo, &memory)) {
		out->out_memory_bytes = memory.total;
		out->out_memory_used = memory.used;
	}
	if (worst)
		return worst;
	if (GOT(DeviceGetUtilizationRates, &load))
		out->out_load = load.gpu * 10;
	read_power(g, out, &worst);
	read_clocks(g, out, slow, &worst);
	read_errors(g, out, &worst);
	/* a figure may fail for reasons of its own; a lost device says so for all of them */
	return worst == NVML_ERROR_UNKNOWN ? 0 : worst;
}

int gpu_wish(struct gpu *g, enum gpu_wish wish, uint32_t a, uint32_t b)
{
	const struct nvml *nvml = &g->gpus->nvml;

	switch (wish) {
	case WISH_CAP:
		return nvml->DeviceSetPowerManagementLimit(g->handle, a);
	case WISH_CLOCK:
		return nvml->DeviceSetGpuLockedClocks(g->handle, a, b);
	default:
		return nvml->DeviceResetGpuLockedClocks(g->handle);
	}
}
