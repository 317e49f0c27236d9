/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h - images of selftests/control/images/, with manifests and keys that tests make. */
#ifndef TEST_KERNELS_H
#define TEST_KERNELS_H

#include "kernels/table.h"
#include "selftests/control/daemon.h"
#include "selftests/control/images.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>

/* What a manifest says; of those made by describe() each field may be changed before it is signed.
 */
struct offer {
	int image;
	char op[64], name[64], device[16], formats[64], abi[32], sha256[80];
	char extra[64];	     /* more JSON, with a comma before it */
	char signature[128]; /* "": there is none */
};

static inline EVP_PKEY *make_key(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
	EVP_PKEY *key = NULL;

	ASSERT_EQ(1, EVP_PKEY_keygen_init(ctx));
	ASSERT_EQ(1, EVP_PKEY_keygen(ctx, &key));
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static inline void write_key(EVP_PKEY *key, const char *path, mode_t mode)
{
	FILE *f = fopen(path, "w");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, PEM_write_PUBKEY(f, key));
	ASSERT_EQ(0, fchmod(fileno(f), mode));
	fclose(f);
}

static inline void hash_image(struct offer *o)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char piece[65536], sha256[32];
	off_t at = 0;
	ssize_t n;

	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while ((n = pread(o->image, piece, sizeof(piece), at)) > 0) {
		EVP_DigestUpdate(md, piece, (size_t)n);
		at += n;
	}
	EVP_DigestFinal_ex(md, sha256, NULL);
	EVP_MD_CTX_free(md);
	for (int i = 0; i < 32; i++)
		snprintf(o->sha256 + 2 * i, 3, "%02x", sha256[i]);
}

/* A true manifest of an image for @op that calls itself as its file. */
static inline void describe(struct offer *o, const char *op, const char *name)
{
	memset(o, 0, sizeof(*o));
	o->image = open_image(name);
	snprintf(o->op, sizeof(o->op), "%s", op);
	snprintf(o->name, sizeof(o->name), "%s", name);
	strcpy(o->device, "cpu");
	strcpy(o->formats, "f32");
	snprintf(o->abi, sizeof(o->abi), "%016llx",
		 (unsigned long long)pst_op_abi(pst_op_find(op)));
	hash_image(o);
}

/* The text is written here once more, so that it cannot change by mistake. */
static inline void sign(struct offer *o, EVP_PKEY *key)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char raw[64];
	size_t len = sizeof(raw);
	char text[512];
	int n = snprintf(text, sizeof(text),
			 "penstock-kernel\nop %s\nname %s\ndevice %s\nformats %s\nabi %s\n"
			 "sha256 %s\n",
			 o->op, o->name, o->device, o->formats, o->abi, o->sha256);

	ASSERT_EQ(1, EVP_DigestSignInit(ctx, NULL, NULL, NULL, key));
	ASSERT_EQ(1, EVP_DigestSign(ctx, raw, &len, (unsigned char *)text, (size_t)n));
	EVP_MD_CTX_free(ctx);
	EVP_EncodeBlock((unsigned char *)o->signature, raw, 64);
}

static inline int manifest_file(const struct offer *o)
{
	char text[1024];
	int n = snprintf(text, sizeof(text),
			 "{\"op\": \"%s\", \"name\": \"%s\", \"device\": \"%s\", \"formats\": "
			 "[\"%s\"], \"abi\": \"%s\", \"sha256\": \"%s\"%s%s%s%s}",
			 o->op, o->name, o->device, o->formats, o->abi, o->sha256, o->extra,
			 *o->signature ? ", \"signature\": \"" : "", o->signature,
			 *o->signature ? "\"" : "");

	return bytes_file(text, (size_t)n);
}

/* 0 or what was refused, with the sentence in @err. */
static inline int load_offer(struct pst_control *control, const struct offer *o, uint32_t flags,
			     struct pst_cmd_kernel_load *out, struct pst_error *err)
{
	struct pst_cmd_kernel_load load = {.size = sizeof(load),
					   .flags = flags,
					   .image_fd = o->image,
					   .manifest_fd = manifest_file(o)};
	int manifest = load.manifest_fd, rc;

	memset(err, 0, sizeof(*err));
	rc = pst_control_call(control, PST_CMD_KERNEL_LOAD, &load, err);
	/* they are the caller's, and come back as they went */
	EXPECT_EQ(o->image, load.image_fd);
	EXPECT_EQ(manifest, load.manifest_fd);
	close(manifest);
	close(o->image);
	if (!rc && out)
		*out = load;
	return rc;
}

static inline uint32_t load_good(struct pst_control *control, EVP_PKEY *key, const char *op,
				 const char *name)
{
	struct pst_cmd_kernel_load load = {0};
	struct pst_error err;
	struct offer o;

	describe(&o, op, name);
	sign(&o, key);
	ASSERT_OK(load_offer(control, &o, PST_KERNEL_LOAD_SLOWER, &load, &err), &err);
	return load.out_id;
}

static inline int bind_kernel(struct pst_control *control, uint32_t id, struct pst_error *err)
{
	struct pst_cmd_kernel_bind bind = {.size = sizeof(bind), .id = id};

	memset(err, 0, sizeof(*err));
	return pst_control_call(control, PST_CMD_KERNEL_BIND, &bind, err);
}

static inline int rollback_kernel(struct pst_control *control, uint32_t id, uint32_t *now,
				  struct pst_error *err)
{
	struct pst_cmd_kernel_rollback back = {.size = sizeof(back), .id = id};
	int rc;

	memset(err, 0, sizeof(*err));
	rc = pst_control_call(control, PST_CMD_KERNEL_ROLLBACK, &back, err);
	if (!rc)
		*now = back.out_id;
	return rc;
}

static inline int unload_kernel(struct pst_control *control, uint32_t id, struct pst_error *err)
{
	struct pst_cmd_kernel_unload unload = {.size = sizeof(unload), .id = id};

	memset(err, 0, sizeof(*err));
	return pst_control_call(control, PST_CMD_KERNEL_UNLOAD, &unload, err);
}

static inline struct pst_cmd_kernel_stat stat_kernel(struct pst_control *control, uint32_t id)
{
	struct pst_cmd_kernel_stat stat = {.size = sizeof(stat), .id = id};
	struct pst_error err = {0};

	ASSERT_OK(pst_control_call(control, PST_CMD_KERNEL_STAT, &stat, &err), &err);
	return stat;
}

static inline struct pst_cmd_worker_stat stat_worker(struct pst_control *control, uint32_t id)
{
	struct pst_cmd_worker_stat stat = {.size = sizeof(stat), .id = id};
	struct pst_error err = {0};

	ASSERT_OK(pst_control_call(control, PST_CMD_WORKER_STAT, &stat, &err), &err);
	return stat;
}

/* What crashes dies of it in a build with sanitizers too, which else would end it with a report. */
static inline void let_crash(void)
{
	static const char *const name[] = {"ASAN_OPTIONS", "TSAN_OPTIONS"};
	char options[4096];

	for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
		const char *old = getenv(name[i]);

		snprintf(options, sizeof(options), "%s%shandle_segv=0", old ? old : "",
			 old ? ":" : "");
		setenv(name[i], options, 1);
	}
}

#endif /* TEST_KERNELS_H */
