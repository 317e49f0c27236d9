/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/keep/keep_index.h"

#include "rdma/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS (KEEP_MAX + 1) /* one more, for what is written beside what it replaces */
#define MAGIC 0x314b505453574b01ull

/* As it lies in the file. Zeros are a free slot. */
struct slot {
	uint64_t magic; /* of this layout */
	uint32_t crc;	/* of all behind it */
	uint32_t about_len;
	uint64_t version;
	uint64_t number;
	char name[KEEP_NAME];
	char about[KEEP_ABOUT];
};

#define CRC_FROM offsetof(struct slot, about_len)

static off_t offset(uint32_t slot)
{
	return (off_t)(slot * sizeof(struct slot));
}

static uint32_t checksum(const struct slot *s)
{
	return pst_crc32c(0, (const char *)s + CRC_FROM, sizeof(*s) - CRC_FROM);
}

int keep_index_new(struct keep_index *x)
{
	int fd = memfd_create("penstock-keep", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, offset(SLOTS)) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) || fchmod(fd, 0600)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	*x = (struct keep_index){.fd = fd};
	return 0;
}

void keep_index_close(struct keep_index *x)
{
	if (x->fd >= 0)
		close(x->fd);
	*x = (struct keep_index){.fd = -1};
}

int keep_index_write(struct keep_index *x, struct keep_record *r)
{
	struct slot s = {.magic = MAGIC,
			 .about_len = r->about_len,
			 .version = x->version + 1,
			 .number = r->number};
	uint32_t at = 0;
	ssize_t n;

	while (at < SLOTS && x->used[at])
		at++;
	if (at == SLOTS)
		return -ENOSPC;
	memcpy(s.name, r->name, sizeof(s.name));
	memcpy(s.about, r->about, r->about_len);
	s.crc = checksum(&s);
	n = pwrite(x->fd, &s, sizeof(s), offset(at));
	if (n != sizeof(s))
		return n < 0 ? -errno : -ENOSPC;
	x->used[at] = true;
	r->version = ++x->version;
	r->slot = at;
	return 0;
}

void keep_index_clear(struct keep_index *x, uint32_t slot)
{
	static const uint64_t none;

	if (pwrite(x->fd, &none, sizeof(none), offset(slot)) == sizeof(none))
		x->used[slot] = false;
}

static bool whole(const struct slot *s)
{
	return s->magic == MAGIC && s->about_len <= KEEP_ABOUT && s->name[0] &&
	       !s->name[KEEP_NAME - 1] && s->crc == checksum(s);
}

/* Is there a later one of the same name? Versions are all different. */
static bool is_latest(const struct slot *all, uint32_t at)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (all[i].version > all[at].version &&
		    !strncmp(all[i].name, all[at].name, KEEP_NAME) && whole(&all[i]))
			return false;
	return true;
}

static void tell(const struct slot *s, uint32_t at, keep_index_fn *fn, void *ctx)
{
	struct keep_record r = {
		.number = s->number, .version = s->version, .slot = at, .about_len = s->about_len};

	memcpy(r.name, s->name, sizeof(r.name));
	memcpy(r.about, s->about, sizeof(r.about));
	fn(ctx, &r);
}

int keep_index_adopt(struct keep_index *x, int fd, keep_index_fn *fn, void *ctx)
{
	struct slot *all;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) || st.st_size != offset(SLOTS))
		return -EBADMSG;
	all = malloc((size_t)st.st_size);
	if (!all)
		return -ENOMEM;
	n = pread(fd, all, (size_t)st.st_size, 0);
	if (n != st.st_size) {
		free(all);
		return -EBADMSG;
	}
	*x = (struct keep_index){.fd = fd};
	for (uint32_t i = 0; i < SLOTS; i++) {
		if (!whole(&all[i]))
			continue;
		if (all[i].version > x->version)
			x->version = all[i].version;
		if (is_latest(all, i)) {
			x->used[i] = true;
			tell(&all[i], i, fn, ctx);
		} else {
			keep_index_clear(x, i);
		}
	}
	free(all);
	return 0;
}
