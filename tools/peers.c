/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/peers.h"

static int take_list(const char *command, const char *kind, const struct opt_list *list, int given,
		     const char *const **at, size_t *nat, uint32_t *number)
{
	if (!list->count)
		return -1;
	if (given && *number != list->count)
		return usage_error(command,
				   "--%ss %u, and --%s-at names %zu: nothing is started "
				   "beside a list",
				   kind, *number, kind, list->count);
	*at = list->item;
	*nat = list->count;
	*number = (uint32_t)list->count;
	return -1;
}

int take_peers(const char *command, const struct peers *p, struct pst_peer_options *to,
	       uint32_t *servers, uint32_t *workers)
{
	int rc = take_list(command, "server", &p->server_at, p->servers, &to->server_at,
			   &to->nserver_at, servers);

	if (rc >= 0)
		return rc;
	if (to->daemon && p->workers && !p->worker_at.count)
		return usage_error(command, "--workers: none is started beside those of --daemon");
	return take_list(command, "worker", &p->worker_at, p->workers, &to->worker_at,
			 &to->nworker_at, workers);
}

void free_peers(struct peers *p)
{
	free_list(&p->server_at);
	free_list(&p->worker_at);
}
