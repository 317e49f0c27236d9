/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvml.h - NVIDIA's management library, opened when we run: there may be no driver here.
 *
 * Prototypes, structs and numbers are facts of NVML's public reference (docs.nvidia.com/deploy/
 * nvml-api, and the bindings that NVIDIA publishes as nvidia-ml-py); its header is not needed.
 * All calls but the one for sentences return 0 or NVML_ERROR_*, and may be made by any thread.
 *
 * NVML_CALLS(REQUIRED, OPTIONAL) is the one table: an optional call that the library lacks is NULL.
 */
#ifndef DAEMON_NVML_H
#define DAEMON_NVML_H

#include <penstock/error.h>

#define NVML_LIBRARY "libnvidia-ml.so.1"

enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_RESET_REQUIRED = 16,
	NVML_ERROR_GPU_NOT_FOUND = 28,
	NVML_ERROR_UNKNOWN = 999,
};

enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };
enum { NVML_MEMORY_ERROR_CORRECTED = 0, NVML_MEMORY_ERROR_UNCORRECTED = 1 };
enum { NVML_VOLATILE_ECC = 0 }; /* since the driver was loaded */
enum { NVML_TEMPERATURE_GPU = 0 };

#define NVML_EVENT_XID 0x8ull

/* Why clocks are lower than they could be. */
#define NVML_SLOW_SW_POWER    0x04ull
#define NVML_SLOW_HW	      0x08ull
#define NVML_SLOW_SW_THERMAL  0x20ull
#define NVML_SLOW_HW_THERMAL  0x40ull
#define NVML_SLOW_POWER_BRAKE 0x80ull

typedef struct nvml_device_st *nvml_device;
typedef struct nvml_event_set_st *nvml_event_set;

struct nvml_memory {
	unsigned long long total, free, used;
};
struct nvml_utilization {
	unsigned int gpu, memory; /* per cent */
};
struct nvml_pci {
	char bus_id_legacy[16];
	unsigned int domain, bus, device, pci_device, pci_subsystem;
	char bus_id[32]; /* "00000000:3B:00.0" */
};
struct nvml_event {
	nvml_device device;
	unsigned long long type, data;
	unsigned int gpu_instance, compute_instance;
};

/* clang-format off */
#define NVML_CALLS(REQUIRED, OPTIONAL) \
	REQUIRED(int, Init_v2, (void)) \
	REQUIRED(int, Shutdown, (void)) \
	REQUIRED(const char *, ErrorString, (int rc)) \
	REQUIRED(int, DeviceGetCount_v2, (unsigned int *n)) \
	REQUIRED(int, DeviceGetHandleByIndex_v2, (unsigned int i, nvml_device *dev)) \
	REQUIRED(int, DeviceGetName, (nvml_device dev, char *to, unsigned int len)) \
	REQUIRED(int, DeviceGetUUID, (nvml_device dev, char *to, unsigned int len)) \
	REQUIRED(int, DeviceGetMemoryInfo, (nvml_device dev, struct nvml_memory *to)) \
	OPTIONAL(int, DeviceGetHandleByUUID, (const char *uuid, nvml_device *dev)) \
	OPTIONAL(int, DeviceGetPciInfo_v3, (nvml_device dev, struct nvml_pci *to)) \
	OPTIONAL(int, DeviceGetUtilizationRates, (nvml_device dev, struct nvml_utilization *to)) \
	OPTIONAL(int, DeviceGetPowerUsage, (nvml_device dev, unsigned int *mw)) \
	OPTIONAL(int, DeviceGetPowerManagementLimit, (nvml_device dev, unsigned int *mw)) \
	OPTIONAL(int, DeviceGetPowerManagementLimitConstraints, (nvml_device dev, \
		unsigned int *min_mw, unsigned int *max_mw)) \
	OPTIONAL(int, DeviceSetPowerManagementLimit, (nvml_device dev, unsigned int mw)) \
	OPTIONAL(int, DeviceGetClockInfo, (nvml_device dev, int type, unsigned int *mhz)) \
	OPTIONAL(int, DeviceGetMaxClockInfo, (nvml_device dev, int type, unsigned int *mhz)) \
	OPTIONAL(int, DeviceGetMinMaxClockOfPState, (nvml_device dev, int type, int pstate, \
		unsigned int *min_mhz, unsigned int *max_mhz)) \
	OPTIONAL(int, DeviceSetGpuLockedClocks, (nvml_device dev, unsigned int min_mhz, \
		unsigned int max_mhz)) \
	OPTIONAL(int, DeviceResetGpuLockedClocks, (nvml_device dev)) \
	OPTIONAL(int, DeviceGetTemperature, (nvml_device dev, int sensor, unsigned int *celsius)) \
	OPTIONAL(int, DeviceGetTotalEccErrors, (nvml_device dev, int type, int counter, \
		unsigned long long *n)) \
	OPTIONAL(int, DeviceGetCurrentClocksEventReasons, (nvml_device dev, \
		unsigned long long *reasons)) \
	OPTIONAL(int, DeviceGetCurrentClocksThrottleReasons, (nvml_device dev, \
		unsigned long long *reasons)) \
	OPTIONAL(int, DeviceGetTotalEnergyConsumption, (nvml_device dev, unsigned long long *mj)) \
	OPTIONAL(int, DeviceGetNumGpuCores, (nvml_device dev, unsigned int *n)) \
	OPTIONAL(int, DeviceGetCudaComputeCapability, (nvml_device dev, int *major, int *minor)) \
	OPTIONAL(int, EventSetCreate, (nvml_event_set *set)) \
	OPTIONAL(int, DeviceRegisterEvents, (nvml_device dev, unsigned long long types, \
		nvml_event_set set)) \
	OPTIONAL(int, EventSetWait_v2, (nvml_event_set set, struct nvml_event *to, \
		unsigned int ms)) \
	OPTIONAL(int, EventSetFree, (nvml_event_set set)) \
	/* EOL */
/* clang-format on */

struct nvml {
	void *lib;
#define NVML_MEMBER(ret, name, args) ret(*name) args;
	NVML_CALLS(NVML_MEMBER, NVML_MEMBER)
#undef NVML_MEMBER
};

/* Opens @library and finds its calls; -ENOENT: it is not here, -ENOSYS: it lacks a required call.
 */
int nvml_open(const char *library, struct nvml *out, struct pst_error *err);
void nvml_close(struct nvml *nvml);

#endif /* DAEMON_NVML_H */
