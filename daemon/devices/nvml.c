/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/devices/nvml.h"

#include "rdma/fail.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct call {
	const char *name;
	size_t at;
	bool required;
};

static const struct call calls[] = {
#define REQUIRED(ret, name, args) {"nvml" #name, offsetof(struct nvml, name), true},
#define OPTIONAL(ret, name, args) {"nvml" #name, offsetof(struct nvml, name), false},
	NVML_CALLS(REQUIRED, OPTIONAL)
#undef REQUIRED
#undef OPTIONAL
};

int nvml_open(const char *library, struct nvml *out, struct pst_error *err)
{
	struct nvml nvml = {.lib = dlopen(library, RTLD_NOW | RTLD_LOCAL)};

	if (!nvml.lib)
		return pst_fail(err, -ENOENT, "%s", dlerror());
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		void *fn = dlsym(nvml.lib, calls[i].name);

		if (!fn && calls[i].required) {
			nvml_close(&nvml);
			return pst_fail(err, -ENOSYS,
					"%s has no %s, so it is too old; install NVIDIA's driver "
					"of 2018 (410) or newer",
					library, calls[i].name);
		}
		memcpy((char *)&nvml + calls[i].at, &fn, sizeof(fn));
	}
	*out = nvml;
	return 0;
}

void nvml_close(struct nvml *nvml)
{
	dlclose(nvml->lib);
	memset(nvml, 0, sizeof(*nvml));
}
