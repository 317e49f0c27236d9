/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libnvidia-ml.so.1 of the stand-in: what daemon/devices/nvml.h declares, over the control file.
 * With STANDIN_OLD it lacks all that daemon/devices/nvml.h calls optional, as a driver of long ago.
 */
#include "daemon/devices/nvml.h"
#include "selftests/gpu/standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))

/* Prototypes are those that the daemon has. */
#define DECLARE(ret, name, args) API ret nvml##name args;
NVML_CALLS(DECLARE, DECLARE)
#undef DECLARE

static struct standin *s;
static _Atomic int inits;

/* Leaves the function when the call is to fail, as one does for which init was not called. */
#define ENTER(fn)                                        \
	do {                                             \
		uint32_t rc_;                            \
                                                         \
		if (!inits)                              \
			return NVML_ERROR_UNINITIALIZED; \
		rc_ = standin_enter(s, STANDIN_##fn);    \
		if (rc_)                                 \
			return (int)rc_;                 \
	} while (0)
#define ENTER_GPU(fn)                                      \
	struct standin_gpu *g = (struct standin_gpu *)dev; \
	ENTER(fn);                                         \
	if (!valid(g))                                     \
		return NVML_ERROR_INVALID_ARGUMENT;        \
	if (g->lost)                                       \
	return NVML_ERROR_GPU_IS_LOST

static int valid(const struct standin_gpu *g)
{
	for (uint32_t i = 0; i < s->ngpus; i++)
		if (g == &s->gpu[i])
			return 1;
	return 0;
}

API int nvmlInit_v2(void)
{
	uint32_t rc;

	s = standin_find();
	if (!s)
		return NVML_ERROR_DRIVER_NOT_LOADED;
	rc = standin_enter(s, STANDIN_nvmlInit_v2);
	if (!rc)
		inits++;
	return (int)rc;
}

API int nvmlShutdown(void)
{
	ENTER(nvmlShutdown);
	inits--;
	return 0;
}

API const char *nvmlErrorString(int rc)
{
	switch (rc) {
	case NVML_SUCCESS:
		return "Success";
	case NVML_ERROR_NOT_SUPPORTED:
		return "Not Supported";
	case NVML_ERROR_NO_PERMISSION:
		return "Insufficient Permissions";
	case NVML_ERROR_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case NVML_ERROR_GPU_IS_LOST:
		return "GPU is lost";
	default:
		return "Unknown Error";
	}
}

API int nvmlDeviceGetCount_v2(unsigned int *n)
{
	ENTER(nvmlDeviceGetCount_v2);
	*n = s->ngpus;
	return 0;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvml_device *dev)
{
	ENTER(nvmlDeviceGetHandleByIndex_v2);
	if (i >= s->ngpus)
		return NVML_ERROR_INVALID_ARGUMENT;
	*dev = (nvml_device)&s->gpu[i];
	return 0;
}

API int nvmlDeviceGetName(nvml_device dev, char *to, unsigned int len)
{
	ENTER_GPU(nvmlDeviceGetName);
	snprintf(to, len, "%s", g->name);
	return 0;
}

API int nvmlDeviceGetUUID(nvml_device dev, char *to, unsigned int len)
{
	ENTER_GPU(nvmlDeviceGetUUID);
	snprintf(to, len, "%s", g->uuid);
	return 0;
}

API int nvmlDeviceGetMemoryInfo(nvml_device dev, struct nvml_memory *to)
{
	ENTER_GPU(nvmlDeviceGetMemoryInfo);
	to->total = g->memory_bytes;
	to->used = standin_used(s, (uint32_t)(g - s->gpu));
	to->free = to->total - to->used;
	return 0;
}

#ifndef STANDIN_OLD
API int nvmlDeviceGetHandleByUUID(const char *uuid, nvml_device *dev)
{
	ENTER(nvmlDeviceGetHandleByUUID);
	for (uint32_t i = 0; i < s->ngpus; i++) {
		if (strcmp(s->gpu[i].uuid, uuid))
			continue;
		*dev = (nvml_device)&s->gpu[i];
		return s->gpu[i].lost ? NVML_ERROR_GPU_IS_LOST : 0;
	}
	return NVML_ERROR_NOT_FOUND;
}

API int nvmlDeviceGetPciInfo_v3(nvml_device dev, struct nvml_pci *to)
{
	ENTER_GPU(nvmlDeviceGetPciInfo_v3);
	memset(to, 0, sizeof(*to));
	snprintf(to->bus_id, sizeof(to->bus_id), "%s", g->pci);
	return 0;
}

API int nvmlDeviceGetUtilizationRates(nvml_device dev, struct nvml_utilization *to)
{
	ENTER_GPU(nvmlDeviceGetUtilizationRates);
	to->gpu = g->load_percent;
	to->memory = g->load_percent / 2;
	return 0;
}

/* Functions that tell one figure. */
#define TELLS(fn, type, what)                 \
	API int fn(nvml_device dev, type *to) \
	{                                     \
		ENTER_GPU(fn);                \
		*to = (type)(what);           \
		return 0;                     \
	}
TELLS(nvmlDeviceGetPowerUsage, unsigned int, g->power_mw)
TELLS(nvmlDeviceGetPowerManagementLimit, unsigned int, g->cap_mw)
TELLS(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, g->energy_mj)
TELLS(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, g->throttle)
TELLS(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, g->throttle)
TELLS(nvmlDeviceGetNumGpuCores, unsigned int, g->cores)

API int nvmlDeviceGetPowerManagementLimitConstraints(nvml_device dev, unsigned int *min,
						     unsigned int *max)
{
	ENTER_GPU(nvmlDeviceGetPowerManagementLimitConstraints);
	*min = g->cap_min_mw;
	*max = g->cap_max_mw;
	return 0;
}

API int nvmlDeviceSetPowerManagementLimit(nvml_device dev, unsigned int mw)
{
	ENTER_GPU(nvmlDeviceSetPowerManagementLimit);
	if (g->no_permission)
		return NVML_ERROR_NO_PERMISSION;
	if (mw < g->cap_min_mw || mw > g->cap_max_mw)
		return NVML_ERROR_INVALID_ARGUMENT;
	g->cap_mw = mw;
	return 0;
}

API int nvmlDeviceGetClockInfo(nvml_device dev, int type, unsigned int *to)
{
	uint32_t now;

	ENTER_GPU(nvmlDeviceGetClockInfo);
	now = g->clock_mhz;
	if (g->locked_max_mhz && now > g->locked_max_mhz)
		now = g->locked_max_mhz;
	*to = type == NVML_CLOCK_MEM ? g->memory_clock_mhz : now;
	return 0;
}

API int nvmlDeviceGetMaxClockInfo(nvml_device dev, int type, unsigned int *to)
{
	ENTER_GPU(nvmlDeviceGetMaxClockInfo);
	*to = type == NVML_CLOCK_MEM ? g->memory_clock_mhz : g->clock_max_mhz;
	return 0;
}

API int nvmlDeviceGetMinMaxClockOfPState(nvml_device dev, int type, int pstate, unsigned int *min,
					 unsigned int *max)
{
	ENTER_GPU(nvmlDeviceGetMinMaxClockOfPState);
	if (pstate)
		return NVML_ERROR_NOT_SUPPORTED;
	*min = type == NVML_CLOCK_MEM ? g->memory_clock_mhz : g->clock_min_mhz;
	*max = type == NVML_CLOCK_MEM ? g->memory_clock_mhz : g->clock_max_mhz;
	return 0;
}

API int nvmlDeviceSetGpuLockedClocks(nvml_device dev, unsigned int min, unsigned int max)
{
	ENTER_GPU(nvmlDeviceSetGpuLockedClocks);
	if (g->no_permission)
		return NVML_ERROR_NO_PERMISSION;
	if (min > max)
		return NVML_ERROR_INVALID_ARGUMENT;
	g->locked_min_mhz = min;
	g->locked_max_mhz = max;
	return 0;
}

API int nvmlDeviceResetGpuLockedClocks(nvml_device dev)
{
	ENTER_GPU(nvmlDeviceResetGpuLockedClocks);
	if (g->no_permission)
		return NVML_ERROR_NO_PERMISSION;
	g->locked_min_mhz = g->locked_max_mhz = 0;
	return 0;
}

API int nvmlDeviceGetTemperature(nvml_device dev, int sensor, unsigned int *to)
{
	ENTER_GPU(nvmlDeviceGetTemperature);
	if (sensor)
		return NVML_ERROR_INVALID_ARGUMENT;
	*to = g->temperature_c;
	return 0;
}

API int nvmlDeviceGetTotalEccErrors(nvml_device dev, int type, int counter, unsigned long long *to)
{
	ENTER_GPU(nvmlDeviceGetTotalEccErrors);
	if (counter != NVML_VOLATILE_ECC)
		return NVML_ERROR_NOT_SUPPORTED;
	*to = type == NVML_MEMORY_ERROR_CORRECTED ? g->ecc_corrected : g->ecc_uncorrected;
	return 0;
}

API int nvmlDeviceGetCudaComputeCapability(nvml_device dev, int *major, int *minor)
{
	ENTER_GPU(nvmlDeviceGetCudaComputeCapability);
	*major = (int)g->major;
	*minor = (int)g->minor;
	return 0;
}

/* An event set: which XIDs of each registered GPU were told already. */
struct set {
	int registered[STANDIN_GPUS];
	uint64_t seen[STANDIN_GPUS];
};

API int nvmlEventSetCreate(nvml_event_set *to)
{
	struct set *set;

	ENTER(nvmlEventSetCreate);
	set = calloc(1, sizeof(*set));
	if (!set)
		return NVML_ERROR_UNKNOWN;
	*to = (nvml_event_set)set;
	return 0;
}

API int nvmlDeviceRegisterEvents(nvml_device dev, unsigned long long types, nvml_event_set events)
{
	struct set *set = (struct set *)events;

	ENTER_GPU(nvmlDeviceRegisterEvents);
	if (!(types & NVML_EVENT_XID))
		return NVML_ERROR_NOT_SUPPORTED;
	set->registered[g - s->gpu] = 1;
	set->seen[g - s->gpu] = g->xids;
	return 0;
}

static int next_xid(struct set *set, struct nvml_event *to)
{
	for (uint32_t i = 0; i < s->ngpus; i++) {
		struct standin_gpu *g = &s->gpu[i];

		if (!set->registered[i] || set->seen[i] == g->xids)
			continue;
		memset(to, 0, sizeof(*to));
		to->device = (nvml_device)g;
		to->type = NVML_EVENT_XID;
		to->data = g->xid[set->seen[i]++ % STANDIN_XIDS];
		return 1;
	}
	return 0;
}

API int nvmlEventSetWait_v2(nvml_event_set events, struct nvml_event *to, unsigned int ms)
{
	ENTER(nvmlEventSetWait_v2);
	for (unsigned int waited = 0;; waited++) {
		if (next_xid((struct set *)events, to))
			return 0;
		if (waited >= ms)
			return NVML_ERROR_TIMEOUT;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

API int nvmlEventSetFree(nvml_event_set events)
{
	ENTER(nvmlEventSetFree);
	free((struct set *)events);
	return 0;
}
#endif
