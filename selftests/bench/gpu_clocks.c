/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_clocks.c - what NVML says of the clock, where it is; nothing is set. */
#include "selftests/bench/gpu.h"

#include <dlfcn.h>
#include <stdio.h>

#define SM_CLOCK 1 /* NVML_CLOCK_SM; docs.nvidia.com/deploy/nvml-api */

struct clocks {
	void *device;
	int (*get)(void *device, int type, unsigned int *mhz);
};

static void uuid_of(const CUuuid *u, char to[48])
{
	const unsigned char *p = (const unsigned char *)u->bytes;

	to += snprintf(to, 5, "GPU-");
	for (int i = 0; i < 16; i++)
		to += snprintf(to, 4, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
			       p[i]);
}

struct clocks *clocks_open(struct bench *b)
{
	static struct clocks found;
	void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
	int (*init)(void), (*by_uuid)(const char *uuid, void **device);
	char uuid[48];
	CUuuid u;

	if (!lib)
		return NULL;
	*(void **)&init = dlsym(lib, "nvmlInit_v2");
	*(void **)&by_uuid = dlsym(lib, "nvmlDeviceGetHandleByUUID");
	*(void **)&found.get = dlsym(lib, "nvmlDeviceGetClockInfo");
	if (!init || !by_uuid || !found.get || b->gpu.cu->cuDeviceGetUuid(&u, b->gpu.dev))
		return NULL;
	uuid_of(&u, uuid);
	return init() || by_uuid(uuid, &found.device) ? NULL : &found;
}

unsigned int clocks_now(const struct clocks *c)
{
	unsigned int mhz = 0;

	return c && !c->get(c->device, SM_CLOCK, &mhz) ? mhz : 0;
}
