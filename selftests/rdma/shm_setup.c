/* SPDX-License-Identifier: Apache-2.0 */
/* Names, listeners, connecting and the hello of the shm fabric. */
#include "selftests/rdma/raw.h"

#include <sys/stat.h>

static const char *unique(const char *what)
{
	static char url[128];

	snprintf(url, sizeof(url), "shm://%s-%d", what, (int)getpid());
	return url;
}

static int listen_at(struct end *e, const char *url, struct pst_listener **l, struct pst_error *err)
{
	*err = (struct pst_error){0};
	return pst_listen(e->cq, url, l, err);
}

TEST(unknown_scheme_names_those_there_are)
{
	struct pst_error err = {0};
	struct pst_fabric *fab = NULL;

	EXPECT_EQ(-EPROTONOSUPPORT, pst_fabric_open("smoke://x", &fab, &err));
	EXPECT_EQ(-EPROTONOSUPPORT, err.code);
	EXPECT_TRUE(strstr(err.text, "shm://") != NULL);
	EXPECT_TRUE(fab == NULL);
	EXPECT_EQ(-EPROTONOSUPPORT, pst_fabric_open("shm:/x", &fab, NULL));
	EXPECT_EQ(-EPROTONOSUPPORT, pst_fabric_open(NULL, &fab, NULL));
}

TEST(bad_names_are_refused)
{
	static const char *const bad[] = {"shm://", "shm:///", "shm://a b", "shm://a/b",
					  "shm://a\n"};
	struct pst_listener *l;
	struct pst_link *link;
	struct pst_error err;
	char longer[256];
	struct end e;

	end_open(&e);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		EXPECT_EQ(-EINVAL, listen_at(&e, bad[i], &l, &err));
		EXPECT_EQ(-EINVAL, pst_connect(e.cq, bad[i], 0, &link, NULL));
	}
	snprintf(longer, sizeof(longer), "shm://%0120d", 1);
	EXPECT_EQ(-ENAMETOOLONG, listen_at(&e, longer, &l, &err));
	EXPECT_EQ(-EPROTONOSUPPORT, listen_at(&e, "tpc://x", &l, &err));
	end_close(&e);
}

TEST(second_listener_is_refused)
{
	struct pst_listener *l, *m;
	struct pst_error err;
	struct end e;
	char path[128];

	end_open(&e);
	ASSERT_OK(listen_at(&e, unique("twice"), &l, &err), &err);
	EXPECT_EQ(-EADDRINUSE, listen_at(&e, unique("twice"), &m, &err));
	EXPECT_TRUE(strstr(err.text, unique("twice")) != NULL);
	pst_listener_close(l);
	ASSERT_OK(listen_at(&e, unique("twice"), &l, &err), &err);

	snprintf(path, sizeof(path), "shm://%s/sock", test_tmpdir());
	ASSERT_OK(listen_at(&e, path, &l, &err), &err);
	EXPECT_EQ(-EADDRINUSE, listen_at(&e, path, &m, &err));
	end_close(&e);
}

/* A server that was killed leaves its socket's path behind. */
TEST(leftover_path_is_replaced)
{
	struct pst_listener *l;
	struct pst_error err;
	char path[128];
	struct end e;
	pid_t pid;

	snprintf(path, sizeof(path), "shm://%s/sock", test_tmpdir());
	pid = fork();
	if (!pid) {
		end_open(&e);
		ASSERT_OK(listen_at(&e, path, &l, &err), &err);
		raise(SIGKILL);
	}
	waitpid(pid, NULL, 0);
	EXPECT_EQ(0, access(path + 6, F_OK));
	end_open(&e);
	ASSERT_OK(listen_at(&e, path, &l, &err), &err);
	pst_listener_close(l);
	EXPECT_EQ(-1, access(path + 6, F_OK));
	end_close(&e);
}

