/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - penstockd.conf(5): sections of key = value lines, read by libinih.
 *
 * A key that is not known, a value that is none, or a file that others may write to is an error
 * that names file and line. What is not said has the default that penstockd.conf(5) tells.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stdint.h>

#define CONFIG_MAX 32 /* workers, servers, or trusted keys */

struct config_worker { /* [worker NAME] */
	char name[32];
	char device[32];  /* "cpu:0", "gpu:0" */
	char url[120];	  /* without settings; "": shm under a name that is chosen */
	uint32_t threads; /* 0: the device's cores */
};

struct config_server { /* [server NAME] */
	char name[32];
	char url[120];
	uint32_t threads;
	int32_t node; /* -1: any */
};

struct config {
	/* [daemon] */
	char socket[108];
	char group[32];	   /* who may change things, besides root; "": nobody */
	char metrics[120]; /* HOST:PORT, unix:PATH, or "" for none */
	char key[256];	   /* file of the fabric's key, "": the usual places */
	/* [pools] */
	uint64_t quota_bytes; /* per user; 0: no limit */
	/* [kernels] */
	char trusted[CONFIG_MAX][256]; /* files: public keys in PEM, Ed25519 */
	uint32_t ntrusted;
	bool unsigned_ok;  /* images need no signature: for development only */
	uint32_t check_s;  /* seconds between re-checks of what is bound */
	uint32_t trial_ms; /* that a trial may take */
	/* [children] */
	uint32_t silence_ms; /* without a beat, after which a child is killed */
	struct config_worker worker[CONFIG_MAX];
	uint32_t nworkers;
	struct config_server server[CONFIG_MAX];
	uint32_t nservers;
};

void config_defaults(struct config *config);
/* @path NULL: defaults only. @out is untouched on failure. */
int config_read(const char *path, struct config *out, struct pst_error *err);
/* The same over text that is in memory, named @path in sentences. */
int config_parse(const char *path, const char *text, struct config *out, struct pst_error *err);

#endif /* DAEMON_CONFIG_H */
