/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef CUresult proc_fn(const char *name, void **to, int version, uint64_t flags, int *status);

struct call {
	const char *name;
	size_t at;
	int version;
	bool required;
};

static const struct call calls[] = {
#define REQUIRED(name, symbol, version, args) \
	{#name, offsetof(struct pst_cuda, name), version, true},
#define OPTIONAL(name, symbol, version, args) \
	{#name, offsetof(struct pst_cuda, name), version, false},
	PST_CUDA_CALLS(REQUIRED, OPTIONAL)
#undef REQUIRED
#undef OPTIONAL
};

static const struct error {
	CUresult rc;
	const char *name, *text;
} errors[] = {
#define ROW(name, number, text) {number, #name, text},
	PST_CUDA_ERRORS(ROW)
#undef ROW
};

static struct pst_cuda driver;
static struct pst_cuda_outcome found;

static const struct error *find_error(CUresult rc)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].rc == rc)
			return &errors[i];
	return NULL;
}

const char *pst_cuda_error_name(CUresult rc)
{
	const struct error *e = find_error(rc);

	return e ? e->name : "CUDA_ERROR";
}

const char *pst_cuda_error_text(CUresult rc)
{
	const struct error *e = find_error(rc);

	return e ? e->text : "an error of another driver";
}

int pst_cuda_error_stays(CUresult rc)
{
	switch (rc) {
	case CUDA_ERROR_DEINITIALIZED:
	case CUDA_ERROR_DEVICE_UNAVAILABLE:
	case CUDA_ERROR_ECC_UNCORRECTABLE:
	case CUDA_ERROR_NVLINK_UNCORRECTABLE:
	case CUDA_ERROR_CONTAINED:
	case CUDA_ERROR_ILLEGAL_ADDRESS:
	case CUDA_ERROR_LAUNCH_TIMEOUT:
	case CUDA_ERROR_CONTEXT_IS_DESTROYED:
	case CUDA_ERROR_ASSERT:
	case CUDA_ERROR_HARDWARE_STACK_ERROR:
	case CUDA_ERROR_ILLEGAL_INSTRUCTION:
	case CUDA_ERROR_MISALIGNED_ADDRESS:
	case CUDA_ERROR_INVALID_ADDRESS_SPACE:
	case CUDA_ERROR_INVALID_PC:
	case CUDA_ERROR_LAUNCH_FAILED:
	case CUDA_ERROR_TENSOR_MEMORY_LEAK:
	case CUDA_ERROR_EXTERNAL_DEVICE:
	case CUDA_ERROR_UNKNOWN:
		return 1;
	default:
		return 0;
	}
}

const char *pst_cuda_target(int major, int minor)
{
	if (major == 8)
		return "sm_80";
	if (major == 9 && !minor)
		return "sm_90a";
	return major == 10 ? "sm_100f" : NULL;
}

__attribute__((format(printf, 3, 4))) static int end(enum pst_cuda_state state, int rc,
						     const char *fmt, ...)
{
	va_list ap;

	found.state = state;
	va_start(ap, fmt);
	vsnprintf(found.text, sizeof(found.text), fmt, ap);
	va_end(ap);
	return rc;
}

static int no_library(const char *why)
{
	if (strcmp(found.library, PST_CUDA_LIBRARY) != 0)
		return end(PST_CUDA_NO_LIBRARY, -ENOENT,
			   "CUDA: the library that %s names cannot be opened (%.250s); unset it or "
			   "name a libcuda.so.1",
			   PST_CUDA_LIBRARY_ENV, why);
	return end(
		PST_CUDA_NO_LIBRARY, -ENOENT,
		"CUDA: no driver is here (%.200s); install NVIDIA's driver 525 or newer, or start "
		"the container with its GPUs (--gpus all)",
		why);
}

static int too_old(const char *lacks)
{
	snprintf(found.lacks, sizeof(found.lacks), "%s", lacks);
	return end(
		PST_CUDA_TOO_OLD, -ENOSYS,
		"CUDA: the driver behind %.200s is too old: it lacks %s; install NVIDIA's driver "
		"525 (CUDA 12.0) or newer",
		found.library, lacks);
}

static int find_calls(void *lib)
{
	proc_fn *get;

	*(void **)&get = dlsym(lib, "cuGetProcAddress_v2");
	if (!get)
		return too_old("cuGetProcAddress_v2");
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		const struct call *c = &calls[i];
		void *fn = NULL;

		if (get(c->name, &fn, c->version, 0, NULL))
			fn = NULL;
		if (!fn && c->required)
			return too_old(c->name);
		memcpy((char *)&driver + c->at, &fn, sizeof(fn));
	}
	return 0;
}

static const char *remedy(CUresult rc)
{
	switch (rc) {
	case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
		return "the kernel module is of another version than the library: reboot, or "
		       "reload "
		       "the module";
	case CUDA_ERROR_SYSTEM_NOT_READY:
		return "on machines with NVSwitch the fabric manager must run: systemctl start "
		       "nvidia-fabricmanager";
	case CUDA_ERROR_STUB_LIBRARY:
		return "this libcuda.so.1 comes with the toolkit and is for linking only: take its "
		       "folder out of LD_LIBRARY_PATH";
	default:
		return "nvidia-smi and dmesg | grep -i nvrm say more";
	}
}

static int start(void)
{
	driver.cuDriverGetVersion(&found.version);
	found.rc = driver.cuInit(0);
	if (!found.rc)
		return 0;
	if (found.rc == CUDA_ERROR_NO_DEVICE)
		return end(
			PST_CUDA_NO_DEVICE, -ENODEV,
			"CUDA: the driver shows no GPU; nvidia-smi -L lists those of the machine, "
			"CUDA_VISIBLE_DEVICES hides them, and a container needs --gpus all");
	return end(PST_CUDA_BROKEN, -EIO, "CUDA: the driver does not start: %s (%u: %s); %s",
		   pst_cuda_error_name(found.rc), found.rc, pst_cuda_error_text(found.rc),
		   remedy(found.rc));
}

static int opened;

static void open_once(void)
{
	const char *named = secure_getenv("PENSTOCK_CUDA_LIB");
	void *lib;

	snprintf(found.library, sizeof(found.library), "%s",
		 named && *named ? named : PST_CUDA_LIBRARY);
	/* as nvidia-smi and NVML count; the driver's own order is by speed */
	setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
	lib = dlopen(found.library, RTLD_NOW | RTLD_LOCAL);
	opened = lib ? find_calls(lib) : no_library(dlerror());
	if (!opened)
		opened = start();
}

int pst_cuda_open(const struct pst_cuda **out, struct pst_cuda_outcome *outcome)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, open_once);
	if (outcome)
		*outcome = found;
	if (!opened)
		*out = &driver;
	return opened;
}
