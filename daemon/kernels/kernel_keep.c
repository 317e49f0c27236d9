/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that were loaded outlive the daemon, with their places in their slots: the next one tries
 * nothing again. What is built in is not kept; where places are missing, there it was.
 */
#include "daemon/kernels/kernels_priv.h"

#include "daemon/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void entry_name(const struct kernel *k, char name[32])
{
	snprintf(name, 32, "kernel-%u", k->id);
}

static int place_of(const struct slot *s, const struct kernel *k)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->at[i] == k)
			return (int)i;
	return -1;
}

static void hex(const unsigned char *bytes, size_t n, char *text)
{
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

void kernel_keep(struct kernels *ks, struct kernel *k)
{
	struct pst_error err = {0};
	char name[32], hash[65];
	json_t *about;
	int rc;

	if (k->builtin || !ks->d->keep)
		return;
	hex(k->hash, sizeof(k->hash), hash);
	about = json_pack("{s:i, s:s, s:s, s:i, s:s, s:i, s:b, s:i, s:i, s:I, s:I, s:I}", "id",
			  (int)k->id, "op", pst_op_name(k->op), "name", k->name, "device",
			  (int)k->kind, "sha256", hash, "place", place_of(&ks->slot[k->op], k),
			  "taken_back", k->state == PST_KERNEL_TAKEN_BACK, "speed", (int)k->speed,
			  "of", (int)ks->slot[k->op].n, "checks", (json_int_t)k->checks,
			  "error_ppb", (json_int_t)k->error_ppb, "bound", (json_int_t)k->bound);
	entry_name(k, name);
	rc = about ? keep_put(ks->d->keep, name, k->image, about, &err) : -ENOMEM;
	json_decref(about);
	if (rc < 0)
		log_line(LOG_WARNING, NULL, "kernel %u would not outlive this daemon: %s", k->id,
			 err.text[0] ? err.text : strerror(-rc));
}

void slot_keep(struct slot *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		kernel_keep(s->ks, s->at[i]);
}

void kernel_unkeep(struct kernels *ks, const struct kernel *k)
{
	char name[32];

	entry_name(k, name);
	if (ks->d->keep)
		keep_drop(ks->d->keep, name);
}

/* Brought back */

static bool take_hash(const char *text, unsigned char hash[32])
{
	if (!text || strlen(text) != 64)
		return false;
	for (size_t i = 0; i < 32; i++) {
		unsigned int byte;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return false;
		hash[i] = (unsigned char)byte;
	}
	return true;
}

static json_int_t number(const json_t *about, const char *key)
{
	return json_integer_value(json_object_get(about, key));
}

/* What nobody could have written to since it was tried. */
static bool is_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && seals & F_SEAL_WRITE && seals & F_SEAL_SHRINK && seals & F_SEAL_GROW;
}

/* Into its place; until all are there a slot may have holes. */
static void put_at(struct slot *s, struct kernel *k, json_int_t place, json_int_t of)
{
	if (place < 0 || place >= SLOT_MAX || of > SLOT_MAX || of <= place)
		return;
	if (s->at[place] && !s->at[place]->builtin)
		return;
	if ((uint32_t)of > s->n) {
		memset(s->at + s->n, 0, ((uint32_t)of - s->n) * sizeof(s->at[0]));
		s->n = (uint32_t)of;
	}
	s->at[place] = k;
}

static void bring_back(void *ctx, const char *name, int fd, json_t *about)
{
	const char *op = json_string_value(json_object_get(about, "op"));
	const char *own = json_string_value(json_object_get(about, "name"));
	json_int_t id = number(about, "id");
	struct kernels *ks = ctx;
	struct manifest m = {.kind = (uint32_t)number(about, "device")};
	struct kernel *k;

	if (op && own)
		snprintf(m.name, sizeof(m.name), "%s", own);
	if (!op || !own || pst_op_find(op) == PST_OP_COUNT || id < FIRST_LOADED || id > INT32_MAX ||
	    kernel_find(ks, (uint32_t)id) || m.kind != PST_DEVICE_CPU || !is_sealed(fd) ||
	    !take_hash(json_string_value(json_object_get(about, "sha256")), m.sha256)) {
		log_line(LOG_WARNING, NULL, "%s of an earlier daemon is none that is known here",
			 name);
		keep_drop(ks->d->keep, name);
		close(fd);
		return;
	}
	snprintf(m.op, sizeof(m.op), "%s", op);
	k = kernel_new(ks, (uint32_t)id, &m, fd);
	if (!k) {
		close(fd);
		return;
	}
	k->speed = (uint32_t)number(about, "speed");
	k->checks = (uint64_t)number(about, "checks");
	k->error_ppb = (uint64_t)number(about, "error_ppb");
	k->bound = (uint64_t)number(about, "bound");
	if (k->bound > ks->bound)
		ks->bound = k->bound;
	if (json_is_true(json_object_get(about, "taken_back")))
		k->state = PST_KERNEL_TAKEN_BACK;
	else
		put_at(&ks->slot[k->op], k, number(about, "place"), number(about, "of"));
}

/* Close the holes: the first is what is built in, others are entries that were lost. */
static void settle(struct slot *s)
{
	struct kernel *builtin = &s->ks->builtin[s->op];
	uint32_t n = 0;
	bool there = false;

	for (uint32_t i = 0; i < s->n; i++) {
		struct kernel *k = s->at[i];

		if (!k || k->builtin) {
			if (there)
				continue;
			k = builtin;
			there = true;
		}
		s->at[n++] = k;
	}
	if (!there) {
		n -= n == SLOT_MAX;
		memmove(s->at + 1, s->at, n++ * sizeof(s->at[0]));
		s->at[0] = builtin;
	}
	s->n = n;
	for (uint32_t i = 0; i < n; i++)
		s->at[i]->state = i + 1 < n ? PST_KERNEL_REPLACED : PST_KERNEL_BOUND;
}

void kernels_bring_back(struct kernels *ks)
{
	if (!ks->d->keep)
		return;
	keep_each(ks->d->keep, "kernel-", bring_back, ks);
	for (int op = 0; op < PST_OP_COUNT; op++)
		settle(&ks->slot[op]);
}
