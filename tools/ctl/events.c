/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAST_ALL    10000 /* more than a daemon keeps */
#define PAST_FOLLOW 10

const struct word words_event[] = {
	{PST_EVENT_LOST, "lost", TONE_WARN},
	{PST_EVENT_STARTED, "started", TONE_PLAIN},
	{PST_EVENT_DIED, "died", TONE_BAD},
	{PST_EVENT_HUNG, "hung", TONE_BAD},
	{PST_EVENT_DRAINED, "drained", TONE_PLAIN},
	{PST_EVENT_STOPPED, "stopped", TONE_PLAIN},
	{PST_EVENT_KERNEL_LOADED, "kernel-loaded", TONE_PLAIN},
	{PST_EVENT_KERNEL_REFUSED, "kernel-refused", TONE_WARN},
	{PST_EVENT_KERNEL_BOUND, "kernel-bound", TONE_PLAIN},
	{PST_EVENT_KERNEL_TAKEN_BACK, "kernel-taken-back", TONE_BAD},
	{PST_EVENT_DEVICE, "device", TONE_WARN},
	{PST_EVENT_XID, "xid", TONE_BAD},
	{PST_EVENT_LIMIT, "limit", TONE_WARN},
	{PST_EVENT_POOL, "pool", TONE_WARN},
	{PST_EVENT_RELOADED, "reloaded", TONE_PLAIN},
	{0},
};

static const struct column columns[] = {
	{"time_ns", "TIME", CELL_REALTIME, offsetof(struct pst_event, time_ns), 8, 23, 0, NULL},
	{"type", "TYPE", CELL_WORD, offsetof(struct pst_event, type), 4, 17, 0, words_event},
	{"id", "ID", CELL_OR_NONE, offsetof(struct pst_event, id), 4, 3, 0, NULL},
	COLUMN(pst_event, value, NULL, CELL_SIGNED),
	COLUMN(pst_event, text, "WHAT", CELL_TEXT),
};

const struct sheet sheet_events = {
	.one = "event",
	.many = "events",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_event),
};

/* One event: 1, 0 at the end, -EAGAIN when there is none, -errno. */
int ctl_next_event(struct ctl *ctl, int fd, struct pst_event *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (poll(&p, 1, 0) == 0)
		return -EAGAIN;
	memset(e, 0, sizeof(*e));
	n = read(fd, e, sizeof(*e));
	if (n < 0)
		return ctl_error(ctl, -errno, "events cannot be read: %s", strerror(errno));
	/* a daemon of another version may say less, or more, behind */
	if (n && n < (ssize_t)offsetof(struct pst_event, text))
		return ctl_error(ctl, -EPROTO, "an event of %zd bytes is too short to be one", n);
	return n > 0;
}

static int mask_of(struct opt_list *types, __u64 *mask)
{
	for (size_t i = 0; i < types->count; i++) {
		char word[128], *rest = word;

		if ((size_t)snprintf(word, sizeof(word), "%s", types->item[i]) >= sizeof(word))
			return usage_error("events", "%s: no type of event", types->item[i]);
		for (char *type; (type = strsep(&rest, ","));) {
			const struct word *w = words_event;

			while (w->word && strcmp(w->word, type))
				w++;
			if (!w->word)
				return usage_error("events", "'%s' is no type of event", type);
			*mask |= PST_EVENT_BIT(w->value);
		}
	}
	return -1;
}

/*
 * All that is kept by now. There is no mark behind the last one, but the daemon fills what is read
 * in the same loop that answers: when there is nothing before and after two answers, that was all.
 */
static int read_kept(struct ctl *ctl, int fd, struct pst_event **list, size_t *n)
{
	size_t room = 0;
	int quiet = 0, rc;

	while (quiet < 3) {
		struct pst_cmd_info info = {0};

		if (*n == room) {
			struct pst_event *grown;

			room = room ? 2 * room : 64;
			grown = realloc(*list, room * sizeof(*grown));
			if (!grown)
				return ctl_error(ctl, -ENOMEM, "no memory for %zu events", room);
			*list = grown;
		}
		rc = ctl_next_event(ctl, fd, &(*list)[*n]);
		if (rc == 1) {
			++*n;
			quiet = 0;
			continue;
		}
		if (!rc)
			return 0;
		if (rc != -EAGAIN)
			return rc;
		quiet++;
		rc = ctl_call(ctl, PST_CMD_INFO, &info);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int show_kept(struct ctl *ctl, int fd, size_t past)
{
	struct pst_event *list = NULL;
	size_t n = 0;
	int rc = read_kept(ctl, fd, &list, &n);

	if (rc < 0) {
		rc = ctl_fail(ctl);
	} else {
		size_t skip = n > past ? n - past : 0;

		rc = ctl_show(ctl, &sheet_events, list + skip, n - skip);
	}
	free(list);
	return rc;
}

/* Line by line, until the daemon ends or nobody reads any more. */
static int follow(struct ctl *ctl, int fd)
{
	struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};
	struct pst_event e;
	int rc;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents & (POLLERR | POLLHUP))
			return EXIT_DONE;
		rc = ctl_next_event(ctl, fd, &e);
		if (rc == -EAGAIN)
			continue;
		if (rc < 0)
			return ctl_fail(ctl);
		if (!rc) {
			ctl_error(ctl, -ECONNRESET, "the daemon is gone");
			return ctl_fail(ctl);
		}
		if (print_line(&sheet_events, &e, ctl->json) || fflush(stdout))
			return EXIT_DONE;
	}
}

int cmd_events(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_events how = {0};
	struct opt_list types = {0};
	uint32_t live = 0;
	int some = 0, rc;
	const struct ctl_usage usage = {
		.command = "events",
		.words = "",
		.help = "What happened: the events that the daemon still knows.\n"
			"Types: lost started died hung drained stopped kernel-loaded "
			"kernel-refused\n"
			"kernel-bound kernel-taken-back device xid limit pool reloaded.",
		.option = {{"follow", NULL, OPT_FLAG, &live, 0, 0,
			    "go on as they come; JSON is an object per line then", NULL},
			   {"past", "N", OPT_U32, &how.past, 0, PAST_ALL,
			    "the last N (all; with --follow 10)", &some},
			   {"type", "TYPE", OPT_LIST, &types, 0, 0, "of these types only", NULL}},
	};

	rc = ctl_parse(ctl, argc, argv, &usage, NULL);
	if (rc < 0)
		rc = mask_of(&types, &how.mask);
	free_list(&types);
	if (rc >= 0)
		return rc;
	if (!some)
		how.past = live ? PAST_FOLLOW : PAST_ALL;
	if (ctl_call(ctl, PST_CMD_EVENTS, &how) < 0)
		return ctl_fail(ctl);
	rc = live ? follow(ctl, how.out_fd) : show_kept(ctl, how.out_fd, how.past);
	close(how.out_fd);
	return rc;
}
