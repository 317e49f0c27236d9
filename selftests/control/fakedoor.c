/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/fakedoor.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct packet {
	struct pst_door_request head;
	_Alignas(8) unsigned char arg[PST_DOOR_MAX];
};

static void hang_up_all(struct fakedoor *f)
{
	for (int i = 0; i < FAKE_SESSIONS; i++) {
		if (f->session[i].fd >= 0)
			close(f->session[i].fd);
		if (f->reader[i].fd >= 0)
			close(f->reader[i].fd);
		f->session[i].fd = f->reader[i].fd = -1;
	}
	if (f->listen >= 0) {
		close(f->listen);
		unlink(f->path);
	}
	f->listen = -1;
	f->dead = true;
}

/* Where an object stands in its list: ids, or layers and indices. */
static uint64_t place(uint32_t cmd, const unsigned char *arg)
{
	uint32_t a, b = 0;

	memcpy(&a, arg + 8, sizeof(a));
	if (cmd == PST_CMD_EXPERT_STAT)
		memcpy(&b, arg + 12, sizeof(b));
	return cmd == PST_CMD_EXPERT_STAT ? (uint64_t)a << 32 | b : a;
}

static void work(struct fakedoor *f, struct pst_cmd_worker_stat *w)
{
	w->out_rows += f->grow;
	w->out_moved += 1024 * f->grow;
	w->out_busy_ns += f->grow;
}

static int find(struct fakedoor *f, uint32_t cmd, unsigned char *arg, size_t len)
{
	struct fake_command *c = fake_at(f, cmd);
	uint64_t wanted = place(cmd, arg);
	bool next = arg[4] & PST_STAT_NEXT;
	bool first = cmd == PST_CMD_EXPERT_STAT && next && wanted == UINT64_MAX;

	for (size_t i = 0; i < c->rows; i++) {
		unsigned char *row = (unsigned char *)c->row + i * len;
		uint64_t at = place(cmd, row);

		if (!(next ? first || at > wanted : at == wanted))
			continue;
		if (cmd == PST_CMD_WORKER_STAT)
			work(f, (struct pst_cmd_worker_stat *)row);
		memcpy(arg + 8, row + 8, len - 8);
		return 0;
	}
	if (!f->circles || !c->rows)
		return -ENOENT;
	memcpy(arg + 8, (unsigned char *)c->row + 8, len - 8);
	return 0;
}

static bool is_list(uint32_t cmd)
{
	return cmd == PST_CMD_DEVICE_STAT || cmd == PST_CMD_POOL_STAT ||
	       cmd == PST_CMD_KERNEL_STAT || cmd == PST_CMD_WORKER_STAT ||
	       cmd == PST_CMD_SERVER_STAT || cmd == PST_CMD_TABLE_STAT ||
	       cmd == PST_CMD_EXPERT_STAT;
}

static void say_why(const struct fake_session *s, struct pst_cmd_why *why)
{
	why->out_code = s->rc;
	why->out_cmd = s->cmd;
	memset(why->out_text, 0, sizeof(why->out_text));
	if (s->why)
		memcpy(why->out_text, s->why, strlen(s->why));
}

/* The last @past events of the mask wait for who reads. */
static int open_reader(struct fakedoor *f, const struct pst_cmd_events *how)
{
	int pair[2], i = 0;

	while (f->reader[i].fd >= 0)
		if (++i == FAKE_SESSIONS)
			return -EMFILE;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	f->reader[i].fd = pair[0];
	f->reader[i].next = f->events > how->past ? f->events - how->past : 0;
	return pair[1];
}

static int serve(struct fakedoor *f, struct fake_session *s, struct packet *p, size_t len,
		 int *out_fd)
{
	struct fake_command *c = fake_at(f, p->head.cmd);

	memcpy(c->last, p->arg, len);
	c->calls++;
	if (p->head.cmd == PST_CMD_WHY) {
		say_why(s, (struct pst_cmd_why *)p->arg);
		return 0;
	}
	if (c->rc) {
		s->rc = c->rc;
		s->cmd = p->head.cmd;
		s->why = c->why;
		return c->rc;
	}
	if (is_list(p->head.cmd))
		return find(f, p->head.cmd, p->arg, len);
	if (p->head.cmd == PST_CMD_EVENTS) {
		*out_fd = open_reader(f, (struct pst_cmd_events *)p->arg);
		((struct pst_cmd_events *)p->arg)->out_fd = 0;
		return *out_fd < 0 ? *out_fd : 0;
	}
	if (c->answer)
		memcpy(p->arg + 8, (const unsigned char *)c->answer + 8, len - 8);
	return 0;
}

/* One packet with what came along; its bytes, 0 at the end. */
static ssize_t receive(struct fakedoor *f, int fd, struct packet *p)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int) * PST_DOOR_FDS)];
	struct iovec iov = {p, sizeof(*p)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = space,
			     .msg_controllen = sizeof(space)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

	if (n < (ssize_t)(sizeof(p->head) + 8) || p->head.cmd < PST_CMD_BASE ||
	    p->head.cmd >= PST_CMD_END)
		return 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		for (size_t i = 0; CMSG_LEN(sizeof(int) * (i + 1)) <= c->cmsg_len; i++) {
			struct stat st = {0};
			int came;

			memcpy(&came, CMSG_DATA(c) + i * sizeof(int), sizeof(came));
			fstat(came, &st);
			fake_at(f, p->head.cmd)->fd_bytes[i] = (uint64_t)st.st_size;
			close(came);
		}
	return n;
}

