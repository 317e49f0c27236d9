/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.h - the servers and workers that penstockd keeps on this host.
 *
 * It is asked anew each time: a daemon that is away for a moment, or has been started again,
 * is no matter for those who go on meanwhile.
 */
#ifndef PST_LAUNCH_DAEMON_H
#define PST_LAUNCH_DAEMON_H

#include <penstock/error.h>
#include <penstock/wire.h>
#include <stdint.h>

struct pst_daemon_part {
	char url[PST_WIRE_URL];
	uint32_t id, pid;
};

/* What it has, as far as it goes: workers that serve, and servers. */
struct pst_daemon_parts {
	struct pst_daemon_part *worker, *server;
	unsigned int workers, servers;
};

/* @door: its socket; "": the usual one. At most @max of each kind. */
int pst_daemon_ask(const char *door, unsigned int max, struct pst_daemon_parts *out,
		   struct pst_error *err);
void pst_daemon_forget(struct pst_daemon_parts *parts);

/* Only those of the scheme ("shm") stay; "": of the one that has most, which is stored. */
void pst_daemon_choose(struct pst_daemon_parts *parts, char scheme[8]);

#endif /* PST_LAUNCH_DAEMON_H */
