/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a child, or a daemon, says on its leash: packets, each after two bytes with its
 * length. Whatever it is, what is taken is whole, and the daemon's figures of it hold together.
 * The header of every second packet is mended, so that more get through.
 */
#include "daemon/children/experts.h"
#include "daemon/children/leash.h"
#include "daemon/children/tables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct experts *experts;
static struct tables *tables;

static void must(bool yes)
{
	if (!yes)
		abort();
}

static void one_line(const unsigned char *text, size_t len)
{
	size_t n = strnlen((const char *)text, len);

	must(n < len);
	for (size_t i = 0; i < n; i++)
		must(text[i] >= 0x20 && text[i] != 0x7f);
	while (n < len)
		must(!text[n++]);
}

static void look_at(const union leash_message *m)
{
	switch (m->hdr.type) {
	case PST_LEASH_HELLO:
		one_line(m->hello.url, sizeof(m->hello.url));
		one_line(m->hello.kernels, sizeof(m->hello.kernels));
		one_line(m->hello.note, sizeof(m->hello.note));
		break;
	case PST_LEASH_EXPERT:
		experts_tell(experts, m->expert.pinned + 1, &m->expert,
			     (int64_t)m->expert.pulled & 0xffffff);
		break;
	case PST_LEASH_TABLE:
		one_line(m->table.name, sizeof(m->table.name));
		tables_tell(tables, 1, &m->table);
		break;
	case PST_LEASH_ANSWER:
	case PST_LEASH_FAIL:
		one_line((const unsigned char *)m->answer.error.text, sizeof(m->answer.error.text));
		must(m->answer.error.code <= 0);
		break;
	case PST_LEASH_CHECKED:
		one_line(m->checked.op, sizeof(m->checked.op));
		break;
	case PST_LEASH_BIND:
		one_line(m->bind.op, sizeof(m->bind.op));
		break;
	}
}

/* All experts are found by a walk, in their order, and each by its name. */
static void walk(void)
{
	struct pst_cmd_expert_stat e = {.layer = PST_EXPERT_FIRST, .index = PST_EXPERT_FIRST};
	struct pst_cmd_table_stat t = {0};
	uint64_t last = 0, key;
	bool first = true;

	while (!experts_stat(experts, true, &e, 1 << 24)) {
		key = (uint64_t)e.layer << 32 | e.index;
		must(first || key > last);
		must(e.out_copies <= 2 && e.out_pinned <= 2 && !(e.out_workers & ~3ull));
		must(!experts_stat(experts, false, &e, 1 << 24));
		last = key;
		first = false;
	}
	while (!tables_stat(tables, true, &t))
		must(t.out_server == 1);
}

static void say(int pair[2], enum leash_side from, const uint8_t *data, size_t len, bool mend)
{
	unsigned char packet[PST_LEASH_MAX + 64] = {0};
	union leash_message m;
	struct pst_error err = {0};
	uint32_t size = (uint32_t)len;
	int fd, rc;

	memcpy(packet, data, len);
	if (mend && len >= sizeof(struct pst_leash)) {
		memcpy(packet, &size, sizeof(size));
		packet[4] = packet[4] % 40;
		memset(packet + 5, 0, 3);
	}
	if (!len || send(pair[0], packet, len, MSG_DONTWAIT) < 0)
		return;
	rc = leash_recv(pair[1], from, &m, &fd, &err);
	must(rc == 1 || rc == -EPROTO);
	must((rc < 0) == !!err.text[0]);
	if (rc == 1)
		look_at(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum leash_side from = size && data[0] & 1 ? LEASH_DAEMON : LEASH_CHILD;
	unsigned int n = 0;
	int pair[2];

	must(!experts_new(&experts) && !tables_new(&tables));
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	for (size_t at = 1; at + 2 <= size; n++) {
		size_t len = (data[at] | (size_t)data[at + 1] << 8) % (PST_LEASH_MAX + 64);

		at += 2;
		len = len < size - at ? len : size - at;
		say(pair, from, data + at, len, n % 2);
		at += len;
	}
	walk();
	experts_died(experts, 1);
	walk();
	experts_forget(experts, 1);
	walk();
	tables_forget(tables, 1);
	experts_free(experts);
	tables_free(tables);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
