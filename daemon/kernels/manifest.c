/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/kernels/manifest.h"

#include "kernels/table.h"
#include "rdma/fail.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Fields of the JSON */

static bool is_plain(const char *text, size_t room)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if (!isascii(text[i]) || (!isalnum(text[i]) && !strchr("._+-", text[i])))
			return false;
	return n && n < room;
}

/* A short word: letters, digits and ._+- */
static int take_word(const json_t *v, const char *field, char *out, size_t room,
		     struct pst_error *err)
{
	const char *text = json_string_value(v);

	if (!text)
		return pst_fail(err, -EBADMSG, "manifest: %s is missing, or no text", field);
	if (!is_plain(text, room))
		return pst_fail(err, -EBADMSG,
				"manifest: %s must have 1 to %zu letters, digits and ._+-", field,
				room - 1);
	strcpy(out, text);
	return 0;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_hex(const json_t *v, const char *field, unsigned char *out, size_t bytes,
		    struct pst_error *err)
{
	const char *text = json_string_value(v);
	bool good = text && strlen(text) == 2 * bytes;

	for (size_t i = 0; good && i < 2 * bytes; i++)
		good = digit(text[i]) >= 0;
	if (!good)
		return pst_fail(err, -EBADMSG, "manifest: %s must be %zu hex digits in lower case",
				field, 2 * bytes);
	for (size_t i = 0; i < bytes; i++)
		out[i] = (unsigned char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
	return 0;
}

static int take_kind(const json_t *v, uint32_t *kind, struct pst_error *err)
{
	const char *text = json_string_value(v);

	if (text && !strcmp(text, "cpu"))
		*kind = PST_DEVICE_CPU;
	else if (text && !strcmp(text, "cuda"))
		*kind = PST_DEVICE_GPU;
	else
		return pst_fail(err, -EBADMSG, "manifest: device must be \"cpu\" or \"cuda\"");
	return 0;
}

static int take_formats(const json_t *v, struct manifest *m, struct pst_error *err)
{
	size_t n = json_array_size(v);
	int rc = 0;

	if (!n || n > MANIFEST_FORMATS)
		return pst_fail(err, -EBADMSG, "manifest: formats must be a list of 1 to %d names",
				MANIFEST_FORMATS);
	for (size_t i = 0; i < n && !rc; i++)
		rc = take_word(json_array_get(v, i), "formats", m->format[i], sizeof(m->format[i]),
			       err);
	m->nformats = (uint32_t)n;
	return rc;
}

/* 64 bytes are 88 characters, of which the last two fill up. */
static int take_signature(const json_t *v, struct manifest *m, struct pst_error *err)
{
	const char *text = json_string_value(v);
	unsigned char raw[66];

	if (!v)
		return 0;
	if (!text || strlen(text) != 88 || strcmp(text + 86, "==") != 0 || strchr(text, '\n') ||
	    EVP_DecodeBlock(raw, (const unsigned char *)text, 88) != (int)sizeof(raw))
		return pst_fail(err, -EBADMSG,
				"manifest: signature must be 64 bytes in base64, on one line");
	memcpy(m->signature, raw, sizeof(m->signature));
	m->is_signed = true;
	return 0;
}

static int check_keys(json_t *root, struct pst_error *err)
{
	static const char *const known[] = {"op",  "name",   "device",	 "formats",
					    "abi", "sha256", "signature"};
	const char *key;
	json_t *value;

	json_object_foreach(root, key, value)
	{
		size_t i = 0;

		while (i < sizeof(known) / sizeof(*known) && strcmp(key, known[i]) != 0)
			i++;
		if (i == sizeof(known) / sizeof(*known))
			return pst_fail(err, -EBADMSG, "manifest: %.32s is no field of a manifest",
					is_plain(key, 33) ? key : "something");
	}
	return 0;
}

static int take(json_t *root, struct manifest *m, struct pst_error *err)
{
	unsigned char abi[8];
	int rc = check_keys(root, err);

	if (!rc)
		rc = take_word(json_object_get(root, "op"), "op", m->op, sizeof(m->op), err);
	if (!rc)
		rc = take_word(json_object_get(root, "name"), "name", m->name, sizeof(m->name),
			       err);
	if (!rc)
		rc = take_kind(json_object_get(root, "device"), &m->kind, err);
	if (!rc)
		rc = take_formats(json_object_get(root, "formats"), m, err);
	if (!rc)
		rc = take_hex(json_object_get(root, "abi"), "abi", abi, sizeof(abi), err);
	if (!rc)
		rc = take_hex(json_object_get(root, "sha256"), "sha256", m->sha256,
			      sizeof(m->sha256), err);
	for (size_t i = 0; !rc && i < sizeof(abi); i++)
		m->abi = m->abi << 8 | abi[i];
	return rc ? rc : take_signature(json_object_get(root, "signature"), m, err);
}

int manifest_parse(const char *text, size_t len, struct manifest *out, struct pst_error *err)
{
	struct manifest m = {.op = ""};
	json_error_t why;
	json_t *root;
	int rc;

	if (len > MANIFEST_MAX)
		return pst_fail(err, -EBADMSG, "manifest: has more than %d bytes", MANIFEST_MAX);
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return pst_fail(err, -EBADMSG, "manifest: line %d is no JSON: %.128s", why.line,
				why.text);
	rc = json_is_object(root) ? take(root, &m, err)
				  : pst_fail(err, -EBADMSG, "manifest: is no JSON object");
	json_decref(root);
	if (!rc)
		*out = m;
	return rc;
}

/* What is signed */

size_t manifest_text(const struct manifest *m, char text[MANIFEST_TEXT_MAX])
{
	char formats[MANIFEST_FORMATS * sizeof(m->format[0])] = "", sha256[65];

	for (uint32_t i = 0; i < m->nformats; i++)
		snprintf(formats + strlen(formats), sizeof(formats) - strlen(formats), "%s%s",
			 i ? "," : "", m->format[i]);
	for (size_t i = 0; i < sizeof(m->sha256); i++)
		snprintf(sha256 + 2 * i, 3, "%02x", m->sha256[i]);
	return (size_t)snprintf(text, MANIFEST_TEXT_MAX,
				"penstock-kernel\nop %s\nname %s\ndevice %s\nformats %s\nabi "
				"%016llx\nsha256 %s\n",
				m->op, m->name, m->kind == PST_DEVICE_CPU ? "cpu" : "cuda", formats,
				(unsigned long long)m->abi, sha256);
}

/* A key that others could put there is none. */
static int open_key(const char *path, struct pst_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		pst_fail(err, -EKEYREJECTED, "key %s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		pst_fail(err, -EKEYREJECTED, "key %s: is no file", path);
	} else if ((st.st_uid && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH)) {
		pst_fail(err, -EKEYREJECTED,
			 "key %s: others than root may write to it; as root: chown root %s; chmod "
			 "644 %s",
			 path, path, path);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -EKEYREJECTED;
}

static EVP_PKEY *read_key(const char *path, struct pst_error *err)
{
	int fd = open_key(path, err);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	EVP_PKEY *key;

	if (!f) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	key = PEM_read_PUBKEY(f, NULL, NULL, NULL);
	fclose(f);
	if (key && EVP_PKEY_id(key) == EVP_PKEY_ED25519)
		return key;
	EVP_PKEY_free(key);
	pst_fail(err, -EKEYREJECTED, "key %s: is no Ed25519 public key in PEM", path);
	return NULL;
}

static bool signed_by(const struct manifest *m, EVP_PKEY *key)
{
	char text[MANIFEST_TEXT_MAX];
	size_t len = manifest_text(m, text);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
		    EVP_DigestVerify(ctx, m->signature, sizeof(m->signature),
				     (const unsigned char *)text, len) == 1;

	EVP_MD_CTX_free(ctx);
	return good;
}

int manifest_verify(const struct manifest *m, const struct config *config, struct pst_error *err)
{
	struct pst_error bad = {0};

	if (!m->is_signed && config->unsigned_ok)
		return 0;
	if (!m->is_signed)
		return pst_fail(err, -EKEYREJECTED,
				"kernel %s: is not signed; penstock-kernel(5) says how to sign it",
				m->name);
	for (uint32_t i = 0; i < config->ntrusted; i++) {
		EVP_PKEY *key = read_key(config->trusted[i], &bad);
		bool good = key && signed_by(m, key);

		EVP_PKEY_free(key);
		if (good)
			return 0;
	}
	if (bad.code)
		return pst_fail(err, -EKEYREJECTED,
				"kernel %s: is signed by none of the %u trusted keys; of these, %s",
				m->name, config->ntrusted, bad.text);
	return pst_fail(err, -EKEYREJECTED,
			"kernel %s: is signed by none of the %u keys that trust in [kernels] of "
			"penstockd.conf names",
			m->name, config->ntrusted);
}

/* Can it be run here? */

/* All ops compute in fp32; some have a bf16 side. */
static bool op_has_format(const char *op, const char *format)
{
	return !strcmp(format, "f32") || (!strcmp(format, "bf16") && strstr(op, "bf16"));
}

int manifest_fits(const struct manifest *m, struct pst_error *err)
{
	enum pst_op op = pst_op_find(m->op);

	if (m->kind != PST_DEVICE_CPU)
		return pst_fail(
			err, -ENOEXEC,
			"kernel %s: is for CUDA devices; this daemon loads kernels for CPUs",
			m->name);
	if (op == PST_OP_COUNT)
		return pst_fail(err, -ENOEXEC, "kernel %s: is for op %s, which there is not",
				m->name, m->op);
	if (m->abi != pst_op_abi(op))
		return pst_fail(
			err, -ENOEXEC,
			"kernel %s: has ABI %016llx, op %s here has %016llx; build it against "
			"this version's kernels/image.h",
			m->name, (unsigned long long)m->abi, m->op,
			(unsigned long long)pst_op_abi(op));
	for (uint32_t i = 0; i < m->nformats; i++)
		if (!op_has_format(m->op, m->format[i]))
			return pst_fail(err, -ENOEXEC, "kernel %s: op %s has no format %s", m->name,
					m->op, m->format[i]);
	return 0;
}
