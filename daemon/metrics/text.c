/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics/text.h"

#include <math.h>
#include <stdarg.h>

void family(FILE *to, const char *name, const char *type, const char *help)
{
	fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* What is no ASCII may be no UTF-8 either, which the format wants. */
static void put_value(FILE *to, const char *value)
{
	for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
		if (*c == '\\' || *c == '"')
			fputc('\\', to);
		if (*c == '\n')
			fputs("\\n", to);
		else
			fputc(*c < 0x20 || *c > 0x7e ? '?' : *c, to);
	}
}

static void put_number(FILE *to, double value)
{
	if (isnan(value))
		fputs("NaN", to);
	else if (isinf(value))
		fputs(value < 0 ? "-Inf" : "+Inf", to);
	else
		fprintf(to, "%.17g", value);
}

void sample(FILE *to, const char *name, double value, ...)
{
	const char *label, *before = "{";
	va_list labels;

	fputs(name, to);
	va_start(labels, value);
	while ((label = va_arg(labels, const char *))) {
		fprintf(to, "%s%s=\"", before, label);
		put_value(to, va_arg(labels, const char *));
		fputc('"', to);
		before = ",";
	}
	va_end(labels);
	fputs(before[0] == ',' ? "} " : " ", to);
	put_number(to, value);
	fputc('\n', to);
}
