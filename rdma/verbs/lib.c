/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/verbs/lib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct pst_ibv_calls pst_ibv;
struct pst_cm_calls pst_cm;

struct symbol {
	const char *name;
	size_t at;
};

static char missing[256];

static bool fill(void *calls, const char *soname, const struct symbol *symbol)
{
	void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	for (; lib && symbol->name; symbol++) {
		void *fn = dlsym(lib, symbol->name);

		if (!fn)
			break;
		memcpy((char *)calls + symbol->at, &fn, sizeof(fn));
	}
	if (lib && !symbol->name)
		return true;
	snprintf(missing, sizeof(missing), "%s", dlerror());
	return false;
}

static void load(void)
{
	static const struct symbol ibv[] = {
#define X(name) {"ibv_" #name, offsetof(struct pst_ibv_calls, name)},
		PST_IBV_CALLS(X)
#undef X
			{NULL, 0},
	};
	static const struct symbol cm[] = {
#define X(name) {"rdma_" #name, offsetof(struct pst_cm_calls, name)},
		PST_CM_CALLS(X)
#undef X
			{NULL, 0},
	};

	if (fill(&pst_ibv, "libibverbs.so.1", ibv))
		fill(&pst_cm, "librdmacm.so.1", cm);
}

const char *pst_verbs_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return missing[0] ? missing : NULL;
}
