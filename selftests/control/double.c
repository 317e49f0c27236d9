/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/double.h"

#include "daemon/devices/devices.h"
#include "daemon/keep/keep.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* A child */

struct life {
	int leash;
	uint32_t role;
	const char *does;
	char url[PST_URL_BYTES];
	uint64_t rows;
	bool draining;
};

static void say(const struct life *l, const struct pst_leash *m)
{
	while (leash_send(l->leash, m, -1) == -EAGAIN)
		if (strcmp(l->does, "flood"))
			usleep(1000);
}

static void hello(const struct life *l, uint32_t pid)
{
	struct pst_leash_hello m = {.hdr = LEASH_HEADER(m, HELLO, 0),
				    .role = l->role,
				    .pid = pid,
				    .threads = 2,
				    .node = PST_ANY,
				    .kernels = "ref"};

	memcpy(m.url, l->url, sizeof(m.url));
	say(l, &m.hdr);
}

static void beat(struct life *l)
{
	struct pst_leash_beat m = {.hdr = LEASH_HEADER(m, BEAT, 0),
				   .engines = 1,
				   .draining = l->draining,
				   .busy_ms = !strcmp(l->does, "busy") ? 1000000 : 0,
				   .tables = 1,
				   .rows = l->rows,
				   .calls = 3};

	say(l, &m.hdr);
}

/* Experts 0 and 1 of layer 7; the second is pinned. */
static void tell(struct life *l)
{
	struct pst_leash_expert e = {.hdr = LEASH_HEADER(e, EXPERT, 0),
				     .layer = 7,
				     .bytes = 64,
				     .rows = l->rows,
				     .copied = 1};
	struct pst_leash_table t = {
		.hdr = LEASH_HEADER(t, TABLE, 0), .number = 5, .tensors = 4, .name = "table"};

	if (l->role == PST_LEASH_SERVER) {
		say(l, &t.hdr);
		return;
	}
	say(l, &e.hdr);
	e.index = e.pinned = 1;
	say(l, &e.hdr);
}

static void answer(const struct life *l, uint64_t seq, int rc, const char *why)
{
	struct pst_leash_answer m = {.hdr = LEASH_HEADER(m, ANSWER, seq), .error.code = rc};

	snprintf(m.error.text, sizeof(m.error.text), "%s", why);
	say(l, &m.hdr);
}

static void checked(const struct life *l, const struct pst_leash_check *how)
{
	struct pst_leash_checked m = {
		.hdr = LEASH_HEADER(m, CHECKED, how->hdr.seq), .kernel = 5, .error_ppb = how->seed};

	memcpy(m.op, how->op, sizeof(m.op));
	say(l, &m.hdr);
}

/* A file with its pid as its name says that it ended when it was told to. */
static void leave_word(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%d", getenv("PENSTOCK_BIN"), (int)getpid());
	close(creat(path, 0600));
}

static void obey(struct life *l, const union leash_message *m, int fd)
{
	if (!strcmp(l->does, "deaf"))
		return;
	if (m->hdr.type == PST_LEASH_ASK) {
		hello(l, (uint32_t)getpid());
		tell(l);
	} else if (m->hdr.type == PST_LEASH_DRAIN || m->hdr.type == PST_LEASH_STOP) {
		answer(l, m->hdr.seq, 0, "");
		leave_word();
		_exit(0);
	} else if (!strcmp(l->does, "dumb")) {
		return;
	} else if (m->hdr.type == PST_LEASH_CHECK) {
		checked(l, &m->check);
	} else if (m->hdr.type == PST_LEASH_BIND) {
		/* an image that is none crashes */
		if (m->bind.kernel == 66)
			abort();
		answer(l, m->hdr.seq, m->bind.kernel && fd < 0 ? -EBADF : 0, "no image");
	} else if (m->hdr.type == PST_LEASH_PLACE) {
		answer(l, m->hdr.seq, m->place.order == PST_EXPERT_EVICT ? -ENODATA : 0,
		       "no such expert");
	}
}

static void break_rule(struct life *l, int rule)
{
	union leash_message m = {0};

	m.beat.hdr = LEASH_HEADER(m.beat, BEAT, 0);
	switch (rule) {
	case 0:
		m.hdr.type = 99;
		break;
	case 1:
		m.hdr.type = PST_LEASH_STOP;
		break;
	case 2:
		m.beat.draining = 2;
		break;
	case 3:
		m.hdr.size = 12;
		break;
	case 4:
		send(l->leash, &m, 20, MSG_NOSIGNAL);
		return;
	case 5:
		hello(l, 1);
		return;
	case 6:
		l->role = l->role == PST_LEASH_WORKER ? PST_LEASH_SERVER : PST_LEASH_WORKER;
		tell(l);
		return;
	case 7:
		l->role = l->role == PST_LEASH_WORKER ? PST_LEASH_SERVER : PST_LEASH_WORKER;
		hello(l, (uint32_t)getpid());
		return;
	case 8:
		/* it goes on, and nobody can tell it to end */
		shutdown(l->leash, SHUT_RDWR);
		return;
	}
	send(l->leash, &m, m.hdr.size > sizeof(m) ? sizeof(m) : m.hdr.size, MSG_NOSIGNAL);
}

