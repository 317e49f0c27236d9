/* SPDX-License-Identifier: Apache-2.0 */
/* packet.h - a request as it comes over the socket (penstock/door.h), taken apart. */
#ifndef DAEMON_PACKET_H
#define DAEMON_PACKET_H

#include <errno.h>
#include <penstock/door.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PACKET_MAX (sizeof(struct pst_door_request) + PST_DOOR_MAX)

struct packet {
	uint32_t cmd;
	const void *arg; /* in the bytes that were read */
	uint32_t len;
	int rc; /* 0, or what it is answered with where there is such a command */
};

/* @cut: there was more than @len bytes of it. -EPROTO: who sends such things is cut off. */
static inline int packet_read(const void *bytes, size_t len, bool cut, struct packet *out)
{
	struct pst_door_request head;
	uint32_t size;

	if (len < sizeof(head) || len > PACKET_MAX)
		return -EPROTO;
	memcpy(&head, bytes, sizeof(head));
	out->cmd = head.cmd;
	out->arg = (const char *)bytes + sizeof(head);
	out->len = (uint32_t)(len - sizeof(head));
	out->rc = 0;
	if (head.__reserved)
		return -EPROTO;
	if (out->len < sizeof(size)) {
		out->rc = -EINVAL;
		return cut ? -EPROTO : 0;
	}
	memcpy(&size, out->arg, sizeof(size));
	if (size > PST_DOOR_MAX)
		out->rc = -E2BIG;
	else if (cut || size < out->len)
		return -EPROTO;
	else if (size > out->len)
		out->rc = -EINVAL;
	return 0;
}

#endif /* DAEMON_PACKET_H */