/* What is not a socket, or not ours any more, is never removed. */
TEST(other_files_are_kept)
{
	struct pst_listener *l;
	struct pst_error err;
	char path[128];
	struct end e;

	end_open(&e);
	snprintf(path, sizeof(path), "shm://%s/file", test_tmpdir());
	close(open(path + 6, O_CREAT | O_WRONLY, 0600));
	EXPECT_EQ(-EADDRINUSE, listen_at(&e, path, &l, &err));
	EXPECT_EQ(0, access(path + 6, F_OK));
	unlink(path + 6);
	ASSERT_OK(listen_at(&e, path, &l, &err), &err);
	unlink(path + 6);
	close(open(path + 6, O_CREAT | O_WRONLY, 0600));
	pst_listener_close(l);
	EXPECT_EQ(0, access(path + 6, F_OK));
	end_close(&e);
}

TEST(dead_name_is_refused_after_the_timeout)
{
	struct pst_error err = {0};
	struct pst_link *link = NULL;
	char path[128];
	struct end e;

	end_open(&e);
	EXPECT_EQ(-ECONNREFUSED, pst_connect(e.cq, unique("dead"), 20, &link, &err));
	EXPECT_EQ(-ECONNREFUSED, err.code);
	EXPECT_TRUE(strstr(err.text, "nobody listens") != NULL);
	snprintf(path, sizeof(path), "shm://%s/none", test_tmpdir());
	EXPECT_EQ(-ECONNREFUSED, pst_connect(e.cq, path, 0, &link, NULL));
	EXPECT_TRUE(link == NULL);
	end_close(&e);
}

/* The listener is there, and nobody polls its cq. */
TEST(silent_server_is_a_timeout)
{
	struct pst_listener *l;
	struct pst_link *link;
	struct pst_error err;
	struct end e;

	end_open(&e);
	ASSERT_OK(listen_at(&e, unique("silent"), &l, &err), &err);
	EXPECT_EQ(-ETIMEDOUT, pst_connect(e.cq, unique("silent"), 20, &link, &err));
	end_close(&e);
}

static void meet_once(struct end *peer)
{
	meet(peer);
}

TEST(closed_listener_keeps_its_links)
{
	struct pst_error err = {0};
	struct pst_link *link;
	struct pair p;

	for (int process = 0; process < 2; process++) {
		pair_start(&p, process, meet_once);
		pst_listener_close(p.listener);
		EXPECT_EQ(-ECONNREFUSED, pst_connect(p.me.cq, p.url, 0, &link, &err));
		EXPECT_TRUE(strstr(pst_link_peer(p.me.link), p.url) != NULL);
		EXPECT_EQ(process ? p.pid : getpid(), pst_link_peer_pid(p.me.link));
		EXPECT_TRUE(pst_link_user(p.me.link) == NULL);
		pst_link_set_user(p.me.link, &p);
		EXPECT_TRUE(pst_link_user(p.me.link) == &p);
		meet(&p.me);
		pair_end(&p);
	}
}

/* A path socket all the way. */
TEST(path_works_as_a_name)
{
	struct pst_listener *l;
	struct pst_error err = {0};
	struct pair p = {.process = true, .role = meet_once};

	snprintf(p.url, sizeof(p.url), "shm://%s/s", test_tmpdir());
	pair_spawn(&p);
	end_open(&p.me);
	ASSERT_OK(pst_listen(p.me.cq, p.url, &l, &err), &err);
	p.me.link = expect(&p.me, PST_WC_CONNECTED).link;
	meet(&p.me);
	pair_end(&p);
}

TEST(other_users_are_not_let_in)
{
	struct pst_error err = {0};
	struct pst_listener *l;
	struct pst_link *link;
	struct pst_wc wc;
	int status;
	struct end e;
	pid_t pid;

	if (geteuid())
		SKIP("only root can become another user", "sudo make check");
	end_open(&e);
	ASSERT_OK(listen_at(&e, unique("users"), &l, &err), &err);
	pid = fork();
	if (!pid) {
		char url[64];

		snprintf(url, sizeof(url), "shm://users-%d", (int)getppid());
		ASSERT_EQ(0, setgid(65534));
		ASSERT_EQ(0, setuid(65534));
		end_open(&e);
		EXPECT_EQ(-EACCES, pst_connect(e.cq, url, 10000, &link, &err));
		EXPECT_TRUE(strstr(err.text, "same user") != NULL);
		_exit(test_failed ? TEST_FAIL : TEST_PASS);
	}
	while (!waitpid(pid, &status, WNOHANG))
		EXPECT_EQ(0, pst_cq_wait(e.cq, &wc, 1, 5));
	EXPECT_EQ(0, status);
	end_close(&e);
}

