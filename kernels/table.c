/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/table.h"
#include "kernels/image.h"

#include <string.h>

/* clang-format off */
#define OP_NAME(name, ret, args) #name,
static const char *const names[] = {PST_OPS(OP_NAME, float)};
#undef OP_NAME

#define OP_SIGNATURE(name, ret, args) pst_signature_##name,
static const char *const signatures[] = {PST_OPS(OP_SIGNATURE, float)};
#undef OP_SIGNATURE

#define OP_GET(name, ret, args) case PST_OP_##name: return (pst_any_fn *)ops->name;
pst_any_fn *pst_ops_get(const struct pst_ops *ops, enum pst_op op)
{
	switch (op) {
	PST_OPS(OP_GET, float)
	default: return NULL;
	}
}
#undef OP_GET

#define OP_PUT(opname, ret, args) \
	case PST_OP_##opname: ops->opname = (pst_##opname##_fn *)kernel; break;
void pst_ops_put(struct pst_ops *ops, enum pst_op op, pst_any_fn *kernel)
{
	switch (op) {
	PST_OPS(OP_PUT, float)
	default: break;
	}
}
#undef OP_PUT
/* clang-format on */

const char *pst_op_name(enum pst_op op)
{
	return (unsigned int)op < PST_OP_COUNT ? names[op] : NULL;
}

const char *pst_op_signature(enum pst_op op)
{
	return (unsigned int)op < PST_OP_COUNT ? signatures[op] : NULL;
}

enum pst_op pst_op_find(const char *name)
{
	int op = 0;

	while (op < PST_OP_COUNT && strcmp(name, names[op]))
		op++;
	return (enum pst_op)op;
}

static uint64_t fnv(uint64_t h, const char *text)
{
	/* the NUL too, so that name and signature cannot run into each other */
	do
		h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
	while (*text++);
	return h;
}

uint64_t pst_op_abi(enum pst_op op)
{
	if ((unsigned int)op >= PST_OP_COUNT)
		return 0;
	return fnv(fnv(0xcbf29ce484222325ull, names[op]), signatures[op]);
}
