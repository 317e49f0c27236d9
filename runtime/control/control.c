/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's struct is never touched directly: it goes through a pipe, so that memory that is not
 * there is -EFAULT, as ioctl(2) has it, and no crash.
 */
#include "rdma/fail.h"
#include "runtime/penstock.h"

#include <errno.h>
#include <fcntl.h>
#include <penstock/door.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MODULE "/dev/penstock"

struct pst_control {
	pthread_mutex_t lock; /* one request at a time */
	int socket, module;   /* -1: none */
	int lost;	      /* why the socket is closed: -ECONNRESET, or the door refused us */
	int pipe[2];	      /* between the caller's memory and ours; empty between calls */
};

struct call {
	uint32_t cmd, size;
	void *arg;				      /* the caller's */
	int32_t in_fd[PST_DOOR_FDS];		      /* as they stood there */
	_Alignas(8) unsigned char copy[PST_DOOR_MAX]; /* what is sent, and what came */
};

/* Where a command's descriptors are in its struct; -1: nowhere. */
struct fields {
	const char *name;
	uint32_t size;
	int in_fd[PST_DOOR_FDS], out_fd;
};

#define NONE___none		  0, -1
#define SECOND_(a, b, ...)	  b
#define SECOND(...)		  SECOND_(__VA_ARGS__)
#define FD_FIELD_(name, field, x) SECOND(x, (int)offsetof(struct name, field), 0)
#define FD_FIELD(name, field)	  FD_FIELD_(name, field, NONE_##field)
#define FIELDS_ROW(NAME, cmd, last, in1, in2, out)                            \
	[PST_CMD_##NAME - PST_CMD_BASE] = {                                   \
		#NAME,                                                        \
		sizeof(struct pst_cmd_##cmd),                                 \
		{FD_FIELD(pst_cmd_##cmd, in1), FD_FIELD(pst_cmd_##cmd, in2)}, \
		FD_FIELD(pst_cmd_##cmd, out),                                 \
	},

static const struct fields all_fields[] = {PST_COMMANDS(FIELDS_ROW)};

static const struct fields *fields_of(uint32_t cmd)
{
	return cmd >= PST_CMD_BASE && cmd < PST_CMD_END ? &all_fields[cmd - PST_CMD_BASE] : NULL;
}

/* Through the pipe: 0, or -EFAULT if @from or @to is not memory as it should be. */
static int copy(struct pst_control *control, void *to, const void *from, uint32_t len)
{
	ssize_t in = write(control->pipe[1], from, len), out;
	unsigned char drop[PST_DOOR_MAX];

	if (in != (ssize_t)len) {
		while (in > 0 && read(control->pipe[0], drop, sizeof(drop)) > 0)
			;
		return -EFAULT;
	}
	out = read(control->pipe[0], to, len);
	if (out == (ssize_t)len)
		return 0;
	while (read(control->pipe[0], drop, sizeof(drop)) > 0)
		;
	return -EFAULT;
}

static int copy_in(struct pst_control *control, struct call *call)
{
	int rc = copy(control, &call->size, call->arg, sizeof(call->size));

	if (rc)
		return rc;
	if (call->size > PST_DOOR_MAX)
		return -E2BIG;
	return call->size ? copy(control, call->copy, call->arg, call->size) : 0;
}

/* The numbers of descriptors become their places among those that are sent. */
static uint32_t take_fds(const struct fields *f, struct call *call, int fds[PST_DOOR_FDS])
{
	uint32_t n = 0;

	for (int i = 0; i < PST_DOOR_FDS; i++) {
		int32_t fd, place = -1;

		if (f->in_fd[i] < 0 || (uint32_t)f->in_fd[i] + sizeof(fd) > call->size)
			continue;
		memcpy(&fd, call->copy + f->in_fd[i], sizeof(fd));
		call->in_fd[i] = fd;
		if (fd >= 0 && fcntl(fd, F_GETFD) >= 0) {
			place = (int32_t)n;
			fds[n++] = fd;
		}
		memcpy(call->copy + f->in_fd[i], &place, sizeof(place));
	}
	return n;
}

static int send_request(int to, struct call *call, const int *fds, uint32_t nfds)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int) * PST_DOOR_FDS)] = {0};
	struct pst_door_request head = {.cmd = call->cmd};
	struct iovec iov[] = {{&head, sizeof(head)}, {call->copy, call->size}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		n = sendmsg(to, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fd(struct msghdr *msg, int *fd)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    c->cmsg_len >= CMSG_LEN(sizeof(int)))
			memcpy(fd, CMSG_DATA(c), sizeof(int));
}

static ssize_t receive_once(int from, struct call *call, struct pst_door_answer *head, int *fd,
			    bool *cut)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))];
	struct iovec iov[] = {{head, sizeof(*head)}, {call->copy, sizeof(call->copy)}};
	struct msghdr msg = {.msg_iov = iov,
			     .msg_iovlen = 2,
			     .msg_control = space,
			     .msg_controllen = sizeof(space)};
	ssize_t n;

	do
		n = recvmsg(from, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fd(&msg, fd);
	*cut = msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	return n;
}

