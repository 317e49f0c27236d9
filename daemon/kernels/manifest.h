/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.h - what comes with an image of a kernel: a JSON object that says which op it is for,
 * and who vouches for it (penstock-kernel(5)).
 *
 * The signature is Ed25519 over a text that is made of the other fields (manifest_text()), so that
 * it does not depend on how the JSON is written.
 */
#ifndef DAEMON_MANIFEST_H
#define DAEMON_MANIFEST_H

#include "daemon/config.h"

#include <penstock/error.h>
#include <penstock/ioctl.h>
#include <stddef.h>

#define MANIFEST_MAX	  65536 /* bytes of the file */
#define MANIFEST_TEXT_MAX 512
#define MANIFEST_FORMATS  8

struct manifest {
	char op[PST_NAME_MAX];
	char name[PST_NAME_MAX];
	uint32_t kind; /* PST_DEVICE_* */
	char format[MANIFEST_FORMATS][8];
	uint32_t nformats;
	uint64_t abi;
	unsigned char sha256[32];
	unsigned char signature[64];
	bool is_signed;
};

/* -EBADMSG with what is wrong, or -ENOMEM; @out is untouched then. */
int manifest_parse(const char *text, size_t len, struct manifest *out, struct pst_error *err);

/* What is signed, ended by a newline. Its length. */
size_t manifest_text(const struct manifest *m, char text[MANIFEST_TEXT_MAX]);

/* Is it signed by one of the keys that the config trusts? -EKEYREJECTED with why not. */
int manifest_verify(const struct manifest *m, const struct config *config, struct pst_error *err);

/* Can this build run it: is there such an op, with this ABI and these formats? -ENOEXEC */
int manifest_fits(const struct manifest *m, struct pst_error *err);

#endif /* DAEMON_MANIFEST_H */
