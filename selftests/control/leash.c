/* SPDX-License-Identifier: Apache-2.0 */
/* What goes over a leash, and a child's end of it. */
#include "daemon/children/leash.h"
#include "daemon/children/leashed.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* fields of messages have many types */
#define EXPECT_N(want, got) EXPECT_EQ((int64_t)(want), (int64_t)(got))
#define ASSERT_N(want, got) ASSERT_EQ((int64_t)(want), (int64_t)(got))

/* Messages */

static union leash_message message(uint32_t type)
{
	union leash_message m = {0};

	switch (type) {
	case PST_LEASH_HELLO:
		m.hello = (struct pst_leash_hello){.hdr = LEASH_HEADER(m.hello, HELLO, 0),
						   .role = PST_LEASH_WORKER,
						   .pid = 7,
						   .node = -1,
						   .url = "shm://here"};
		break;
	case PST_LEASH_BEAT:
		m.beat.hdr = LEASH_HEADER(m.beat, BEAT, 0);
		break;
	case PST_LEASH_EXPERT:
		m.expert.hdr = LEASH_HEADER(m.expert, EXPERT, 0);
		break;
	case PST_LEASH_TABLE:
		m.table.hdr = LEASH_HEADER(m.table, TABLE, 0);
		break;
	case PST_LEASH_CHECKED:
		m.checked.hdr = LEASH_HEADER(m.checked, CHECKED, 1);
		break;
	case PST_LEASH_ANSWER:
		m.answer.hdr = LEASH_HEADER(m.answer, ANSWER, 1);
		break;
	case PST_LEASH_FAIL:
		m.answer.hdr = LEASH_HEADER(m.answer, FAIL, 0);
		m.answer.error.code = -EIO;
		break;
	case PST_LEASH_ASK:
		m.hdr = LEASH_HEADER(m.hdr, ASK, 0);
		break;
	case PST_LEASH_DRAIN:
		m.hdr = LEASH_HEADER(m.hdr, DRAIN, 1);
		break;
	case PST_LEASH_STOP:
		m.hdr = LEASH_HEADER(m.hdr, STOP, 1);
		break;
	case PST_LEASH_BIND:
		m.bind = (struct pst_leash_bind){.hdr = LEASH_HEADER(m.bind, BIND, 1), .op = "op"};
		break;
	case PST_LEASH_CHECK:
		m.check = (struct pst_leash_check){.hdr = LEASH_HEADER(m.check, CHECK, 1),
						   .op = "op"};
		break;
	case PST_LEASH_PLACE:
		m.place = (struct pst_leash_place){.hdr = LEASH_HEADER(m.place, PLACE, 1),
						   .order = PST_EXPERT_PIN};
		break;
	}
	return m;
}

static const uint32_t from_child[] = {PST_LEASH_HELLO, PST_LEASH_BEAT,	  PST_LEASH_EXPERT,
				      PST_LEASH_TABLE, PST_LEASH_CHECKED, PST_LEASH_ANSWER,
				      PST_LEASH_FAIL};
static const uint32_t from_daemon[] = {PST_LEASH_ASK,  PST_LEASH_DRAIN, PST_LEASH_STOP,
				       PST_LEASH_BIND, PST_LEASH_CHECK, PST_LEASH_PLACE};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static int check(enum leash_side from, union leash_message m)
{
	struct pst_error err = {0};
	int rc = leash_check(from, &m, m.hdr.size, &err);

	EXPECT_N(rc, err.code);
	EXPECT_N(!rc, !err.text[0]);
	return rc;
}

TEST(each_side_sends_its_own)
{
	for (uint32_t type = 0; type < 64; type++) {
		union leash_message m = message(type);
		bool child = false, daemon = false;

		for (size_t i = 0; i < COUNT(from_child); i++)
			child |= from_child[i] == type;
		for (size_t i = 0; i < COUNT(from_daemon); i++)
			daemon |= from_daemon[i] == type;
		if (!m.hdr.size)
			m.hdr = (struct pst_leash){.size = sizeof(m), .type = type, .seq = 1};
		EXPECT_N(child ? 0 : -EPROTO, check(LEASH_CHILD, m));
		EXPECT_N(daemon ? 0 : -EPROTO, check(LEASH_DAEMON, m));
	}
}

