/* SPDX-License-Identifier: Apache-2.0 */
/* The shm fabric's table of functions, and its regions. */
#include "rdma/shm/shm.h"
#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int64_t pst_shm_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * The file must be one that cannot shrink: a peer that has it mapped would die
 * of SIGBUS, and a peer that is careful (see pst_shm_take) does not accept it.
 */
static int seal_size(int fd, struct pst_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0)
		return pst_fail(err, -EINVAL, "region: fd %d is neither memfd nor hugetlbfs", fd);
	if (seals & F_SEAL_SHRINK || !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return 0;
	return pst_fail(err, -EINVAL,
			"region: fd %d cannot be sealed against shrinking (%s); create it by "
			"memfd_create with MFD_ALLOW_SEALING",
			fd, strerror(errno));
}

static int region_register(struct pst_region *region, struct pst_error *err)
{
	int mode = fcntl(region->fd, F_GETFL);
	struct stat st;

	if (mode < 0 || fstat(region->fd, &st))
		return pst_fail(err, -EINVAL,
				"region: shm shares memory by its file, and %d is no open file",
				region->fd);
	if (region->access & PST_ACCESS_WRITE && (mode & O_ACCMODE) != O_RDWR)
		return pst_fail(err, -EINVAL, "region: fd %d is not open for writing", region->fd);
	if (region->len > (uint64_t)st.st_size)
		return pst_fail(err, -EINVAL, "region: %llu bytes asked for, the file has %lld",
				(unsigned long long)region->len, (long long)st.st_size);
	return seal_size(region->fd, err);
}

const struct pst_fabric_ops pst_shm_ops = {
	.scheme = "shm",
	.region_register = region_register,
	.cq_create = pst_shm_cq_create,
	.cq_destroy = pst_shm_cq_destroy,
	.cq_poll = pst_shm_cq_poll,
	.cq_wait = pst_shm_cq_wait,
	.cq_wake = pst_shm_cq_wake,
	.listen = pst_shm_listen,
	.listener_close = pst_shm_listener_close,
	.connect = pst_shm_connect,
	.link_close = pst_shm_link_close,
	.link_grant = pst_shm_link_grant,
	.link_map = pst_shm_link_map,
	.link_post = pst_shm_link_post,
	.link_room = pst_shm_link_room,
	.link_info = pst_shm_link_info,
};
