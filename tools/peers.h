/* SPDX-License-Identifier: Apache-2.0 */
/* peers.h - what commands that start servers and workers, or are told of them, have in common. */
#ifndef TOOLS_PEERS_H
#define TOOLS_PEERS_H

#include "runtime/penstock.h"
#include "tools/options.h"

struct peers {
	struct opt_list server_at, worker_at;
	int servers, workers; /* their numbers were given */
};

/*
 * Put the lists into @to, and their lengths into the numbers. -1: go on; else a usage error. The
 * lists must live as long as @to.
 */
int take_peers(const char *command, const struct peers *p, struct pst_peer_options *to,
	       uint32_t *servers, uint32_t *workers);
void free_peers(struct peers *p);

#endif /* TOOLS_PEERS_H */