TEST(lengths)
{
	for (size_t i = 0; i < COUNT(from_child); i++) {
		union leash_message m = message(from_child[i]);
		uint32_t size = m.hdr.size;

		m.hdr.size = size - 1;
		EXPECT_N(-EPROTO, check(LEASH_CHILD, m));
		/* a newer child says more: its beginning is taken */
		m.hdr.size = PST_LEASH_MAX;
		EXPECT_N(0, check(LEASH_CHILD, m));
		/* one that lies about its length */
		m.hdr.size = size;
		EXPECT_N(-EPROTO, leash_check(LEASH_CHILD, &m, size + 1, NULL));
		EXPECT_N(-EPROTO, leash_check(LEASH_CHILD, &m, size - 1, NULL));
		EXPECT_N(-EPROTO, leash_check(LEASH_CHILD, &m, 3, NULL));
		m.hdr.size = PST_LEASH_MAX + 1;
		EXPECT_N(-EPROTO, leash_check(LEASH_CHILD, &m, PST_LEASH_MAX + 1, NULL));
	}
}

#define REFUSED(side, type, change)                                \
	do {                                                       \
		union leash_message m = message(PST_LEASH_##type); \
                                                                   \
		EXPECT_N(0, check(LEASH_##side, m));               \
		change;                                            \
		EXPECT_N(-EPROTO, check(LEASH_##side, m));         \
	} while (0)

TEST(values)
{
	REFUSED(CHILD, HELLO, m.hello.role = 0);
	REFUSED(CHILD, HELLO, m.hello.role = 3);
	REFUSED(CHILD, HELLO, m.hello.pid = 0);
	REFUSED(CHILD, HELLO, m.hello.node = -2);
	REFUSED(CHILD, HELLO, m.hello.url[0] = 0);
	REFUSED(CHILD, HELLO, m.hdr.seq = 1);
	REFUSED(CHILD, BEAT, m.beat.draining = 2);
	REFUSED(CHILD, BEAT, m.hdr.seq = 1);
	REFUSED(CHILD, EXPERT, m.expert.layer = ~0u);
	REFUSED(CHILD, EXPERT, m.expert.index = ~0u);
	REFUSED(CHILD, EXPERT, m.expert.copied = 2);
	REFUSED(CHILD, EXPERT, m.expert.pinned = 2);
	REFUSED(CHILD, EXPERT, m.hdr.seq = 1);
	REFUSED(CHILD, TABLE, m.table.gone = 2);
	REFUSED(CHILD, TABLE, m.hdr.seq = 1);
	REFUSED(CHILD, ANSWER, m.hdr.seq = 0);
	REFUSED(CHILD, ANSWER, m.answer.error.code = 1);
	REFUSED(CHILD, ANSWER, m.answer.error.code = -4096);
	REFUSED(CHILD, FAIL, m.hdr.seq = 1);
	REFUSED(CHILD, FAIL, m.answer.error.code = 0);
	REFUSED(CHILD, CHECKED, m.hdr.seq = 0);
	REFUSED(CHILD, CHECKED, m.checked.__reserved = 1);
	REFUSED(CHILD, CHECKED, m.checked.error.code = 1);
	REFUSED(DAEMON, DRAIN, m.hdr.seq = 0);
	REFUSED(DAEMON, STOP, m.hdr.seq = 0);
	REFUSED(DAEMON, BIND, m.hdr.seq = 0);
	REFUSED(DAEMON, BIND, m.bind.__reserved = 1);
	REFUSED(DAEMON, BIND, m.bind.op[0] = 0);
	REFUSED(DAEMON, CHECK, m.check.op[0] = 0);
	REFUSED(DAEMON, CHECK, m.hdr.seq = 0);
	REFUSED(DAEMON, PLACE, m.place.order = 0);
	REFUSED(DAEMON, PLACE, m.place.order = 5);
	REFUSED(DAEMON, PLACE, m.place.__reserved = 1);
	REFUSED(DAEMON, PLACE, m.hdr.seq = 0);
}

#define FILLED(field) memset(field, 'x', sizeof(field))

TEST(texts_end)
{
	REFUSED(CHILD, HELLO, FILLED(m.hello.url));
	REFUSED(CHILD, HELLO, FILLED(m.hello.kernels));
	REFUSED(CHILD, HELLO, FILLED(m.hello.note));
	REFUSED(CHILD, TABLE, FILLED(m.table.name));
	REFUSED(CHILD, ANSWER, FILLED(m.answer.error.text));
	REFUSED(CHILD, FAIL, FILLED(m.answer.error.text));
	REFUSED(CHILD, CHECKED, FILLED(m.checked.op));
	REFUSED(CHILD, CHECKED, FILLED(m.checked.error.text));
	REFUSED(DAEMON, BIND, FILLED(m.bind.op));
	REFUSED(DAEMON, CHECK, FILLED(m.check.op));
}

TEST(texts_fit_a_line)
{
	union leash_message m = message(PST_LEASH_FAIL);

	memcpy(m.answer.error.text, "a\nb\033[2J\177c\0rest", 15);
	EXPECT_N(0, leash_check(LEASH_CHILD, &m, m.hdr.size, NULL));
	EXPECT_STREQ("a?b?[2J?c", m.answer.error.text);
	EXPECT_N(0, m.answer.error.text[10]);
}

/* Sockets */

FIXTURE(leash)
{
	int daemon, child;
};

FIXTURE_SETUP(leash)
{
	int pair[2];

	ASSERT_N(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	self->daemon = pair[0];
	self->child = pair[1];
}

FIXTURE_TEARDOWN(leash)
{
	close(self->daemon);
	close(self->child);
}

TEST_F(leash, nothing_is_waited_for)
{
	union leash_message m = message(PST_LEASH_BEAT);
	unsigned int n = 0;

	EXPECT_N(0, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
	while (!leash_send(self->child, &m.hdr, -1))
		n++;
	EXPECT_GT(n, 10u);
	EXPECT_N(-EAGAIN, leash_send(self->child, &m.hdr, -1));
	while (n-- > 0)
		ASSERT_N(1, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
	EXPECT_N(0, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
}

TEST_F(leash, the_other_end_is_closed)
{
	union leash_message m = message(PST_LEASH_BEAT);

	shutdown(self->child, SHUT_RDWR);
	EXPECT_N(-EPIPE, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
	EXPECT_N(-EPIPE, leash_send(self->daemon, &m.hdr, -1));
}

TEST_F(leash, a_packet_that_is_too_long)
{
	unsigned char bytes[PST_LEASH_MAX + 8] = {0};
	union leash_message m = message(PST_LEASH_BEAT);

	m.hdr.size = PST_LEASH_MAX;
	memcpy(bytes, &m, sizeof(m));
	ASSERT_N(sizeof(bytes), send(self->child, bytes, sizeof(bytes), 0));
	EXPECT_N(-EPROTO, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
}

static unsigned int open_files(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 64; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void send_three(int sock, const union leash_message *m)
{
	union {
		char buf[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)m, m->hdr.size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fds[3] = {0, 1, 2};

	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(fds))};
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	ASSERT_N(m->hdr.size, sendmsg(sock, &msg, 0));
}

TEST_F(leash, descriptors)
{
	union leash_message m = message(PST_LEASH_BIND), got;
	unsigned int before = open_files();
	struct stat a, b;
	int fd = -1;

	ASSERT_N(0, leash_send(self->daemon, &m.hdr, STDIN_FILENO));
	ASSERT_N(1, leash_recv(self->child, LEASH_DAEMON, &got, &fd, NULL));
	ASSERT_GE(fd, 0);
	EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	EXPECT_TRUE(!fstat(fd, &a) && !fstat(STDIN_FILENO, &b) && a.st_ino == b.st_ino);
	close(fd);
	ASSERT_N(0, leash_send(self->daemon, &m.hdr, -1));
	ASSERT_N(1, leash_recv(self->child, LEASH_DAEMON, &got, &fd, NULL));
	EXPECT_N(-1, fd);
	/* one that comes with what breaks the rules is not kept, nor are more than one */
	m.bind.__reserved = 1;
	ASSERT_N(0, leash_send(self->daemon, &m.hdr, STDIN_FILENO));
	EXPECT_N(-EPROTO, leash_recv(self->child, LEASH_DAEMON, &got, &fd, NULL));
	EXPECT_N(before, open_files());
	m = message(PST_LEASH_BEAT);
	send_three(self->child, &m);
	EXPECT_N(1, leash_recv(self->daemon, LEASH_CHILD, &got, NULL, NULL));
	EXPECT_N(before, open_files());
}

/* The child's end */

/* A child with experts and tables that the test chooses. */
struct fake {
	pthread_mutex_t lock;
	uint64_t rows[2048]; /* 0: there is none */
	unsigned int experts, tables, ended, drained, left, placed;
	bool slow;
};

static void tell(void *object, struct pst_leash_hello *hello, struct pst_leash_beat *beat)
{
	(void)object;
	hello->threads = 3;
	beat->rows = 5;
}

static void count(struct fake *f, unsigned int *what)
{
	pthread_mutex_lock(&f->lock);
	++*what;
	pthread_mutex_unlock(&f->lock);
}

static unsigned int counted(struct fake *f, const unsigned int *what)
{
	unsigned int n;

	pthread_mutex_lock(&f->lock);
	n = *what;
	pthread_mutex_unlock(&f->lock);
	return n;
}

static void end(void *object)
{
	struct fake *f = object;

	count(f, &f->ended);
}

static void leave(void *object)
{
	struct fake *f = object;

	count(f, &f->left);
}

static void drain(void *object)
{
	struct fake *f = object;

	count(f, &f->drained);
}

static int expert(void *object, struct pst_leash_expert *io)
{
	struct fake *f = object;
	int rc = -ENOENT;

	pthread_mutex_lock(&f->lock);
	for (uint32_t i = io->layer == ~0u ? 0 : io->index + 1; i < f->experts; i++) {
		if (!f->rows[i])
			continue;
		io->layer = 4;
		io->index = i;
		io->bytes = 100;
		io->rows = f->rows[i];
		rc = 0;
		break;
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static int table(void *object, struct pst_leash_table *io)
{
	struct fake *f = object;

	if (io->number >= counted(f, &f->tables))
		return -ENOENT;
	io->number++;
	snprintf((char *)io->name, sizeof(io->name), "t%u", io->number);
	return 0;
}

static int place(void *object, const struct pst_leash_place *how, struct pst_error *err)
{
	struct fake *f = object;

	count(f, &f->placed);
	if (how->order != PST_EXPERT_EVICT)
		return 0;
	*err = (struct pst_error){-ENODATA, "no such expert"};
	return -ENODATA;
}

static int bind_op(void *object, const char *op, int image, struct pst_error *err)
{
	(void)object;
	if (!strcmp(op, "op") && image >= 0)
		return 0;
	*err = (struct pst_error){-ENOEXEC, "not that one"};
	return -ENOEXEC;
}

static int check_op(void *object, const char *op, uint64_t seed, double *error,
		    struct pst_error *err)
{
	(void)object, (void)op, (void)err;
	*error = seed * 1e-9;
	return 0;
}

static const struct leashed_ops ops = {
	.tell = tell,
	.end = end,
	.leave = leave,
	.drain = drain,
	.expert = expert,
	.table = table,
	.place = place,
	.bind = bind_op,
	.check = check_op,
};

FIXTURE(child)
{
	int daemon;
	struct fake fake;
	struct leashed *leashed;
};

FIXTURE_SETUP(child)
{
	struct pst_error err = {0};
	int pair[2];

	ASSERT_N(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	self->daemon = pair[0];
	pthread_mutex_init(&self->fake.lock, NULL);
	ASSERT_OK(leashed_begin(pair[1], PST_LEASH_WORKER, "shm://here", &ops, &self->fake,
				&self->leashed, &err),
		  &err);
}

FIXTURE_TEARDOWN(child)
{
	struct pst_error well = {0};

	leashed_end(self->leashed, &well);
	if (self->daemon >= 0)
		close(self->daemon);
}

/* The next message of one of the types, what comes before is dropped. */
static union leash_message hear2(int sock, uint32_t type, uint32_t other)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct pst_error err = {0};
	union leash_message m;

	do {
		int rc;

		poll(&p, 1, -1);
		rc = leash_recv(sock, LEASH_CHILD, &m, NULL, &err);
		ASSERT_OK(rc, &err);
		if (!rc)
			m.hdr.type = 0;
	} while (m.hdr.type != type && m.hdr.type != other);
	return m;
}

static union leash_message hear(int sock, uint32_t type)
{
	return hear2(sock, type, type);
}

static void order(int sock, uint32_t type)
{
	union leash_message m = message(type);

	ASSERT_N(0, leash_send(sock, &m.hdr, -1));
}

TEST_F(child, says_hello_and_lives)
{
	union leash_message m;
	struct pollfd p = {.fd = self->daemon, .events = POLLIN};

	poll(&p, 1, -1);
	ASSERT_N(1, leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL));
	ASSERT_N(PST_LEASH_HELLO, m.hdr.type);
	EXPECT_N(PST_LEASH_WORKER, m.hello.role);
	EXPECT_N(getpid(), (pid_t)m.hello.pid);
	EXPECT_N(3, m.hello.threads);
	EXPECT_STREQ("shm://here", (char *)m.hello.url);
	for (int i = 0; i < 2; i++)
		EXPECT_N(5, hear(self->daemon, PST_LEASH_BEAT).beat.rows);
	order(self->daemon, PST_LEASH_ASK);
	hear(self->daemon, PST_LEASH_HELLO);
}

static void set_rows(struct fake *f, unsigned int i, uint64_t rows)
{
	pthread_mutex_lock(&f->lock);
	f->rows[i] = rows;
	if (i >= f->experts)
		f->experts = i + 1;
	pthread_mutex_unlock(&f->lock);
}

TEST_F(child, tells_of_experts_that_changed)
{
	union leash_message m;

	set_rows(&self->fake, 2, 7);
	set_rows(&self->fake, 9, 1);
	m = hear(self->daemon, PST_LEASH_EXPERT);
	EXPECT_N(4, m.expert.layer);
	EXPECT_N(2, m.expert.index);
	EXPECT_N(7, m.expert.rows);
	EXPECT_N(9, hear(self->daemon, PST_LEASH_EXPERT).expert.index);
	/* nothing more while nothing changes */
	hear(self->daemon, PST_LEASH_BEAT);
	m = hear2(self->daemon, PST_LEASH_EXPERT, PST_LEASH_BEAT);
	EXPECT_N(PST_LEASH_BEAT, m.hdr.type);
	set_rows(&self->fake, 5, 3);
	set_rows(&self->fake, 9, 2);
	EXPECT_N(5, hear(self->daemon, PST_LEASH_EXPERT).expert.index);
	EXPECT_N(2, hear(self->daemon, PST_LEASH_EXPERT).expert.rows);
	/* one that is no more has no bytes */
	set_rows(&self->fake, 5, 0);
	m = hear(self->daemon, PST_LEASH_EXPERT);
	EXPECT_N(5, m.expert.index);
	EXPECT_N(0, m.expert.bytes);
	set_rows(&self->fake, 9, 0);
	m = hear(self->daemon, PST_LEASH_EXPERT);
	EXPECT_N(9, m.expert.index);
	EXPECT_N(0, m.expert.bytes);
	/* who asks is told of all again */
	order(self->daemon, PST_LEASH_ASK);
	EXPECT_N(2, hear(self->daemon, PST_LEASH_EXPERT).expert.index);
}

TEST_F(child, tells_of_tables)
{
	union leash_message m;

	count(&self->fake, &self->fake.tables);
	count(&self->fake, &self->fake.tables);
	EXPECT_STREQ("t1", (char *)hear(self->daemon, PST_LEASH_TABLE).table.name);
	EXPECT_STREQ("t2", (char *)hear(self->daemon, PST_LEASH_TABLE).table.name);
	pthread_mutex_lock(&self->fake.lock);
	self->fake.tables = 1;
	pthread_mutex_unlock(&self->fake.lock);
	m = hear(self->daemon, PST_LEASH_TABLE);
	EXPECT_N(2, m.table.number);
	EXPECT_N(1, m.table.gone);
}

/* A leash that nobody reads holds up nothing, and all is told in the end. */
TEST_F(child, does_not_wait_for_a_reader)
{
	unsigned int told = 0;
	struct pollfd p = {.fd = self->daemon, .events = POLLIN};

	for (unsigned int i = 0; i < 2000; i++)
		set_rows(&self->fake, i, 1);
	usleep(700000);
	order(self->daemon, PST_LEASH_PLACE);
	while (!counted(&self->fake, &self->fake.placed))
		usleep(1000);
	while (told < 2000) {
		union leash_message m;

		poll(&p, 1, -1);
		if (leash_recv(self->daemon, LEASH_CHILD, &m, NULL, NULL) > 0 &&
		    m.hdr.type == PST_LEASH_EXPERT)
			EXPECT_N(told++, m.expert.index);
	}
}

/* The same for answers: as long as one has no room, orders wait, and none is lost. */
TEST_F(child, answers_wait_for_room)
{
	union leash_message m = message(PST_LEASH_PLACE);
	unsigned int sent = 0;

	while (sent < 3000) {
		m.hdr.seq = sent + 1;
		if (leash_send(self->daemon, &m.hdr, -1))
			break;
		sent++;
		if (sent % 50 == 0)
			usleep(1000);
	}
	ASSERT_GT(sent, 100u);
	for (unsigned int i = 0; i < sent; i++)
		ASSERT_N(i + 1, hear(self->daemon, PST_LEASH_ANSWER).hdr.seq);
}

TEST_F(child, orders)
{
	union leash_message m = message(PST_LEASH_PLACE);

	order(self->daemon, PST_LEASH_PLACE);
	EXPECT_N(0, hear(self->daemon, PST_LEASH_ANSWER).answer.error.code);
	m.place.order = PST_EXPERT_EVICT;
	m.hdr.seq = 77;
	leash_send(self->daemon, &m.hdr, -1);
	m = hear(self->daemon, PST_LEASH_ANSWER);
	EXPECT_N(77, m.hdr.seq);
	EXPECT_N(-ENODATA, m.answer.error.code);
	EXPECT_STREQ("no such expert", m.answer.error.text);
	order(self->daemon, PST_LEASH_DRAIN);
	order(self->daemon, PST_LEASH_STOP);
	while (!counted(&self->fake, &self->fake.ended))
		usleep(1000);
	EXPECT_N(1, counted(&self->fake, &self->fake.drained));
}

TEST_F(child, kernels)
{
	union leash_message m = message(PST_LEASH_BIND);

	m.bind.kernel = 9;
	leash_send(self->daemon, &m.hdr, -1);
	EXPECT_N(-EBADF, hear(self->daemon, PST_LEASH_ANSWER).answer.error.code);
	leash_send(self->daemon, &m.hdr, STDIN_FILENO);
	EXPECT_N(0, hear(self->daemon, PST_LEASH_ANSWER).answer.error.code);
	m = message(PST_LEASH_CHECK);
	m.check.seed = 12;
	leash_send(self->daemon, &m.hdr, -1);
	m = hear(self->daemon, PST_LEASH_CHECKED);
	EXPECT_N(1, m.hdr.seq);
	EXPECT_N(9, m.checked.kernel);
	EXPECT_N(12, m.checked.error_ppb);
	EXPECT_STREQ("op", (char *)m.checked.op);
	/* what is built in is refused here: the one before still serves */
	m = message(PST_LEASH_BIND);
	leash_send(self->daemon, &m.hdr, -1);
	EXPECT_N(-ENOEXEC, hear(self->daemon, PST_LEASH_ANSWER).answer.error.code);
	order(self->daemon, PST_LEASH_CHECK);
	EXPECT_N(9, hear(self->daemon, PST_LEASH_CHECKED).checked.kernel);
}

TEST_F(child, leaves_when_nobody_holds_it)
{
	close(self->daemon);
	self->daemon = -1;
	while (counted(&self->fake, &self->fake.left) < 2)
		usleep(1000);
	EXPECT_N(0, counted(&self->fake, &self->fake.ended));
}

TEST_F(child, leaves_when_the_daemon_raves)
{
	ASSERT_N(3, send(self->daemon, "abc", 3, 0));
	while (!counted(&self->fake, &self->fake.left))
		usleep(1000);
}

TEST_F(child, says_how_it_ended)
{
	struct pst_error none = {0}, bad = {-EIO, "it broke"};
	union leash_message m;
	int pair[2];

	order(self->daemon, PST_LEASH_DRAIN);
	while (!counted(&self->fake, &self->fake.drained))
		usleep(1000);
	leashed_end(self->leashed, &none);
	m = hear2(self->daemon, PST_LEASH_ANSWER, PST_LEASH_FAIL);
	EXPECT_N(PST_LEASH_ANSWER, m.hdr.type);
	EXPECT_N(1, m.hdr.seq);
	ASSERT_N(0, socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	ASSERT_N(0, leashed_begin(pair[0], PST_LEASH_SERVER, "shm://x", &ops, &self->fake,
				  &self->leashed, NULL));
	leashed_end(self->leashed, &bad);
	m = hear2(pair[1], PST_LEASH_ANSWER, PST_LEASH_FAIL);
	EXPECT_N(PST_LEASH_FAIL, m.hdr.type);
	EXPECT_STREQ("it broke", m.answer.error.text);
	close(pair[1]);
	self->leashed = NULL;
}

TEST_MAIN
