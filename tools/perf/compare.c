/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An earlier run to hold beside this one: our JSON, perftest's JSON (which of some versions is not
 * valid, with keys that have no quotes), or the table that perftest prints.
 *
 * All JSON is read by one scan for KEY: NUMBER, quoted or not, that begins a row at each MsgSize.
 * In a table the columns are found by the words of its head.
 */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES   (16u << 20)
#define MIB_PER_GBIT (1e9 / 8 / 1048576)

struct earlier_row {
	uint64_t bytes;
	double bandwidth; /* MiB/s */
	double typical;	  /* us */
};

struct perf_earlier {
	struct earlier_row *row;
	size_t n;
};

static struct earlier_row *add_row(struct perf_earlier *e, uint64_t bytes)
{
	struct earlier_row *grown = realloc(e->row, (e->n + 1) * sizeof(*grown));

	if (!grown)
		return NULL;
	e->row = grown;
	e->row[e->n] = (struct earlier_row){.bytes = bytes};
	return &e->row[e->n++];
}

/* KEY: NUMBER at or after @p; the text behind it, NULL at the end. */
static const char *next_pair(const char *p, char key[32], double *value)
{
	for (; *p; p++) {
		size_t n = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789_.");
		const char *q = p + n;
		char *end;

		if (!n)
			continue;
		q += *q == '"';
		q += strspn(q, " \t");
		if (*q == ':') {
			*value = strtod(q + 1, &end);
			if (end != q + 1) {
				snprintf(key, 32, "%.*s", n < 32 ? (int)n : 31, p);
				return end;
			}
		}
		p += n - 1;
	}
	return NULL;
}

static int read_pairs(struct perf_earlier *e, const char *text)
{
	struct earlier_row *row = NULL;
	char key[32];
	double value;

	while ((text = next_pair(text, key, &value))) {
		if (!strcmp(key, "MsgSize") && value >= 0) {
			row = add_row(e, (uint64_t)value);
			if (!row)
				return -ENOMEM;
		} else if (row && !strcmp(key, "BW_average"))
			row->bandwidth = value;
		else if (row && (!strcmp(key, "t_typical") || !strcmp(key, "t_avg")))
			row->typical = row->typical > 0 && key[2] == 'a' ? row->typical : value;
	}
	return 0;
}

/* Which columns of a table are what; -1: not there. */
struct columns {
	int bandwidth, typical;
	double scale; /* to MiB/s */
};

/* Heads are words that end in a unit, or #bytes and #iterations; their order is that of the
 * columns. */
static bool read_head(const char *line, struct columns *c)
{
	int column = 0;

	if (strncmp(line + strspn(line, " "), "#bytes", 6))
		return false;
	*c = (struct columns){.bandwidth = -1, .typical = -1, .scale = 1};
	for (const char *p = line; *p && *p != '\n';) {
		size_t n = strcspn(p, "[ \t\n");

		if (*p == ' ' || *p == '\t') {
			p++;
			continue;
		}
		if (!strncmp(p, "average[", 8)) {
			c->bandwidth = column;
			/* perftest before 4.6 says MB/sec and means MiB/sec, as its manual has it
			 */
			c->scale = !strncmp(p + 8, "Gb/sec", 6) ? MIB_PER_GBIT : 1;
		}
		if (!strncmp(p, "t_typical[", 10) || (c->typical < 0 && !strncmp(p, "t_avg[", 6)))
			c->typical = column;
		/* "BW" of "BW average[...]" and "99%" of "99% percentile[...]" are half a head */
		if (p[n] == '[' || *p == '#')
			column++;
		p += strcspn(p, " \t\n");
	}
	return c->bandwidth >= 0 || c->typical >= 0;
}

static int read_line(struct perf_earlier *e, const char *line, const struct columns *c)
{
	struct earlier_row *row = NULL;

	for (int column = 0;; column++) {
		char *end;
		double v;

		line += strspn(line, " \t");
		v = strtod(line, &end);
		if (end == line)
			return 0;
		if (column == 0 && v > 0) {
			row = add_row(e, (uint64_t)v);
			if (!row)
				return -ENOMEM;
		}
		if (row && column == c->bandwidth)
			row->bandwidth = v * c->scale;
		if (row && column == c->typical)
			row->typical = v;
		line = end;
	}
}

static int read_table(struct perf_earlier *e, const char *text)
{
	struct columns c = {.bandwidth = -1, .typical = -1};
	bool headed = false;
	int rc = 0;

	while (!rc && *text) {
		const char *end = strchrnul(text, '\n');

		if (read_head(text, &c))
			headed = true;
		else if (headed && isdigit((unsigned char)text[strspn(text, " \t")]))
			rc = read_line(e, text, &c);
		else if (headed && *text == '-')
			headed = false; /* the rule below the table */
		text = *end ? end + 1 : end;
	}
	return rc;
}

static char *slurp(const char *path, struct pst_error *err)
{
	FILE *f = fopen(path, "r");
	char *text = f ? malloc(MOST_BYTES + 1) : NULL;
	size_t n = 0;

	if (text)
		n = fread(text, 1, MOST_BYTES, f);
	if (!f || !text || ferror(f)) {
		pst_fail(err, errno ? -errno : -EIO, "--compare %s: %s", path,
			 strerror(errno ? errno : EIO));
		free(text);
		text = NULL;
	} else
		text[n] = 0;
	if (f)
		fclose(f);
	return text;
}

static bool empty(const struct perf_earlier *e)
{
	for (size_t i = 0; i < e->n; i++)
		if (e->row[i].bandwidth > 0 || e->row[i].typical > 0)
			return false;
	return true;
}

int perf_earlier_read(const char *path, struct perf_earlier **out, struct pst_error *err)
{
	char *text = slurp(path, err);
	struct perf_earlier *e;
	int rc;

	if (!text)
		return err->code;
	e = calloc(1, sizeof(*e));
	rc = e ? read_table(e, text) : -ENOMEM;
	if (!rc && !e->n)
		rc = read_pairs(e, text);
	if (rc)
		pst_fail(err, rc, "out of memory");
	else if (empty(e))
		rc = pst_fail(err, -EINVAL,
			      "--compare %s: neither what perftest prints nor JSON of perftest or "
			      "penstock-perf",
			      path);
	free(text);
	if (rc)
		perf_earlier_free(e);
	else
		*out = e;
	return rc;
}

void perf_earlier_free(struct perf_earlier *e)
{
	if (e)
		free(e->row);
	free(e);
}

double perf_earlier_find(const struct perf_earlier *e, uint64_t bytes, bool latency)
{
	for (size_t i = 0; i < e->n; i++)
		if (e->row[i].bytes == bytes)
			return latency ? e->row[i].typical : e->row[i].bandwidth;
	return 0;
}
