/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/cause.h"
#include "rdma/fail.h"
#include "rdma/ops.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define HERE	 false
#define HARDWARE true
#define CODE_MAX 80 /* of a device's own words */
#define RAIL_MAX 48

static const struct pst_cause_row rows[] = {
#define X(name, err, where, what, likely, mend) \
	[PST_CAUSE_##name] = {#name, -(err), where, what, likely, mend},
	PST_CAUSES(X)
#undef X
};

static const struct pst_cause_row unknown = {
	"UNKNOWN",
	-EIO,
	HERE,
	"it failed for a reason that this version does not know",
	"a newer device or library",
	"install a newer Penstock",
};

const struct pst_cause_row *pst_cause_row(uint32_t cause)
{
	return cause < PST_CAUSE_COUNT ? &rows[cause] : &unknown;
}

const struct pst_recent *pst_trace_failed(struct pst_trace *trace, uint64_t id, int status)
{
	uint64_t kept = trace->posted < PST_RECENT ? trace->posted : PST_RECENT;

	for (uint64_t back = 1; back <= kept; back++) {
		struct pst_recent *r = &trace->recent[(trace->posted - back) % PST_RECENT];

		if (r->id != id || r->status)
			continue;
		r->status = status;
		return r;
	}
	return NULL;
}

/* What happened, what is likely, what mends it. */
static void say_row(char *to, size_t size, const struct pst_cause_row *row, const char *code)
{
	bool has_code = code && code[0];

	snprintf(to, size, "%s%s%.*s%s%s%s%s%s", row->what, has_code ? " (" : "", CODE_MAX,
		 has_code ? code : "", has_code ? ")" : "", row->likely[0] ? "; likely " : "",
		 row->likely, row->mend[0] ? "; to mend it: " : "", row->mend);
}

/* HEAD: TAIL. The end is what helps, so where there is not room for all the head is cut. */
static void join(char *to, size_t size, const char *head, const char *tail)
{
	static const char dots[] = "...", colon[] = ": ";
	size_t len = strlen(head), end = strlen(tail);
	size_t taken = end + sizeof(colon) + sizeof(dots);
	size_t room = taken < size ? size - taken : 0;

	if (!len || !room) {
		snprintf(to, size, "%s", tail);
		return;
	}
	memcpy(to, head, len < room ? len : room);
	if (len > room) {
		memcpy(to + room, dots, sizeof(dots) - 1);
		len = room + sizeof(dots) - 1;
	}
	snprintf(to + len, size - len, "%s%s", colon, tail);
}

static void say_request(char *to, size_t size, const struct pst_recent *r)
{
	static const char *const verb[] = {
		[PST_WR_SEND] = "send", [PST_WR_WRITE] = "write", [PST_WR_READ] = "read"};
	const char *op = r->op < sizeof(verb) / sizeof(verb[0]) ? verb[r->op] : "request";

	if (r->op == PST_WR_SEND)
		snprintf(to, size, "send of %" PRIu64 " bytes", r->len);
	else
		snprintf(to, size, "%s of %" PRIu64 " bytes at %" PRIu64 " of region %016" PRIx64,
			 op, r->len, r->remote_off, r->region);
}

int pst_blame(struct pst_link *link, uint32_t cause, const char *rail, const struct pst_recent *r,
	      const char *code)
{
	const struct pst_cause_row *row = pst_cause_row(cause);
	char head[sizeof(link->peer) + RAIL_MAX + 128], tail[PST_ERROR_TEXT], asked[112] = "";
	bool has_rail = rail && rail[0];

	if (r)
		say_request(asked, sizeof(asked), r);
	snprintf(head, sizeof(head), "%.*s%s%s%s%s", RAIL_MAX, has_rail ? rail : "",
		 has_rail ? ": " : "", link->peer, r ? ": " : "", asked);
	say_row(tail, sizeof(tail), row, code);
	join(link->trace.why, sizeof(link->trace.why), head, tail);
	link->trace.cause = cause;
	return row->status;
}

int pst_fail_cause(struct pst_error *err, uint32_t cause, const char *code, const char *fmt, ...)
{
	const struct pst_cause_row *row = pst_cause_row(cause);
	char head[PST_ERROR_TEXT], tail[PST_ERROR_TEXT], whole[PST_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	say_row(tail, sizeof(tail), row, code);
	join(whole, sizeof(whole), head, tail);
	return pst_fail(err, row->status, "%s", whole);
}
