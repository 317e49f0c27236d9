/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any packet at the door: cut off, or answered; and what a handler sees is whole: known flags, no
 * reserved field, names with an end, the right to change.
 */
#include "daemon/control/command.h"
#include "daemon/control/packet.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HANDLER(NAME, name, last, in1, in2, out) \
	int handle_##name(struct request *r)     \
	{                                        \
		(void)r;                         \
		return 0;                        \
	}
PST_COMMANDS(HANDLER)

static void must(bool yes)
{
	if (!yes)
		abort();
}

static void check_taken(const struct command *c, const struct request *r, const struct packet *p)
{
	static const unsigned char zeros[PST_DOOR_MAX];
	const char *text = (const char *)r->arg + c->text.at;
	uint32_t flags;

	must(p->len >= c->min && p->len <= PST_DOOR_MAX);
	must(!memcmp(r->arg, p->arg, p->len));
	must(!memcmp(r->arg + p->len, zeros, PST_DOOR_MAX - p->len));
	must(p->len <= c->size || !memcmp(r->arg + c->size, zeros, p->len - c->size));
	memcpy(&flags, r->arg + 4, sizeof(flags));
	must(!(flags & ~c->flags));
	must(!memcmp(r->arg + c->reserved.at, zeros, c->reserved.bytes));
	must(!c->text.bytes || memchr(text, 0, c->text.bytes));
	must(r->who.may_change || !c->changes);
}

static void check_fds(const struct command *c, struct request *r, uint8_t how)
{
	int fds[PST_DOOR_FDS], n = how % (PST_DOOR_FDS + 1), rc, free_before, free_after;

	free_before = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(free_before);
	for (int i = 0; i < n; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	rc = command_take_fds(c, r, fds, (uint32_t)n);
	must(!rc || rc == -EBADF);
	for (int i = 0; i < PST_DOOR_FDS; i++) {
		must(rc || c->in_fd[i] < 0 || fcntl(r->in_fd[i], F_GETFD) >= 0);
		if (r->in_fd[i] >= 0)
			must(!close(r->in_fd[i]));
	}
	free_after = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(free_after);
	must(free_before == free_after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct request *r;
	const struct command *c;
	struct packet p;
	bool cut;
	int rc;

	if (!size)
		return 0;
	/* the first byte is who sends it, and how */
	cut = data[0] & 2;
	r = calloc(1, sizeof(*r));
	must(r != NULL);
	r->who.may_change = data[0] & 1;
	r->in_fd[0] = r->in_fd[1] = r->out_fd = -1;
	memset(r->arg, 0xa5, sizeof(r->arg));
	if (!packet_read(data + 1, size - 1, cut, &p) && (c = command_find(p.cmd)) && !p.rc) {
		must(!cut);
		rc = command_take(c, r, p.arg, p.len);
		must(!rc == !r->err.text[0] && rc <= 0);
		if (!rc) {
			check_taken(c, r, &p);
			check_fds(c, r, data[0] >> 4);
		}
	}
	free(r);
	return 0;
}
