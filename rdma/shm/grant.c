/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants: the owner sends the region's fd over the socket, the peer maps it
 * when the key is first used.
 *
 * A key is known only to the two ends of the link whose socket the fd went
 * over, so it cannot be used on another link, and it ends with the link.
 */
#include "rdma/shm/shm.h"
#include "rdma/shm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static struct shm_link *to_link(struct pst_link *base)
{
	return pst_container(base, struct shm_link, base);
}

/*
 * An fd through which the peer cannot write. The seal is enough where the owner
 * set it; otherwise the fd is opened again, for reading only. That holds
 * against mmap, mprotect and write; a process of the same user that goes on to
 * open /proc/PID/fd itself could as well attach to the owner with ptrace.
 */
static int read_only_fd(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	char path[64];
	int ro;

	if (seals >= 0 && seals & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE))
		ro = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ro = open(path, O_RDONLY | O_CLOEXEC);
	}
	return ro < 0 ? -errno : ro;
}

static int send_grant(struct shm_link *link, const struct pst_region *region, uint32_t access,
		      const struct pst_key *key)
{
	const struct shm_packet packet = {
		.type = SHM_GRANT,
		.access = access,
		.len = region->len,
		.key = *key,
	};
	int rc, fd;

	if (access & PST_ACCESS_WRITE)
		return pst_shm_send(link->src.fd, &packet, sizeof(packet), region->fd);
	fd = read_only_fd(region->fd);
	if (fd < 0)
		return fd;
	rc = pst_shm_send(link->src.fd, &packet, sizeof(packet), fd);
	close(fd);
	return rc;
}

int pst_shm_link_grant(struct pst_link *base, struct pst_region *region, uint32_t access,
		       struct pst_key *out)
{
	struct shm_link *link = to_link(base);
	struct shm_given *given = link->given;
	struct pst_key key;
	int rc;

	if (link->state != SHM_LIVE)
		return -ENOTCONN;
	for (unsigned int i = 0; i < link->ngiven; i++) {
		if (given[i].region_id == region->id && given[i].access == access) {
			*out = given[i].key;
			return 0;
		}
	}
	if (link->ngiven == SHM_GRANTS_MAX)
		return -ENOSPC;
	if (getrandom(&key, sizeof(key), 0) != sizeof(key))
		return -EIO;
	rc = send_grant(link, region, access, &key);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return -ENOTCONN;
	if (rc)
		return rc;
	given[link->ngiven++] =
		(struct shm_given){.key = key, .region_id = region->id, .access = access};
	*out = key;
	return 0;
}

static bool has_key(const struct shm_taken *t, const struct pst_key *key)
{
	return t->key.k[0] == key->k[0] && t->key.k[1] == key->k[1];
}

static struct shm_taken *lookup(struct shm_link *link, const struct pst_key *key)
{
	/* mostly it is the one that was used last */
	if (link->ntaken && has_key(&link->taken[link->last], key))
		return &link->taken[link->last];
	for (unsigned int i = 0; i < link->ntaken; i++) {
		if (has_key(&link->taken[i], key)) {
			link->last = i;
			return &link->taken[i];
		}
	}
	return NULL;
}

/*
 * Only a memfd or hugetlbfs file that can never shrink is mapped: another file
 * could block us, a shorter one would kill us with SIGBUS.
 */
static bool safe_to_map(int fd, uint64_t len)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstat(fd, &st) && len &&
	       len <= (uint64_t)st.st_size;
}

int pst_shm_take(struct shm_link *link, uint32_t access, uint64_t len, struct pst_key key, int fd)
{
	bool good = fd >= 0 && link->ntaken < SHM_GRANTS_MAX && safe_to_map(fd, len) &&
		    (access == PST_ACCESS_READ || access == (PST_ACCESS_READ | PST_ACCESS_WRITE)) &&
		    !lookup(link, &key);

	if (!good) {
		if (fd >= 0)
			close(fd);
		return -EPROTO;
	}
	link->taken[link->ntaken++] =
		(struct shm_taken){.key = key, .access = access, .len = len, .fd = fd};
	return 0;
}

static int map_taken(struct shm_taken *t)
{
	int prot = t->access & PST_ACCESS_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	struct stat st;
	uint64_t page;
	void *addr;

	if (fstat(t->fd, &st))
		return -errno;
	/* hugetlbfs maps whole pages only, and says their size here */
	page = (uint64_t)st.st_blksize;
	t->maplen =
		page && t->len <= UINT64_MAX - page ? (t->len + page - 1) / page * page : t->len;
	addr = mmap(NULL, t->maplen, prot, MAP_SHARED, t->fd, 0);
	if (addr == MAP_FAILED)
		return errno == EPERM ? -EACCES : -errno;
	t->addr = addr;
	close(t->fd);
	t->fd = -1;
	return 0;
}

int pst_shm_find(struct shm_link *link, const struct pst_key *key, uint32_t access,
		 struct shm_taken **out)
{
	struct shm_taken *t = lookup(link, key);
	int rc;

	if (!t) {
		/* The owner sent the fd before it told anybody the key. */
		pst_shm_link_read(link);
		t = lookup(link, key);
	}
	if (!t)
		return link->state == SHM_LIVE ? -ENOENT : link->why;
	if (access & ~t->access)
		return -EACCES;
	rc = t->addr ? 0 : map_taken(t);
	if (!rc)
		*out = t;
	return rc;
}

int pst_shm_link_map(struct pst_link *base, struct pst_key key, uint32_t access, void **addr,
		     uint64_t *len)
{
	struct shm_taken *t;
	int rc = pst_shm_find(to_link(base), &key, access, &t);

	if (rc)
		return rc;
	*addr = t->addr;
	*len = t->len;
	return 0;
}

void pst_shm_drop_grants(struct shm_link *link)
{
	for (unsigned int i = 0; i < link->ntaken; i++) {
		struct shm_taken *t = &link->taken[i];

		if (t->addr)
			munmap(t->addr, t->maplen);
		if (t->fd >= 0)
			close(t->fd);
	}
	link->ntaken = 0;
}
