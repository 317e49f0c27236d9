/* SPDX-License-Identifier: Apache-2.0 */
/* Calls through the door, and what came of them. */
#include "tools/ctl/ctl.h"
#include "tools/ctl/text.h"

#include <errno.h>
#include <penstock/door.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct sheet sheet_none = {.one = "result", .many = "results"};

size_t ctl_struct_bytes(uint32_t cmd)
{
#define BYTES(NAME, name, ...) [PST_CMD_##NAME - PST_CMD_BASE] = sizeof(struct pst_cmd_##name),
	static const size_t bytes[] = {PST_COMMANDS(BYTES)};
#undef BYTES

	return bytes[cmd - PST_CMD_BASE];
}

int ctl_error(struct ctl *ctl, int code, const char *fmt, ...)
{
	va_list ap;

	ctl->err.code = code;
	va_start(ap, fmt);
	vsnprintf(ctl->err.text, sizeof(ctl->err.text), fmt, ap);
	va_end(ap);
	return code;
}

int ctl_fail(struct ctl *ctl)
{
	char text[PST_ERROR_TEXT + 1];

	text_clean(text, ctl->err.text, sizeof(ctl->err.text));
	fprintf(stderr, "penstockctl: %s\n", text[0] ? text : strerror(-ctl->err.code));
	return EXIT_FAILED;
}

void ctl_hang_up(struct ctl *ctl)
{
	pst_control_close(ctl->control);
	ctl->control = NULL;
}

int ctl_call(struct ctl *ctl, uint32_t cmd, void *arg)
{
	uint32_t size = (uint32_t)ctl_struct_bytes(cmd);
	int rc;

	ctl->err = (struct pst_error){0};
	if (!ctl->control) {
		rc = pst_control_open(ctl->socket, &ctl->control, &ctl->err);
		if (rc < 0) {
			/* that there is no door must not be taken for the end of a list */
			rc = rc == -ENOENT ? -ECONNREFUSED : rc;
			ctl->err.code = rc;
			return rc;
		}
	}
	memcpy(arg, &size, sizeof(size));
	rc = pst_control_call(ctl->control, cmd, arg, &ctl->err);
	if (rc < 0)
		ctl->err.code = rc;
	return rc;
}

/* Where the next step of the walk begins, of one object as the door described it. */
struct cursor {
	uint32_t head[4]; /* size, flags, id or layer, index */
};

static uint64_t place_of(const struct cursor *c, bool expert)
{
	return expert ? (uint64_t)c->head[2] << 32 | c->head[3] : c->head[2];
}

int ctl_list(struct ctl *ctl, uint32_t cmd, void **rows, size_t *n)
{
	bool expert = cmd == PST_CMD_EXPERT_STAT;
	size_t bytes = ctl_struct_bytes(cmd), count = 0, room = 0;
	struct cursor c = {0};
	char *list = NULL;
	int rc;

	if (expert)
		c.head[2] = c.head[3] = PST_EXPERT_FIRST;
	for (;;) {
		struct cursor before = c;
		char *grown = list;

		if (count == room) {
			room = room ? 2 * room : 16;
			grown = realloc(list, room * bytes);
		}
		if (!grown) {
			rc = ctl_error(ctl, -ENOMEM, "no memory for %zu objects", room);
			break;
		}
		list = grown;
		memset(list + count * bytes, 0, bytes);
		c.head[1] = PST_STAT_NEXT;
		memcpy(list + count * bytes, &c, sizeof(c.head[0]) * (expert ? 4 : 3));
		rc = ctl_call(ctl, cmd, list + count * bytes);
		if (rc < 0)
			break;
		memcpy(&c, list + count * bytes, sizeof(c.head[0]) * (expert ? 4 : 3));
		/* or a door that is not right in the head would keep us for ever */
		if ((count || !expert) && place_of(&c, expert) <= place_of(&before, expert)) {
			rc = ctl_error(ctl, -EPROTO, "the daemon's list does not go forward");
			break;
		}
		count++;
	}
	if (rc != -ENOENT) {
		free(list);
		return rc;
	}
	*rows = list;
	*n = count;
	return 0;
}

int ctl_show(struct ctl *ctl, const struct sheet *sheet, const void *rows, size_t n)
{
	int rc = ctl->json ? print_json(sheet, rows, n) : print_table(sheet, rows, n);

	if (!rc)
		return EXIT_DONE;
	ctl_error(ctl, rc, "no memory for %zu %s", n, sheet->many);
	return ctl_fail(ctl);
}

int ctl_show_all(struct ctl *ctl, uint32_t cmd, const struct sheet *sheet)
{
	void *rows;
	size_t n;
	int rc;

	if (ctl_list(ctl, cmd, &rows, &n) < 0)
		return ctl_fail(ctl);
	rc = ctl_show(ctl, sheet, rows, n);
	free(rows);
	return rc;
}

int ctl_done(struct ctl *ctl, const struct sheet *sheet, const void *row, const char *fmt, ...)
{
	char text[512], clean[sizeof(text) + 1];
	va_list ap;

	if (ctl->json)
		return ctl_show(ctl, sheet, row, sheet->columns ? 1 : 0);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_clean(clean, text, sizeof(text));
	printf("%s\n", clean);
	return EXIT_DONE;
}