static void live(struct life *l)
{
	bool mute = !strcmp(l->does, "mute"), flood = !strcmp(l->does, "flood");
	struct pollfd p = {.fd = l->leash, .events = POLLIN};
	union leash_message m;
	int rc;

	for (;;) {
		int fd = -1;

		poll(&p, 1, flood ? 0 : 10);
		rc = leash_recv(l->leash, LEASH_DAEMON, &m, &fd, NULL);
		if (rc < 0 && strncmp(l->does, "break", 5))
			_exit(0);
		if (rc > 0)
			obey(l, &m, fd);
		if (fd >= 0)
			close(fd);
		for (int i = 0; i < (flood ? 1000 : !mute); i++)
			beat(l);
	}
}

static void take_url(struct life *l, const char *url)
{
	size_t len = strlen(url);

	if (!strcmp(l->does, "port") && len > 2 && !strcmp(url + len - 2, ":0"))
		snprintf(l->url, sizeof(l->url), "%.*s:4711", (int)len - 2, url);
	else
		snprintf(l->url, sizeof(l->url), "%s", url);
}

void double_main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	struct life l = {.leash = -1, .rows = 10, .does = getenv("DOUBLE")};

	if (strncmp(name, "penstock-", 9))
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	l.role = !strcmp(name, "penstock-ps") ? PST_LEASH_SERVER : PST_LEASH_WORKER;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--listen"))
			take_url(&l, argv[i + 1]);
		if (!strcmp(argv[i], "--leash"))
			l.leash = atoi(argv[i + 1]);
	}
	if (!strcmp(l.does, "crash"))
		_exit(3);
	if (!strcmp(l.does, "fail")) {
		struct pst_leash_answer m = {.hdr = LEASH_HEADER(m, FAIL, 0),
					     .error = {-EADDRINUSE, "somebody listens there"}};

		say(&l, &m.hdr);
		_exit(1);
	}
	if (strcmp(l.does, "break:8"))
		hello(&l, (uint32_t)getpid());
	tell(&l);
	if (!strncmp(l.does, "break:", 6))
		break_rule(&l, atoi(l.does + 6));
	live(&l);
}

void double_install(void)
{
	static const char *const name[] = {"penstock-worker", "penstock-ps"};
	char self[PATH_MAX], path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = 0;
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name[i]);
		ASSERT_EQ(0, symlink(self, path));
	}
	setenv("PENSTOCK_BIN", test_tmpdir(), 1);
	double_does("");
}

void double_does(const char *what)
{
	setenv("DOUBLE", what, 1);
}

/* What is kept: in this process, which outlives its sets of children. */

static struct {
	char name[64];
	int fd;
	json_t *about;
} kept[64];

int keep_put(struct keep *keep, const char *name, int fd, json_t *about, struct pst_error *err)
{
	int at = -1;

	(void)keep, (void)err;
	keep_drop(keep, name);
	for (int i = 0; i < 64 && at < 0; i++)
		if (!kept[i].about)
			at = i;
	ASSERT_GE(at, 0);
	snprintf(kept[at].name, sizeof(kept[at].name), "%s", name);
	kept[at].fd = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	ASSERT_GE(kept[at].fd, 0);
	kept[at].about = json_deep_copy(about);
	return 0;
}

void keep_drop(struct keep *keep, const char *name)
{
	(void)keep;
	for (int i = 0; i < 64; i++)
		if (kept[i].about && !strcmp(kept[i].name, name)) {
			close(kept[i].fd);
			json_decref(kept[i].about);
			kept[i].about = NULL;
		}
}

void keep_each(struct keep *keep, const char *prefix, keep_fn *fn, void *ctx)
{
	(void)keep;
	for (int i = 0; i < 64; i++)
		if (kept[i].about && !strncmp(kept[i].name, prefix, strlen(prefix))) {
			json_t *about = json_deep_copy(kept[i].about);

			fn(ctx, kept[i].name, dup(kept[i].fd), about);
			json_decref(about);
		}
}

unsigned int double_kept(void)
{
	unsigned int n = 0;

	for (int i = 0; i < 64; i++)
		n += kept[i].about != NULL;
	return n;
}

void double_rewrite(const char *key, json_int_t value)
{
	for (int i = 0; i < 64; i++)
		if (kept[i].about) {
			json_object_set_new(kept[i].about, key, json_integer(value));
			return;
		}
}

/* A CPU and a GPU */

int devices_find(const struct devices *devices, const char *name, uint32_t *id)
{
	(void)devices;
	*id = !strcmp(name, "cpu:0") ? 1 : 2;
	return !strcmp(name, "cpu:0") || !strcmp(name, "gpu:0") ? 0 : -ENOENT;
}

int devices_place(const struct devices *devices, uint32_t id, struct device_place *out)
{
	(void)devices;
	if (id < 1 || id > 2)
		return -ENOENT;
	*out = (struct device_place){.kind = id, .node = PST_ANY, .cores = 2};
	return 0;
}
