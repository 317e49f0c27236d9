/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/gpu/check_call.h"
#include "kernels/op.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The declarations as text. An op that returns a value has one argument more, the first. */
/* clang-format off */
#define TEXT_OF(args) #args
#define TEXT(args) TEXT_OF(args)
#define OP(op, ret, args) {#op, #ret, TEXT(args)},
#define KERNEL(kernel, args, ...) {#kernel, "void", TEXT(args)},
/* clang-format on */
static const struct declaration {
	const char *name, *ret, *args;
} declarations[] = {PST_OPS(OP, float)
#define NOT(...)
			    PST_CUDA_KERNELS(NOT, KERNEL)};

static const struct declaration *declaration_of(enum pst_cuda_kernel k)
{
	const char *name = pst_cuda_kernel_name(k);

	for (size_t i = 0; name && i < sizeof(declarations) / sizeof(*declarations); i++)
		if (!strcmp(declarations[i].name, name))
			return &declarations[i];
	return NULL;
}

/* "const float *x" of @len characters. */
static void read_arg(const char *text, size_t len, struct check_arg *out)
{
	size_t name = len;

	while (name && text[name - 1] != ' ' && text[name - 1] != '*')
		name--;
	snprintf(out->name, sizeof(out->name), "%.*s", (int)(len - name), text + name);
	out->kind = memchr(text, '*', len)	  ? 'p'
		    : !strncmp(text, "size_t", 6) ? 'z'
		    : !strncmp(text, "float", 5)  ? 'f'
						  : 'i';
}

int check_arg(enum pst_cuda_kernel k, int i, struct check_arg *out)
{
	const struct declaration *d = declaration_of(k);
	const char *at;

	if (!d)
		return -ENOENT;
	if (strcmp(d->ret, "void") && !i--) {
		*out = (struct check_arg){'p', "out"};
		return 0;
	}
	for (at = d->args + 1; i && (at = strchr(at, ',')); i--)
		at++;
	if (!at)
		return -ENOENT;
	at += strspn(at, " ");
	read_arg(at, strcspn(at, ",)"), out);
	return 0;
}

char *check_call(enum pst_cuda_kernel k, void *const *params, char *to, size_t len)
{
	size_t n = (size_t)snprintf(to, len, "%s(", pst_cuda_kernel_name(k));
	const char *between = "";
	struct check_arg a;

	for (int i = 0; n < len && !check_arg(k, i, &a); i++) {
		if (a.kind == 'p')
			continue;
		n += (size_t)snprintf(to + n, len - n, "%s%s ", between, a.name);
		between = ", ";
		if (n >= len)
			break;
		if (a.kind == 'z')
			n += (size_t)snprintf(to + n, len - n, "%zu", *(const size_t *)params[i]);
		else if (a.kind == 'f')
			n += (size_t)snprintf(to + n, len - n, "%g",
					      (double)*(const float *)params[i]);
		else
			n += (size_t)snprintf(to + n, len - n, "%d", *(const int *)params[i]);
	}
	if (n < len)
		snprintf(to + n, len - n, ")");
	return to;
}