/* Bytes of the struct that came, or -errno; *@fd is set if one came. */
static ssize_t receive(int from, struct call *call, struct pst_door_answer *head, int *fd)
{
	bool cut = false;
	ssize_t n = receive_once(from, call, head, fd, &cut);

	/* said once of a door that has closed; what it had said before that comes behind it */
	if (n == -ECONNRESET)
		n = receive_once(from, call, head, fd, &cut);
	if (n == 0)
		return -ECONNRESET;
	if (n > 0 && ((size_t)n < sizeof(*head) || cut))
		return -EPROTO;
	return n < 0 ? n : n - (ssize_t)sizeof(*head);
}

/*
 * The struct goes back to where it is from, with the descriptor that came, and with those that were
 * sent as they stood there: they are the caller's.
 */
static int copy_out(struct pst_control *control, const struct fields *f, struct call *call,
		    size_t len, int *fd)
{
	bool has_fd = f->out_fd >= 0 && (uint32_t)f->out_fd + sizeof(*fd) <= call->size;
	int rc;

	if (len != call->size)
		return -EPROTO;
	for (int i = 0; i < PST_DOOR_FDS; i++)
		if (f->in_fd[i] >= 0 && (uint32_t)f->in_fd[i] + sizeof(*fd) <= call->size)
			memcpy(call->copy + f->in_fd[i], &call->in_fd[i], sizeof(*fd));
	if (has_fd)
		memcpy(call->copy + f->out_fd, fd, sizeof(*fd));
	rc = copy(control, call->arg, call->copy, call->size);
	if (!rc && has_fd)
		*fd = -1; /* the caller's now */
	return rc;
}

/* After what is no answer to the request there is no way to know what the next one answers. */
static int lose(struct pst_control *control, int rc)
{
	close(control->socket);
	control->socket = -1;
	control->lost = rc;
	return rc;
}

