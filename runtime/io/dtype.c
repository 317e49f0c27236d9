/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/dtype.h"

#include <errno.h>
#include <string.h>

static const struct {
	enum pst_dtype dtype;
	const char *name;
	size_t bytes;
} dtypes[] = {
#define PST_DTYPE_ROW(value, name, bytes) {PST_##name, #name, bytes},
	PST_DTYPES(PST_DTYPE_ROW)
#undef PST_DTYPE_ROW
};

#define NDTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

size_t pst_dtype_bytes(enum pst_dtype dtype)
{
	for (size_t i = 0; i < NDTYPES; i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].bytes;
	return 0;
}

const char *pst_dtype_name(enum pst_dtype dtype)
{
	for (size_t i = 0; i < NDTYPES; i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	return NULL;
}

int pst_dtype_parse(const char *name, size_t len)
{
	for (size_t i = 0; i < NDTYPES; i++)
		if (strlen(dtypes[i].name) == len && !memcmp(dtypes[i].name, name, len))
			return dtypes[i].dtype;
	return -EINVAL;
}