/* Root does not take a name that another user sits on for the server's. */
TEST(server_of_another_user_is_not_trusted)
{
	struct pst_error err = {0};
	struct pst_listener *l;
	struct pst_link *link;
	struct pst_wc wc;
	char url[128];
	struct end e;
	pid_t pid;

	if (geteuid())
		SKIP("only root can become another user", "sudo make check");
	snprintf(url, sizeof(url), "%s", unique("squat"));
	pid = fork();
	if (!pid) {
		ASSERT_EQ(0, setuid(65534));
		end_open(&e);
		ASSERT_OK(listen_at(&e, url, &l, &err), &err);
		for (;;)
			pst_cq_wait(e.cq, &wc, 1, -1);
	}
	end_open(&e);
	EXPECT_EQ(-EACCES, pst_connect(e.cq, url, 10000, &link, &err));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	end_close(&e);
}

/* Send a hello as it is, and return the code of the answer. */
static int hello_with(struct end *e, const void *hello, size_t len, int fd, char *text)
{
	int got, sock = raw_connect(unique("hello"));
	struct shm_welcome w;
	struct pst_wc wc;

	raw_send(sock, hello, len, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
	EXPECT_EQ(0, pst_cq_wait(e->cq, &wc, 1, 5));
	EXPECT_EQ((ssize_t)sizeof(w), raw_recv(sock, &w, sizeof(w), &got));
	EXPECT_EQ(-1, got);
	EXPECT_EQ(SHM_MAGIC, w.magic);
	EXPECT_EQ(0, (int)raw_recv(sock, text, 1, &got));
	snprintf(text, 240, "%s", w.text);
	close(sock);
	return w.code;
}

TEST(bad_hellos_are_refused_with_a_sentence)
{
	const int sealed = F_SEAL_SHRINK;
	struct shm_hello h;
	struct pst_listener *l;
	struct pst_error err;
	char text[8192] = {0};
	struct end e;
	int fds;

	end_open(&e);
	ASSERT_OK(listen_at(&e, unique("hello"), &l, &err), &err);
	fds = open_fds();
#define BAD(change, need)                                                                         \
	do {                                                                                      \
		h = *raw_hello();                                                                 \
		change;                                                                           \
		EXPECT_EQ(-EPROTO, hello_with(&e, &h, sizeof(h),                                  \
					      raw_memfd(sizeof(struct shm_area), sealed), text)); \
		EXPECT_TRUE(strstr(text, need) != NULL);                                          \
	} while (0)
	BAD(h.magic++, "no hello");
	BAD(h.abi++, "same release");
	BAD(h.slots = 0, "same release");
	BAD(h.slot_size = UINT32_MAX, "same release");
	BAD(h.area_size = 0, "same release");
	BAD(h.reserved = 1, "memfd");
	h = *raw_hello();
	EXPECT_EQ(-EPROTO, hello_with(&e, &h, sizeof(h), -1, text));
	EXPECT_TRUE(strstr(text, "memfd") != NULL);
	EXPECT_EQ(-EPROTO,
		  hello_with(&e, &h, sizeof(h), raw_memfd(sizeof(struct shm_area), 0), text));
	EXPECT_EQ(-EPROTO, hello_with(&e, &h, sizeof(h), raw_memfd(4096, sealed), text));
	EXPECT_EQ(-EPROTO, hello_with(&e, &h, sizeof(h), open("/proc/self/exe", O_RDONLY), text));
	EXPECT_EQ(-EPROTO, hello_with(&e, &h, 8, -1, text));
	EXPECT_EQ(-EPROTO, hello_with(&e, text, sizeof(text), -1, text));
	EXPECT_EQ(fds, open_fds());
	end_close(&e);
}

/* Connections that say nothing hold up nobody, and there are never many of them. */
TEST(silent_connections_are_bounded)
{
	struct pair p = {.process = true, .role = meet_once};
	struct pst_error err = {0};
	struct pst_listener *l;
	struct pst_wc wc;
	int sock[300], fds;

	end_open(&p.me);
	snprintf(p.url, sizeof(p.url), "shm://flood-%d", (int)getpid());
	ASSERT_OK(pst_listen(p.me.cq, p.url, &l, &err), &err);
	fds = open_fds();
	for (int i = 0; i < 300; i++) {
		sock[i] = raw_connect(p.url);
		ASSERT_EQ(0, pst_cq_wait(p.me.cq, &wc, 1, 0));
		ASSERT_LE(open_fds(), fds + i + 1 + 80);
	}
	pair_spawn(&p);
	p.me.link = expect(&p.me, PST_WC_CONNECTED).link;
	meet(&p.me);
	for (int i = 0; i < 300; i++)
		close(sock[i]);
	pair_end(&p);
}

TEST(silent_connection_is_sent_away)
{
	struct shm_welcome w;
	struct pst_listener *l;
	struct pst_error err;
	struct pst_wc wc;
	int sock, fd;
	struct end e;

	end_open(&e);
	ASSERT_OK(listen_at(&e, unique("late"), &l, &err), &err);
	sock = raw_connect(unique("late"));
	while (recv(sock, &w, sizeof(w), MSG_PEEK | MSG_DONTWAIT) < 0)
		ASSERT_EQ(0, pst_cq_wait(e.cq, &wc, 1, 200));
	EXPECT_EQ((ssize_t)sizeof(w), raw_recv(sock, &w, sizeof(w), &fd));
	EXPECT_EQ(-ETIMEDOUT, w.code);
	EXPECT_EQ(0, (int)recv(sock, &w, sizeof(w), 0));
	close(sock);
	end_close(&e);
}

static int refused_region(struct end *e, struct pst_region_attr attr, int fd)
{
	struct pst_region *r = NULL;
	struct pst_error err = {0};
	int rc;

	attr.fd = fd;
	rc = pst_region_register(e->fab, &attr, &r, &err);
	EXPECT_TRUE(r == NULL);
	EXPECT_EQ(rc, (int)err.code);
	EXPECT_NE(0, err.text[0]);
	if (fd >= 0)
		close(fd);
	return rc;
}

TEST(regions_must_be_sealable_shared_memory)
{
	static char page[8192];
	const struct pst_region_attr good = {
		.size = sizeof(good), .addr = page, .len = 4096, .access = PST_ACCESS_READ};
	struct pst_region_attr a;
	struct end e;

	end_open(&e);
	EXPECT_EQ(-EINVAL, refused_region(&e, good, -1));
	EXPECT_EQ(-EINVAL, refused_region(&e, good, open("/proc/self/exe", O_RDONLY)));
	EXPECT_EQ(-EINVAL, refused_region(&e, good, raw_memfd(4095, 0)));
	EXPECT_EQ(-EINVAL, refused_region(&e, good, raw_memfd(4096, F_SEAL_SEAL)));
	a = good, a.size--;
	EXPECT_EQ(-EINVAL, refused_region(&e, a, raw_memfd(4096, 0)));
	a = good, a.len = 0;
	EXPECT_EQ(-EINVAL, refused_region(&e, a, raw_memfd(4096, 0)));
	a = good, a.access = 4;
	EXPECT_EQ(-EINVAL, refused_region(&e, a, raw_memfd(4096, 0)));
	a = good, a.addr = NULL;
	EXPECT_EQ(-EINVAL, refused_region(&e, a, raw_memfd(4096, 0)));
	end_close(&e);
}

TEST_MAIN