static void answer(int fd, const struct packet *p, size_t len, int rc, int out_fd)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {0};
	struct pst_door_answer head = {rc, p->head.cmd};
	struct iovec iov[] = {{&head, sizeof(head)}, {(void *)p->arg, rc ? 0 : len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	if (out_fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = space;
		msg.msg_controllen = sizeof(space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &out_fd, sizeof(int));
	}
	if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
		printf("# the double cannot answer: %s\n", strerror(errno));
	if (out_fd >= 0)
		close(out_fd);
}

static void one_request(struct fakedoor *f, struct fake_session *s)
{
	struct packet p = {0};
	ssize_t n = receive(f, s->fd, &p);
	int out_fd = -1, rc;
	size_t len;

	if (n <= 0) {
		close(s->fd);
		s->fd = -1;
		return;
	}
	if (f->die_after && ++f->requests >= f->die_after) {
		hang_up_all(f);
		return;
	}
	if (f->mute)
		return;
	len = (size_t)n - sizeof(p.head);
	rc = serve(f, s, &p, len, &out_fd);
	answer(s->fd, &p, len, rc, out_fd);
}

static void accept_one(struct fakedoor *f)
{
	int fd = accept4(f->listen, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; fd >= 0 && i < FAKE_SESSIONS; i++)
		if (f->session[i].fd < 0) {
			f->session[i] = (struct fake_session){.fd = fd};
			return;
		}
	if (fd >= 0)
		close(fd);
}

/* As many events as the reader has room for. */
static void feed(struct fakedoor *f, int i)
{
	while (f->reader[i].next < f->events) {
		const struct pst_event *e = &f->event[f->reader[i].next];

		if (send(f->reader[i].fd, e, sizeof(*e), MSG_NOSIGNAL) < 0) {
			if (errno == EAGAIN)
				return;
			close(f->reader[i].fd);
			f->reader[i].fd = -1;
			return;
		}
		f->reader[i].next++;
	}
}

static void *serve_all(void *arg)
{
	struct pollfd p[2 + 2 * FAKE_SESSIONS];
	struct fakedoor *f = arg;
	char byte;

	pthread_mutex_lock(&f->lock);
	while (f->serves) {
		p[0] = (struct pollfd){f->wake[0], POLLIN, 0};
		p[1] = (struct pollfd){f->listen, POLLIN, 0};
		for (int i = 0; i < FAKE_SESSIONS; i++) {
			bool more = f->reader[i].fd >= 0 && f->reader[i].next < f->events;

			p[2 + i] = (struct pollfd){f->session[i].fd, POLLIN, 0};
			p[2 + FAKE_SESSIONS + i] =
				(struct pollfd){more ? f->reader[i].fd : -1, POLLOUT, 0};
		}
		pthread_mutex_unlock(&f->lock);
		poll(p, sizeof(p) / sizeof(*p), -1);
		pthread_mutex_lock(&f->lock);
		if (p[0].revents && read(f->wake[0], &byte, 1) < 0)
			break;
		if (f->dead)
			continue;
		if (p[1].revents)
			accept_one(f);
		for (int i = 0; i < FAKE_SESSIONS && !f->dead; i++) {
			if (p[2 + i].revents && p[2 + i].fd == f->session[i].fd)
				one_request(f, &f->session[i]);
			if (p[2 + FAKE_SESSIONS + i].revents)
				feed(f, i);
		}
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

void fakedoor_open(struct fakedoor *f, const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	ASSERT_LT((size_t)snprintf(f->path, sizeof(f->path), "%s", path), sizeof(f->path));
	strcpy(at.sun_path, f->path);
	for (int i = 0; i < FAKE_SESSIONS; i++)
		f->session[i].fd = f->reader[i].fd = -1;
	f->listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ASSERT_GE(f->listen, 0);
	ASSERT_EQ(0, bind(f->listen, (struct sockaddr *)&at, sizeof(at)));
	ASSERT_EQ(0, listen(f->listen, 8));
	ASSERT_EQ(0, pipe2(f->wake, O_CLOEXEC));
	f->requests = 0;
	f->dead = false;
	f->serves = true;
	pthread_mutex_init(&f->lock, NULL);
	fakedoor_pause(f);
	ASSERT_EQ(0, pthread_create(&f->thread, NULL, serve_all, f));
}

static void wake(struct fakedoor *f)
{
	ASSERT_EQ(1, write(f->wake[1], "", 1));
}

void fakedoor_go(struct fakedoor *f)
{
	pthread_mutex_unlock(&f->lock);
}

void fakedoor_pause(struct fakedoor *f)
{
	pthread_mutex_lock(&f->lock);
}

void fakedoor_close(struct fakedoor *f)
{
	f->serves = false;
	wake(f);
	fakedoor_go(f);
	pthread_join(f->thread, NULL);
	hang_up_all(f);
	close(f->wake[0]);
	close(f->wake[1]);
	pthread_mutex_destroy(&f->lock);
}

void fakedoor_event(struct fakedoor *f, const struct pst_event *e)
{
	ASSERT_LT(f->events, (size_t)FAKE_EVENTS);
	f->event[f->events++] = *e;
	wake(f);
}
