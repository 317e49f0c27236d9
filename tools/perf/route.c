/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/route.h"

#include "rdma/fail.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 64 /* for an expert that a token does not have yet */

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static int make_zipf(struct routing *r, double exponent, struct pst_error *err)
{
	double sum = 0;

	r->upto = malloc(r->experts * sizeof(*r->upto));
	if (!r->upto)
		return pst_fail(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < r->experts; i++) {
		sum += pow(i + 1, -exponent);
		r->upto[i] = sum;
	}
	return 0;
}

static uint32_t draw_one(struct routing *r)
{
	uint64_t x = draw(&r->state);
	uint32_t low = 0, high = r->experts - 1;
	double at;

	if (!r->upto)
		return (uint32_t)((x >> 32) * r->experts >> 32);
	at = (double)(x >> 11) * 0x1p-53 * r->upto[high];
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (r->upto[mid] > at)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static bool has(const uint32_t *expert, uint32_t n, uint32_t e)
{
	for (uint32_t i = 0; i < n; i++)
		if (expert[i] == e)
			return true;
	return false;
}

void routing_next(struct routing *r, uint32_t *expert)
{
	if (r->kind == ROUTING_TRACE) {
		memcpy(expert, r->trace + r->at * r->topk, r->topk * sizeof(*expert));
		r->at = (r->at + 1) % r->ntrace;
		return;
	}
	for (uint32_t k = 0; k < r->topk; k++) {
		uint32_t e = draw_one(r);

		for (int i = 0; i < TRIES && has(expert, k, e); i++)
			e = draw_one(r);
		while (has(expert, k, e))
			e = (e + 1) % r->experts;
		expert[k] = e;
	}
}

static int bad_line(const char *path, uint64_t line, const char *what, struct pst_error *err)
{
	return pst_fail(err, -EINVAL, "trace %s, line %llu: %s", path, (unsigned long long)line,
			what);
}

/* The experts on @text, none twice; 0 of them on an empty line. */
static int parse_line(const struct routing *r, char *text, uint32_t *expert, const char **what)
{
	uint32_t n = 0;

	text[strcspn(text, "#\n")] = 0;
	for (char *p = strtok(text, " \t,"); p; p = strtok(NULL, " \t,")) {
		char *end;
		unsigned long e = strtoul(p, &end, 10);

		*what = "not a number of an expert";
		if (*end || *p == '-' || e >= r->experts)
			return -EINVAL;
		*what = "an expert twice";
		if (has(expert, n, (uint32_t)e))
			return -EINVAL;
		if (n < r->topk)
			expert[n++] = (uint32_t)e;
	}
	*what = "fewer experts than --topk";
	return n && n < r->topk ? -EINVAL : (int)n;
}

static int read_trace(struct routing *r, FILE *f, const char *path, struct pst_error *err)
{
	uint64_t room = 0, line = 0;
	char *text = NULL;
	size_t size = 0;
	int rc = 0;

	while (!rc && getline(&text, &size, f) >= 0) {
		const char *what;

		line++;
		if (r->ntrace == room) {
			uint32_t *grown;

			room = room ? 2 * room : 1024;
			grown = realloc(r->trace, room * r->topk * sizeof(*grown));
			if (!grown) {
				rc = pst_fail(err, -ENOMEM, "out of memory");
				break;
			}
			r->trace = grown;
		}
		rc = parse_line(r, text, r->trace + r->ntrace * r->topk, &what);
		if (rc < 0)
			bad_line(path, line, what, err);
		r->ntrace += rc > 0;
		rc = rc < 0 ? rc : 0;
	}
	free(text);
	if (!rc && !r->ntrace)
		rc = bad_line(path, line, "no token in the whole file", err);
	return rc;
}

int routing_open(const struct perf_plan *plan, uint32_t topk, uint32_t seed, struct routing *out,
		 struct pst_error *err)
{
	struct routing r = {.kind = plan->routing_kind, .experts = plan->experts, .topk = topk};
	FILE *f;
	int rc = 0;

	r.state = (uint64_t)plan->seed << 32 | seed;
	if (r.kind == ROUTING_ZIPF)
		rc = make_zipf(&r, plan->zipf, err);
	if (r.kind == ROUTING_TRACE) {
		f = fopen(plan->trace, "r");
		if (!f)
			return pst_fail(err, -errno, "trace %s: %s", plan->trace, strerror(errno));
		rc = read_trace(&r, f, plan->trace, err);
		fclose(f);
	}
	if (rc)
		routing_close(&r);
	else
		*out = r;
	return rc;
}

void routing_close(struct routing *r)
{
	free(r->upto);
	free(r->trace);
	*r = (struct routing){0};
}
