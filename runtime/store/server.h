/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.h - a parameter server: one shard behind a listener.
 *
 * One thread serves all links: requests (penstock/wire.h) and the immediates
 * that say which gradients have arrived. Pulls cost it nothing; a push over a fabric that cannot
 * map costs it one pass over what came, to check its CRC. A client
 * that dies takes its slot with it, and nobody else notices but those that it let into it. The
 * client that made the table takes that with it: every link that used it is closed, and
 * the server is free for another table.
 */
#ifndef PST_SERVER_H
#define PST_SERVER_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_server_config {
	size_t size; /* sizeof(struct pst_server_config) */
	const char *url;
	unsigned int threads; /* 0: the node's cores */
	int node;	      /* -1: any */
	uint32_t pool_flags;  /* enum pst_pool_flags */
};

struct pst_server;

int pst_server_create(const struct pst_server_config *config, struct pst_server **out,
		      struct pst_error *err);
/* The URL that it listens at, without settings; valid until it is destroyed. */
const char *pst_server_at(const struct pst_server *server);
/* Serve until pst_server_stop(); 0 or the error that ended it. */
int pst_server_serve(struct pst_server *server, struct pst_error *err);
void pst_server_stop(struct pst_server *server); /* any thread or signal handler */
void pst_server_destroy(struct pst_server *server);

/* Any thread, as what follows. */
struct pst_server_facts {
	uint64_t pool_bytes, read_bytes; /* in its pools; from disk */
	uint64_t calls, busy_ns;
	uint32_t tables, clients, threads;
	int node;
	char note[256];
};
void pst_server_facts(struct pst_server *server, struct pst_server_facts *out);

struct pst_table_facts {
	uint32_t number, tensors, clients;
	uint64_t bytes, state_bytes; /* of the snapshot; of masters and moments */
	uint64_t version, pushed;    /* ~0: none yet; bytes of gradients */
	char name[32];
};
/* The first numbered above @io->number; -ENOENT: there is none. */
int pst_server_next_table(struct pst_server *server, struct pst_table_facts *io);

#endif /* PST_SERVER_H */
