/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/secret.h"
#include "rdma/fail.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_MIN 16
#define KEY_MAX 4096
#define MAC_LEN 32

struct pst_secret {
	size_t len;
	unsigned char key[KEY_MAX + 1]; /* one more: a longer file shows */
};

/* The path stands once in each sentence, so that a long one leaves room for the rest. */
static int make_one(struct pst_error *err, const char *path)
{
	return pst_fail(err, -ENOENT,
			"no key, and both sides of a tcp or verbs link prove that they have the "
			"same; to make one: (umask 077; k='%s'; mkdir -p \"${k%%/*}\"; head -c 32 "
			"/dev/urandom | base64 >\"$k\"), then copy it to the other hosts",
			path);
}

/* Which file it is when the caller names none. */
static int usual_path(char path[PATH_MAX], struct pst_error *err)
{
	const char *named = getenv("PENSTOCK_KEY"), *home = getenv("HOME");
	int n;

	if (named && *named)
		n = snprintf(path, PATH_MAX, "%s", named);
	else if (home && *home)
		n = snprintf(path, PATH_MAX, "%s/.config/penstock/key", home);
	else
		return pst_fail(err, -ENOENT,
				"key: neither PENSTOCK_KEY nor HOME says where it is; give the "
				"URL a key=FILE");
	return n < PATH_MAX
		       ? 0
		       : pst_fail(err, -ENAMETOOLONG, "key %.80s...: the path is too long", path);
}

static int open_key(const char *path, struct pst_error *err)
{
	/* a FIFO must not make us wait before it is refused */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc = -errno;

	if (fd >= 0)
		return fd;
	return rc == -ENOENT ? make_one(err, path)
			     : pst_fail(err, rc, "key %s: %s", path, strerror(-rc));
}

/* Of the opened file: its name may stand for another one a moment later. */
static int check_owner(int fd, const char *path, struct pst_error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return pst_fail(err, -errno, "key %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pst_fail(err, -EINVAL, "key %s: not a file", path);
	if (st.st_uid && st.st_uid != geteuid())
		return pst_fail(err, -EACCES,
				"the key belongs to user %u, who could change it; to mend it: "
				"chown %u '%s'",
				st.st_uid, geteuid(), path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return pst_fail(
			err, -EACCES,
			"the key's mode %04o lets others at it; to mend it: chmod 600 '%s', "
			"and if somebody may have read it make a new one",
			st.st_mode & 07777, path);
	return 0;
}

static int read_all(int fd, struct pst_secret *s)
{
	while (s->len < sizeof(s->key)) {
		ssize_t n = read(fd, s->key + s->len, sizeof(s->key) - s->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		s->len += (size_t)n;
	}
	return 0;
}

static int read_key(int fd, const char *path, struct pst_secret *s, struct pst_error *err)
{
	int rc = check_owner(fd, path, err);

	if (rc)
		return rc;
	rc = read_all(fd, s);
	if (rc)
		return pst_fail(err, rc, "key %s: %s", path, strerror(-rc));
	if (s->len > KEY_MAX)
		return pst_fail(err, -EINVAL, "key %s: more than %d bytes", path, KEY_MAX);
	while (s->len && isspace(s->key[s->len - 1]))
		s->len--;
	if (s->len < KEY_MIN)
		return pst_fail(err, -EINVAL,
				"the key has %zu bytes, it takes %d to be hard to guess; to make "
				"one: (umask 077; head -c 32 /dev/urandom | base64 >'%s')",
				s->len, KEY_MIN, path);
	return 0;
}

int pst_secret_read(const char *path, struct pst_secret **out, struct pst_error *err)
{
	char usual[PATH_MAX];
	struct pst_secret *s;
	int fd, rc = 0;

	if (!path[0]) {
		rc = usual_path(usual, err);
		path = usual;
	}
	if (rc)
		return rc;
	fd = open_key(path, err);
	if (fd < 0)
		return fd;
	s = calloc(1, sizeof(*s));
	rc = s ? read_key(fd, path, s, err) : pst_fail(err, -ENOMEM, "key %s: out of memory", path);
	close(fd);
	if (rc)
		pst_secret_free(s);
	else
		*out = s;
	return rc;
}

void pst_secret_free(struct pst_secret *secret)
{
	if (!secret)
		return;
	OPENSSL_cleanse(secret, sizeof(*secret));
	free(secret);
}

int pst_secret_sign(const struct pst_secret *secret, const struct pst_piece *piece, int n,
		    unsigned char mac[MAC_LEN])
{
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};
	unsigned char made[MAC_LEN];
	size_t len = 0;
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *ctx = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
	bool good = ctx && EVP_MAC_init(ctx, secret->key, secret->len, params);

	for (int i = 0; good && i < n; i++)
		good = EVP_MAC_update(ctx, piece[i].data, piece[i].len);
	good = good && EVP_MAC_final(ctx, made, &len, sizeof(made)) && len == sizeof(made);
	EVP_MAC_CTX_free(ctx);
	EVP_MAC_free(hmac);
	if (!good)
		return -EIO;
	memcpy(mac, made, sizeof(made));
	return 0;
}
