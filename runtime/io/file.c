/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/file.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_STEP (64u << 10)

const char *pst_reason(int code)
{
	const char *text = strerrordesc_np(code < 0 ? -code : code);

	return text ? text : "unknown error";
}

static const char *kind_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a fifo";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	}
	return "not a file";
}

static int check_kind(const char *path, enum pst_file_kind kind, const struct stat *st,
		      struct pst_error *err)
{
	if (S_ISREG(st->st_mode) || (kind == PST_FILE_OR_DEVICE && S_ISBLK(st->st_mode)))
		return 0;
	return pst_fail(err, -EINVAL, "%s is %s, not a regular file", path, kind_name(st->st_mode));
}

static int fail_open(const char *path, int code, struct pst_error *err)
{
	if (code == ELOOP)
		return pst_fail(err, -EINVAL, "%s: its symbolic links go round in a circle", path);
	return pst_fail(err, -code, "%s: cannot be opened: %s", path, pst_reason(code));
}

int pst_file_open(const char *path, enum pst_file_kind kind, struct stat *st, struct pst_error *err)
{
	struct stat now;
	int fd, rc;

	/* Merely opening some devices does something, so look first. */
	if (stat(path, &now) < 0)
		return fail_open(path, errno, err);
	rc = check_kind(path, kind, &now, err);
	if (rc < 0)
		return rc;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return fail_open(path, errno, err);
	if (fstat(fd, &now) < 0) {
		rc = fail_open(path, errno, err);
		goto close_fd;
	}
	rc = check_kind(path, kind, &now, err);
	if (rc < 0)
		goto close_fd;
	/* With O_NONBLOCK io_uring would answer EAGAIN where it should wait. */
	if (fcntl(fd, F_SETFL, 0) < 0) {
		rc = fail_open(path, errno, err);
		goto close_fd;
	}
	if (st)
		*st = now;
	return fd;

close_fd:
	close(fd);
	return rc;
}

static int read_all(int fd, const char *path, size_t max, size_t hint, char **out, size_t *len,
		    struct pst_error *err)
{
	size_t room = (hint < max ? hint : max) + 1, got = 0;
	char *buf = NULL, *grown;
	ssize_t n;
	int rc;

	for (;;) {
		/* One byte over @max shows that there is more; one is for the NUL. */
		grown = realloc(buf, room + 1);
		if (!grown) {
			rc = pst_fail(err, -ENOMEM, "%s: no memory for %zu bytes", path, room);
			goto free_buf;
		}
		buf = grown;
		n = read(fd, buf + got, room - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = pst_fail(err, -errno, "%s: cannot be read: %s", path,
				      pst_reason(errno));
			goto free_buf;
		}
		if (n == 0)
			break;
		got += n;
		if (got > max) {
			rc = pst_fail(err, -EFBIG, "%s is larger than %zu bytes", path, max);
			goto free_buf;
		}
		if (got == room)
			room = max - got < READ_STEP ? max + 1 : got + READ_STEP + got / 2;
		if (room > max + 1)
			room = max + 1;
	}
	buf[got] = '\0';
	*out = buf;
	*len = got;
	return 0;

free_buf:
	free(buf);
	return rc;
}

int pst_file_read(const char *path, size_t max, char **out, size_t *len, struct pst_error *err)
{
	struct stat st;
	int fd, rc;

	if (!path || !out || !len || max > SIZE_MAX / 4)
		return pst_fail(err, -EINVAL, "file_read: wrong arguments");
	fd = pst_file_open(path, PST_FILE_REGULAR, &st, err);
	if (fd < 0)
		return fd;
	rc = read_all(fd, path, max, st.st_size > 0 ? (size_t)st.st_size : 0, out, len, err);
	close(fd);
	return rc;
}

static int open_dir(struct pst_replace *r, struct pst_error *err)
{
	const char *slash = strrchr(r->path, '/');
	size_t len = slash ? (size_t)(slash - r->path) + 1 : 0;
	char dir[PATH_MAX];

	r->name = slash ? slash + 1 : r->path;
	if (!*r->name || len >= sizeof(dir))
		return pst_fail(err, -EINVAL, "%s: not the name of a file", r->path);
	memcpy(dir, r->path, len);
	dir[len] = '\0';
	r->dir = open(len ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dir < 0)
		return pst_fail(err, -errno, "%s: its directory cannot be opened: %s", r->path,
				pst_reason(errno));
	return 0;
}

static void name_tmp(struct pst_replace *r)
{
	static atomic_uint count;

	snprintf(r->tmp, sizeof(r->tmp), ".penstock-%ld-%u.tmp", (long)getpid(),
		 atomic_fetch_add(&count, 1));
}

