/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/doctor.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

static void (*const checks[])(struct doctor *d) = {
	doctor_rdma,	  doctor_memlock,   doctor_huge,  doctor_thp,
	doctor_numa,	  doctor_balancing, doctor_swap,  doctor_cgroup,
	doctor_placement, doctor_peer,	    doctor_clock, doctor_governor,
	doctor_synced,	  doctor_uring,	    doctor_tcp,	  doctor_key,
};

static const char *const state_name[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_COSTS] = "costs",
	[DOCTOR_STOPS] = "stops",
	[DOCTOR_UNKNOWN] = "unknown",
};

void doctor_say(struct doctor *d, enum doctor_state state, const char *check, const char *fmt, ...)
{
	struct doctor_line *grown = reallocarray(d->line, d->nlines + 1, sizeof(*grown)), *l;
	va_list ap;

	if (!grown) {
		d->failed = true;
		return;
	}
	d->line = grown;
	l = &d->line[d->nlines++];
	*l = (struct doctor_line){.state = state};
	snprintf(l->check, sizeof(l->check), "%s", check);
	va_start(ap, fmt);
	vsnprintf(l->found, sizeof(l->found), fmt, ap);
	va_end(ap);
}

void doctor_cost(struct doctor *d, const char *fmt, ...)
{
	va_list ap;

	if (!d->nlines)
		return;
	va_start(ap, fmt);
	vsnprintf(d->line[d->nlines - 1].cost, sizeof(d->line->cost), fmt, ap);
	va_end(ap);
}

void doctor_mend(struct doctor *d, const char *fmt, ...)
{
	va_list ap;

	if (!d->nlines)
		return;
	va_start(ap, fmt);
	vsnprintf(d->line[d->nlines - 1].mend, sizeof(d->line->mend), fmt, ap);
	va_end(ap);
}

void doctor_sentence(struct doctor *d, enum doctor_state state, const char *check, const char *text)
{
	static const char *const words[] = {"; to mend it: ", "; to make one: "};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		const char *at = strstr(text, words[i]);

		if (!at)
			continue;
		doctor_say(d, state, check, "%.*s", (int)(at - text), text);
		doctor_mend(d, "%s", at + strlen(words[i]));
		return;
	}
	doctor_say(d, state, check, "%s", text);
}

void doctor_free(struct doctor *d)
{
	free(d->line);
	d->line = NULL;
	d->nlines = 0;
}

void doctor_machine(struct doctor *d)
{
	for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++)
		checks[i](d);
}

static void put(FILE *out, const char *before, const char *text)
{
	if (text[0])
		fprintf(out, "%s%s", before, text);
}

void doctor_print(const struct doctor *d, FILE *out)
{
	for (size_t i = 0; i < d->nlines; i++) {
		const struct doctor_line *l = &d->line[i];

		fprintf(out, "%-7s  %s: %s", state_name[l->state], l->check, l->found);
		put(out, "; ", l->cost);
		put(out, "; to mend it: ", l->mend);
		fputc('\n', out);
	}
}

/* jansson takes UTF-8 alone, and names in /sys may be anything. */
static json_t *text(const char *s)
{
	char clean[sizeof(((struct doctor_line *)0)->found)];
	size_t n = 0;

	for (; s[n] && n < sizeof(clean) - 1; n++)
		clean[n] = s[n] < 0x20 || s[n] > 0x7e ? '?' : s[n];
	clean[n] = '\0';
	return json_string(clean);
}

int doctor_json(const struct doctor *d, FILE *out)
{
	json_t *lines = json_array();
	int rc = lines ? 0 : -ENOMEM;

	for (size_t i = 0; !rc && i < d->nlines; i++) {
		const struct doctor_line *l = &d->line[i];

		if (json_array_append_new(
			    lines, json_pack("{so so so so so}", "check", text(l->check), "state",
					     text(state_name[l->state]), "found", text(l->found),
					     "cost", text(l->cost), "mend", text(l->mend))))
			rc = -ENOMEM;
	}
	errno = EIO;
	if (!rc &&
	    (json_dumpf(lines, out, JSON_INDENT(2)) || fputc('\n', out) == EOF || fflush(out)))
		rc = -errno;
	json_decref(lines);
	return rc;
}

static int try_uring(void)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int ask_clock(void)
{
	struct timex t = {0};
	int rc = adjtimex(&t);

	return rc < 0 ? -errno : rc != TIME_ERROR && !(t.status & STA_UNSYNC);
}

static int try_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static const struct doctor_live live = {try_uring, ask_clock, try_open};

static int write_json(const struct doctor *d, const char *path)
{
	bool to_stdout = !strcmp(path, "-");
	FILE *out = to_stdout ? stdout : fopen(path, "we");
	int rc = out ? doctor_json(d, out) : -errno;

	if (out && !to_stdout && fclose(out) && !rc)
		rc = -errno;
	if (!rc)
		return EXIT_DONE;
	fprintf(stderr, "penstock-perf doctor: %s: %s\n", path, strerror(-rc));
	return EXIT_FAILED;
}

/* The last word of the table, and the status. */
static int finish(const struct doctor *d, FILE *out)
{
	size_t n[4] = {0};

	for (size_t i = 0; i < d->nlines; i++)
		n[d->line[i].state]++;
	fprintf(out, "%zu looked at: %zu ok, %zu cost something, %zu stop work, %zu not known\n",
		d->nlines, n[DOCTOR_OK], n[DOCTOR_COSTS], n[DOCTOR_STOPS], n[DOCTOR_UNKNOWN]);
	return n[DOCTOR_STOPS] ? EXIT_FAILED : EXIT_DONE;
}

static int examine(struct doctor *d, const char *json)
{
	FILE *out = json && !strcmp(json, "-") ? stderr : stdout;
	int rc;

	if (d->host)
		doctor_path(d);
	else
		doctor_machine(d);
	if (d->failed) {
		fprintf(stderr, "penstock-perf doctor: out of memory\n");
		return EXIT_FAILED;
	}
	doctor_print(d, out);
	rc = finish(d, out);
	if (json && write_json(d, json))
		rc = EXIT_FAILED;
	return rc;
}

int perf_doctor(int argc, char **argv)
{
	const char *json = NULL, *key = "";
	struct opt_list words = {0};
	uint32_t timeout_ms = 2000;
	const struct option_row rows[] = {
		{"json", "FILE", OPT_TEXT, &json, 0, 0, "the same as JSON; - for standard output",
		 NULL},
		{"key", "FILE", OPT_TEXT, &key, 0, 0,
		 "of links (default: $PENSTOCK_KEY, ~/.config/penstock/key)", NULL},
		{"timeout", "MS", OPT_U32, &timeout_ms, 100, 600000,
		 "how long one connection may take (default 2000)", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "A line for each thing looked at: ok, or what it costs and what mends it.", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "HOST is a name, an address or a URL of a server that runs there.", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "Exit status: 0, also when something could be better; 1 when something is "
		 "impossible; 2 usage.",
		 NULL},
	};
	struct doctor d = {.root = "", .live = &live};
	int rc = parse_options(argc, argv, "doctor", "[HOST] [OPTION...]", rows,
			       sizeof(rows) / sizeof(*rows), &words);

	if (rc < 0 && words.count > 1)
		rc = usage_error("doctor", "one HOST at a time");
	if (rc < 0) {
		d.host = words.count ? words.item[0] : NULL;
		d.key = key;
		d.timeout_ms = timeout_ms;
		rc = examine(&d, json);
		doctor_free(&d);
	}
	free_list(&words);
	return rc;
}
