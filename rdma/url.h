/* SPDX-License-Identifier: Apache-2.0 */
/*
 * url.h - scheme://host[,host...][:port][?name=value&...], taken apart.
 *
 * An IPv6 address stands in brackets, with a zone where it needs one:
 * verbs://[fe80::1%va]:7471. A list of hosts is one peer over several rails. Over shm host
 * is a name, or a path that begins with a slash, and there is no port. Without any host
 * (tcp://) a URL opens a fabric and no more. A setting of another scheme, or one that is there
 * twice, is refused.
 */
#ifndef PST_RDMA_URL_H
#define PST_RDMA_URL_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PST_URL_MAX	 320
#define PST_RAILS_MAX	 8
#define PST_DEFAULT_PORT 7471

/* The settings that fabric.h lists. */
struct pst_settings {
	uint32_t timeout_ms;
	uint32_t links;
	uint32_t conns;
	uint64_t chunk;
	bool crc, poll, map;
	char io[8];    /* "auto", "uring", "epoll" */
	char dev[64];  /* "": any */
	char key[256]; /* "": the usual places */
};

struct pst_url {
	char scheme[8];
	unsigned int hosts;
	char host[PST_RAILS_MAX][64]; /* without brackets; shm: [0] is not filled in */
	char name[PST_URL_MAX];	      /* what is between :// and ?, as it stands */
	uint16_t port;		      /* PST_DEFAULT_PORT when none is given */
	struct pst_settings set;      /* defaults where the URL says nothing */
};

/* -EINVAL with a sentence that quotes what is wrong. @out is whole or untouched. */
int pst_url_parse(const char *text, struct pst_url *out, struct pst_error *err);

#endif /* PST_RDMA_URL_H */
