/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/events.h"

#include "daemon/control/command.h"
#include "rdma/fail.h"

#include <errno.h>
#include <string.h>

#define ALL_EVENTS (PST_EVENT_BIT(PST_EVENT_END) - 1)

int handle_events(struct request *r)
{
	const struct pst_cmd_events *how = (const struct pst_cmd_events *)r->arg;
	int fd;

	if (how->mask & ~ALL_EVENTS)
		return pst_fail(&r->err, -EINVAL,
				"EVENTS: the mask names types that there are not (%#llx)",
				(unsigned long long)(how->mask & ~ALL_EVENTS));
	fd = events_open(r->d->events, r->who.uid, how->mask, how->past);
	if (fd == -EUSERS)
		return pst_fail(&r->err, fd,
				"EVENTS: user %u has as many open as may be; close some",
				r->who.uid);
	if (fd < 0)
		return pst_fail(&r->err, fd, "EVENTS: %s", strerror(-fd));
	r->out_fd = fd;
	return 0;
}
