/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pair.h - two ends of a link for the tests: the test itself listens, the peer
 * connects from a thread of this process or from a process of its own. Over shm
 * unless it is told another fabric by its URL.
 */
#ifndef PST_SELFTEST_PAIR_H
#define PST_SELFTEST_PAIR_H

#include "rdma/fabric.h"
#include "selftests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

struct end {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct pst_link *link;
};

struct memory {
	struct pst_region *region;
	uint64_t len;
	int fd;
	unsigned char *at;
};

/* What the peer opens its fabric with where it is not what the test does; NULL: the same. */
static const char *pair_peer;

struct pair {
	struct end me;
	struct pst_listener *listener;
	void (*role)(struct end *peer);
	bool process;
	pthread_t thread;
	pid_t pid;
	const char *fabric; /* the URL that both ends open their fabric with; NULL: shm */
	int go[2];	    /* pipe: where the peer is told where to connect */
	char url[64];
};

static inline void end_open_on(struct end *e, const char *url)
{
	struct pst_error err = {0};
	int rc;

	*e = (struct end){0};
	rc = pst_fabric_open(url, &e->fab, &err);
	if ((rc == -EPERM || rc == -ENOSYS) && strstr(url, "io=uring"))
		SKIP("io_uring is denied here", "sysctl -w kernel.io_uring_disabled=0; docker run "
						"--security-opt seccomp=unconfined");
	ASSERT_OK(rc, &err);
	ASSERT_OK(pst_cq_create(e->fab, &e->cq, &err), &err);
}

static inline void end_open(struct end *e)
{
	end_open_on(e, "shm://");
}

/* A key that all fabrics which are opened after it share. */
static inline void use_key(const char *name, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)strlen(text), write(fd, text, strlen(text)));
	close(fd);
	setenv("PENSTOCK_KEY", path, 1);
}

static inline void end_close(struct end *e)
{
	pst_link_close(e->link);
	pst_cq_destroy(e->cq);
	pst_fabric_close(e->fab);
}

static inline struct memory memory_make(struct end *e, uint64_t len, uint32_t access)
{
	struct pst_error err = {0};
	struct memory m = {.len = len, .fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)};

	ASSERT_EQ(0, ftruncate(m.fd, (off_t)len));
	m.at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	ASSERT_TRUE(m.at != MAP_FAILED);
	ASSERT_OK(pst_region_register(
			  e->fab,
			  &(struct pst_region_attr){.size = sizeof(struct pst_region_attr),
						    .addr = m.at,
						    .len = len,
						    .fd = m.fd,
						    .access = access},
			  &m.region, &err),
		  &err);
	return m;
}

static inline void memory_drop(struct memory *m)
{
	pst_region_release(m->region);
	munmap(m->at, m->len);
	close(m->fd);
}

/* The next completion, which must be of @kind. */
static inline struct pst_wc expect(struct end *e, enum pst_wc_kind kind)
{
	struct pst_wc wc;
	int n;

	do {
		n = pst_cq_wait(e->cq, &wc, 1, 30000);
	} while (n == -EINTR);
	ASSERT_EQ(1, n);
	if (kind != PST_WC_DOWN && wc.kind == PST_WC_DOWN)
		test_say(__FILE__, __LINE__, "the link went down: %s (%s)", strerror(-wc.status),
			 pst_link_why(wc.link));
	ASSERT_EQ((int)kind, (int)wc.kind);
	return wc;
}

static inline void say(struct end *e, const void *msg, size_t len)
{
	ASSERT_EQ(0, pst_link_send(e->link, msg, len, 30000));
}

/* Receive a message of exactly @len bytes. */
static inline void hear(struct end *e, void *msg, size_t len)
{
	struct pst_wc wc = expect(e, PST_WC_MESSAGE);

	ASSERT_EQ(len, (size_t)wc.len);
	memcpy(msg, wc.msg, len);
}

/* A meeting point: each side sends a byte and waits for the other's. */
static inline void meet(struct end *e)
{
	char c = 'm';

	say(e, &c, 1);
	hear(e, &c, 1);
}

