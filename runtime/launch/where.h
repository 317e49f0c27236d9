/* SPDX-License-Identifier: Apache-2.0 */
/*
 * where.h - from what people say of fabrics and hosts to URLs.
 *
 * A fabric is said as NAME[?setting=value&...]. Its settings, and the key, are
 * those of this host's own ends of links: they stand in the URL that a fabric
 * is opened with, never in one that is told to another process in a message.
 *
 * Over tcp and verbs, what one launch starts shares a key of its own, unless
 * there is one from outside: random, in a memfd that its children inherit, so
 * that it is on no disk and on no command line.
 */
#ifndef PST_WHERE_H
#define PST_WHERE_H

#include "rdma/url.h"

#include <penstock/wire.h>

struct pst_where_options {
	const char *fabric;	  /* NULL: the scheme of @peers, shm without any */
	const char *key;	  /* a file, NULL: none is named */
	const char *host;	  /* for what is started here, HOST[,HOST]; NULL: choose */
	const char *const *peers; /* URLs or hosts of what others started */
	unsigned int npeers;
};

struct pst_where {
	char scheme[8];
	char settings[PST_URL_MAX - 32]; /* "", or a question mark and what follows */
	char host[PST_WIRE_URL];	 /* as in URLs; "": to be chosen */
	int key_fd;			 /* of the key made here; -1: none */
};

int pst_where_open(const struct pst_where_options *opts, struct pst_where *out,
		   struct pst_error *err);
void pst_where_close(struct pst_where *where);

/* The URL to open this process's fabric with. */
void pst_where_fabric(const struct pst_where *where, char url[PST_URL_MAX]);

/*
 * Where a server or worker that is started here listens, with settings. Over
 * shm its name is @name, else it takes a free port of the host, which is chosen now
 * if nobody said it.
 */
int pst_where_listen(struct pst_where *where, const char *name, char url[PST_URL_MAX],
		     struct pst_error *err);

/* The URL that others are told for @peer, a URL or a host. */
int pst_where_peer(const struct pst_where *where, const char *peer, char url[PST_WIRE_URL],
		   struct pst_error *err);

/*
 * @url with the file @key as a setting; NULL: as it stands. The key itself is read when
 * a fabric is opened.
 */
int pst_where_add_key(const char *url, const char *key, char out[PST_URL_MAX],
		      struct pst_error *err);

/* Can no other host reach @url? */
bool pst_where_local(const char *url);

/*
 * An address of the first active RDMA device of this host, as in URLs: of the devices
 * @only (names and commas), "" for any. @sysfs: "/sys". -ENODEV.
 */
int pst_where_rdma(const char *sysfs, const char *only, char host[64], struct pst_error *err);

#endif /* PST_WHERE_H */
