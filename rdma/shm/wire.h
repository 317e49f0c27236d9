/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - what goes over the Unix socket of a shm link, packet by packet.
 *
 *	connector			listener
 *	hello + fd of the rings  ->
 *				 <-	welcome (code 0), or a refusal and the end
 *	packet			<->	packet: a doorbell, or a grant + fd
 *
 * Both ends are on one host, so numbers are in its byte order. @magic and @abi
 * keep their place in every version, so that a refusal can name both versions.
 */
#ifndef PST_SHM_WIRE_H
#define PST_SHM_WIRE_H

#include "rdma/shm/ring.h"

#define SHM_MAGIC 0x6d687350u /* "Pshm" */
#define SHM_ABI	  1u

struct shm_hello {
	uint32_t magic;
	uint32_t abi;
	uint32_t slots;
	uint32_t slot_size;
	uint64_t area_size;
	uint64_t reserved; /* 0 */
};

struct shm_welcome {
	uint32_t magic;
	uint32_t abi;
	int32_t code; /* 0, or the -errno of a refusal */
	uint32_t reserved;
	char text[240]; /* why it was refused */
};

enum shm_packet_type {
	SHM_BELL = 1,
	SHM_GRANT = 2,
};

struct shm_packet {
	uint32_t type;
	uint32_t access; /* GRANT */
	uint64_t len;	 /* GRANT: bytes of the region, from offset 0 of the fd */
	struct pst_key key;
};

static_assert(sizeof(struct shm_hello) == 32, "layout of the socket's packets");
static_assert(sizeof(struct shm_welcome) == 256, "layout of the socket's packets");
static_assert(sizeof(struct shm_packet) == 32, "layout of the socket's packets");

#endif /* PST_SHM_WIRE_H */