/* Post one request and return the status that it completes with. */
static inline int carry(struct end *e, const struct pst_wr *wr)
{
	struct pst_wc wc;

	ASSERT_EQ(1, pst_link_post(e->link, wr, 1));
	wc = expect(e, PST_WC_DONE);
	ASSERT_EQ(wr->id, wc.id);
	ASSERT_EQ(wr->op, wc.op);
	ASSERT_TRUE(wc.link == e->link);
	return wc.status;
}

static inline struct pst_key share(struct end *e, struct memory *m, uint32_t access)
{
	struct pst_key key;

	ASSERT_EQ(0, pst_link_grant(e->link, m->region, access, &key));
	say(e, &key, sizeof(key));
	return key;
}

static inline int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline void *peer_main(void *arg)
{
	struct pair *p = arg;
	struct pst_error err = {0};
	char url[sizeof(p->url)];
	struct end e;

	end_open_on(&e, pair_peer ? pair_peer : p->fabric ? p->fabric : "shm://");
	memcpy(url, p->url, sizeof(url));
	if (p->fabric)
		ASSERT_EQ((ssize_t)sizeof(url), read(p->go[0], url, sizeof(url)));
	ASSERT_OK(pst_connect(e.cq, url, 30000, &e.link, &err), &err);
	p->role(&e);
	end_close(&e);
	return NULL;
}

static inline void pair_spawn(struct pair *p)
{
	if (!p->process) {
		ASSERT_EQ(0, pthread_create(&p->thread, NULL, peer_main, p));
		return;
	}
	p->pid = fork();
	ASSERT_LE(0, p->pid);
	if (!p->pid) {
		peer_main(p);
		exit(test_failed ? TEST_FAIL : TEST_PASS);
	}
}

/* Start the peer, which runs @role, and accept its link. */
static inline void pair_start(struct pair *p, bool process, void (*role)(struct end *peer))
{
	static int count;
	struct pst_error err = {0};

	*p = (struct pair){.process = process, .role = role};
	snprintf(p->url, sizeof(p->url), "shm://test-%d-%d", (int)getpid(), count++);
	pair_spawn(p);
	end_open(&p->me);
	ASSERT_OK(pst_listen(p->me.cq, p->url, &p->listener, &err), &err);
	p->me.link = expect(&p->me, PST_WC_CONNECTED).link;
}

/* Start the peer over the fabric that @url opens; it waits to be told where to connect. */
static inline void pair_prepare(struct pair *p, const char *url, bool process,
				void (*role)(struct end *peer))
{
	*p = (struct pair){.process = process, .role = role, .fabric = url};
	ASSERT_EQ(0, pipe2(p->go, O_CLOEXEC));
	pair_spawn(p);
}

static inline void pair_tell(struct pair *p, const struct pst_listener *listener)
{
	char url[sizeof(p->url)] = "";

	snprintf(url, sizeof(url), "%s", pst_listener_url(listener));
	ASSERT_EQ((ssize_t)sizeof(url), write(p->go[1], url, sizeof(url)));
	close(p->go[1]);
	if (p->process)
		close(p->go[0]);
}

/* As pair_start; @url opens the fabric and, where it names a host, is listened on. */
static inline void pair_start_on(struct pair *p, const char *url, bool process,
				 void (*role)(struct end *peer))
{
	struct pst_error err = {0};

	if (!strncmp(url, "shm:", 4)) {
		pair_start(p, process, role);
		return;
	}
	pair_prepare(p, url, process, role);
	end_open_on(&p->me, url);
	ASSERT_OK(pst_listen(p->me.cq, url, &p->listener, &err), &err);
	pair_tell(p, p->listener);
	p->me.link = expect(&p->me, PST_WC_CONNECTED).link;
}

/* The peer has returned from its role by itself. */
static inline void pair_end(struct pair *p)
{
	int status = 0;

	if (p->process) {
		ASSERT_EQ(p->pid, waitpid(p->pid, &status, 0));
		EXPECT_EQ(0, status);
	} else {
		pthread_join(p->thread, NULL);
	}
	if (p->fabric && !p->process)
		close(p->go[0]);
	end_close(&p->me);
}

#endif /* PST_SELFTEST_PAIR_H */