static int open_named(struct pst_replace *r)
{
	int fd;

	/* A name can be left over from a process with our number. */
	do {
		name_tmp(r);
		fd = openat(r->dir, r->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	} while (fd < 0 && errno == EEXIST);
	r->named = fd >= 0;
	return fd;
}

static int open_tmp(struct pst_replace *r)
{
	int fd = -1;

	/* A file without a name gets one through /proc, which a chroot may lack. */
	if (access("/proc/self/fd", X_OK) == 0)
		fd = openat(r->dir, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
	return fd >= 0 ? fd : open_named(r);
}

int pst_replace_begin(struct pst_replace *r, const char *path, struct pst_error *err)
{
	struct stat st;
	int rc;

	memset(r, 0, sizeof(*r));
	r->path = path;
	rc = open_dir(r, err);
	if (rc < 0)
		return rc;
	r->fd = open_tmp(r);
	if (r->fd < 0) {
		rc = pst_fail(err, -errno, "%s: no file can be made beside it: %s", path,
			      pst_reason(errno));
		close(r->dir);
		return rc;
	}
	/* A secret must not become readable by being rewritten. */
	if (fstatat(r->dir, r->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	    fchmod(r->fd, st.st_mode & 0777) < 0) {
		rc = pst_fail(err, -errno, "%s: its mode cannot be kept: %s", path,
			      pst_reason(errno));
		pst_replace_abort(r);
		return rc;
	}
	return 0;
}

static int fail_write(struct pst_replace *r, int code, struct pst_error *err)
{
	return pst_fail(err, -code, "%s: cannot be written: %s%s; what was there is unchanged",
			r->path, pst_reason(code),
			code == ENOSPC || code == EDQUOT ? " (see: df -h)" : "");
}

int pst_replace_reserve(struct pst_replace *r, uint64_t bytes, struct pst_error *err)
{
	if (!bytes || fallocate(r->fd, 0, 0, (off_t)bytes) == 0)
		return 0;
	if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)
		return fail_write(r, errno, err);
	return 0;
}

int pst_replace_write(struct pst_replace *r, struct iovec *iov, unsigned int n, uint64_t offset,
		      struct pst_error *err)
{
	ssize_t done;

	while (n) {
		if (!iov->iov_len) {
			iov++;
			n--;
			continue;
		}
		done = pwritev(r->fd, iov, n < IOV_MAX ? n : IOV_MAX, (off_t)offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return fail_write(r, done ? errno : EIO, err);
		offset += done;
		while (n && (size_t)done >= iov->iov_len) {
			done -= iov->iov_len;
			iov++;
			n--;
		}
		if (done) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= done;
		}
	}
	return 0;
}

static int give_name(struct pst_replace *r)
{
	char fd[32];

	if (r->named)
		return 0;
	snprintf(fd, sizeof(fd), "/proc/self/fd/%d", r->fd);
	do {
		name_tmp(r);
		if (linkat(AT_FDCWD, fd, r->dir, r->tmp, AT_SYMLINK_FOLLOW) == 0) {
			r->named = true;
			return 0;
		}
	} while (errno == EEXIST);
	return -errno;
}

int pst_replace_commit(struct pst_replace *r, struct pst_error *err)
{
	int rc;

	if (fsync(r->fd) < 0) {
		rc = fail_write(r, errno, err);
		goto abort;
	}
	rc = give_name(r);
	if (rc < 0) {
		rc = fail_write(r, -rc, err);
		goto abort;
	}
	if (renameat(r->dir, r->tmp, r->dir, r->name) < 0) {
		rc = fail_write(r, errno, err);
		goto abort;
	}
	r->named = false;
	/* Some file systems have no fsync for directories: EINVAL. */
	if (fsync(r->dir) < 0 && errno != EINVAL)
		rc = pst_fail(err, -errno,
			      "%s is written but its directory is not on the drive: %s", r->path,
			      pst_reason(errno));
abort:
	pst_replace_abort(r);
	return rc;
}

void pst_replace_abort(struct pst_replace *r)
{
	if (r->named)
		unlinkat(r->dir, r->tmp, 0);
	close(r->fd);
	close(r->dir);
}

int pst_file_replace(const char *path, const void *data, size_t len, struct pst_error *err)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct pst_replace r;
	int rc;

	if (!path || (len && !data))
		return pst_fail(err, -EINVAL, "file_replace: wrong arguments");
	rc = pst_replace_begin(&r, path, err);
	if (rc < 0)
		return rc;
	rc = pst_replace_write(&r, &iov, 1, 0, err);
	if (rc < 0) {
		pst_replace_abort(&r);
		return rc;
	}
	return pst_replace_commit(&r, err);
}