static int ask_socket(struct pst_control *control, const struct fields *f, struct call *call)
{
	struct pst_door_answer head;
	int fds[PST_DOOR_FDS], fd = -1, rc;
	uint32_t nfds;
	ssize_t n;

	rc = copy_in(control, call);
	if (rc)
		return rc;
	nfds = take_fds(f, call, fds);
	rc = send_request(control->socket, call, fds, nfds);
	if (rc == -ENOMEM || rc == -ENOBUFS || rc == -ETOOMANYREFS)
		return rc;
	/* a door that refused to serve us has said so before it closed */
	n = receive(control->socket, call, &head, &fd);
	if (n < 0)
		return lose(control, n == -EPROTO ? -EPROTO : -ECONNRESET);
	if (head.rc < 0 && !head.cmd)
		rc = lose(control, head.rc);
	else if (head.cmd != call->cmd || head.rc > 0)
		rc = lose(control, -EPROTO);
	else
		rc = head.rc ? head.rc : copy_out(control, f, call, (size_t)n, &fd);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* The door's sentence for the command that has just failed. */
static void ask_why(struct pst_control *control, uint32_t cmd, int code, struct pst_error *err)
{
	struct pst_cmd_why why = {.size = sizeof(why)};
	struct call call = {.cmd = PST_CMD_WHY, .arg = &why};

	if (control->socket < 0 || cmd == PST_CMD_WHY ||
	    ask_socket(control, fields_of(PST_CMD_WHY), &call))
		return;
	why.out_text[sizeof(why.out_text) - 1] = '\0';
	if (why.out_cmd == cmd && why.out_code == code && why.out_text[0])
		pst_fail(err, code, "%s", (const char *)why.out_text);
}

static int ask_module(struct pst_control *control, uint32_t cmd, void *arg)
{
	return ioctl(control->module, _IO(PST_IOCTL_TYPE, cmd), arg) < 0 ? -errno : 0;
}

static int say_lost(const struct pst_control *control, const struct fields *f,
		    struct pst_error *err)
{
	int rc = control->lost;

	if (rc == -ECONNRESET)
		return pst_fail(err, rc, "%s: penstockd is gone; ask again when it is back",
				f->name);
	if (rc == -EPROTO)
		return pst_fail(err, rc, "%s: what answers at the socket is no penstockd", f->name);
	if (rc == -EUSERS)
		return pst_fail(err, rc, "%s: penstockd serves as many callers as it may already",
				f->name);
	return pst_fail(err, rc, "%s: penstockd could not take this caller in: %s", f->name,
			strerror(-rc));
}

static int ask(struct pst_control *control, uint32_t cmd, void *arg, struct pst_error *err)
{
	const struct fields *f = fields_of(cmd);
	int rc = -ENOTTY;

	if (!f)
		return pst_fail(err, rc, "there is no command %#x", cmd);
	if (control->socket >= 0) {
		struct call call = {.cmd = cmd, .arg = arg};

		rc = ask_socket(control, f, &call);
		if (rc < 0 && (rc != -ENOTTY || control->module < 0))
			ask_why(control, cmd, rc, err);
	}
	if (control->lost)
		return say_lost(control, f, err);
	if (rc == -ENOTTY && control->module >= 0)
		rc = ask_module(control, cmd, arg);
	return rc < 0 ? pst_fail(err, rc, "%s: %s", f->name, strerror(-rc)) : 0;
}

int pst_control_call(struct pst_control *control, uint32_t cmd, void *arg, struct pst_error *err)
{
	int saved = errno, rc;

	pthread_mutex_lock(&control->lock);
	rc = ask(control, cmd, arg, err);
	pthread_mutex_unlock(&control->lock);
	errno = saved;
	return rc;
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	do
		rc = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	while (rc == -EINTR);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static int no_daemon(const char *path, int rc, struct pst_error *err)
{
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return pst_fail(
			err, rc,
			"no penstockd answers at %s, and there is no " MODULE
			" (to start one: penstockd --socket %s, or systemctl start penstockd)",
			path, path);
	return pst_fail(err, rc, "%s: %s", path, strerror(-rc));
}

static bool is_device(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISCHR(st.st_mode);
}

/* Who may not open it for writing may look. */
static int open_module(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == EACCES)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The door that was named; or the usual socket, and the module beside it or in its place. */
static int open_doors(struct pst_control *control, const char *door, struct pst_error *err)
{
	const char *path = door ? door : getenv("PENSTOCK_SOCKET");

	if (door && is_device(door)) {
		control->module = open_module(door);
		return control->module < 0 ? pst_fail(err, control->module, "%s: %s", door,
						      strerror(-control->module))
					   : 0;
	}
	if (!path || !path[0])
		path = PST_DOOR_SOCKET;
	control->socket = connect_to(path);
	if (!door)
		control->module = open_module(MODULE);
	if (control->socket < 0 && control->module < 0)
		return no_daemon(path, control->socket, err);
	return 0;
}

int pst_control_open(const char *door, struct pst_control **out, struct pst_error *err)
{
	struct pst_control *control = calloc(1, sizeof(*control));
	int saved = errno, rc;

	if (!control)
		return pst_fail(err, -ENOMEM, "no memory to talk to penstockd");
	pthread_mutex_init(&control->lock, NULL);
	control->socket = control->module = -1;
	rc = pipe2(control->pipe, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
	if (rc) {
		pst_fail(err, rc, "no pipe to talk to penstockd: %s", strerror(-rc));
		control->pipe[0] = control->pipe[1] = -1;
	} else {
		rc = open_doors(control, door, err);
	}
	if (rc)
		pst_control_close(control);
	else
		*out = control;
	errno = saved;
	return rc;
}

void pst_control_close(struct pst_control *control)
{
	if (!control)
		return;
	if (control->socket >= 0)
		close(control->socket);
	if (control->module >= 0)
		close(control->module);
	if (control->pipe[0] >= 0) {
		close(control->pipe[0]);
		close(control->pipe[1]);
	}
	pthread_mutex_destroy(&control->lock);
	free(control);
}
