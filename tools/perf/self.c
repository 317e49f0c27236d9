/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --self: the servers are children of this process. A key that lives as long as they do is made
 * in a memfd that they inherit, where none was given; over tcp and verbs a port is free by
 * asking for port 0, and comes back through a pipe.
 */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_MS 3000

static int make_key(struct perf_plan *plan, struct perf_self *self, struct pst_error *err)
{
	unsigned char random[32];
	char text[sizeof(random) * 2 + 1];
	size_t n;
	int rc;

	if (plan->key || !strcmp(plan->fabric, "shm"))
		return 0;
	self->key_fd = memfd_create("penstock-perf-key", 0);
	if (self->key_fd < 0)
		return pst_fail(err, -errno, "making a key: %s", strerror(errno));
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return pst_fail(err, -EIO, "making a key: no random numbers");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	if (fchmod(self->key_fd, 0600) ||
	    write(self->key_fd, text, sizeof(text) - 1) != sizeof(text) - 1) {
		rc = -errno;
		return pst_fail(err, rc, "making a key: %s", strerror(-rc));
	}
	snprintf(plan->key_path, sizeof(plan->key_path), "/proc/self/fd/%d", self->key_fd);
	n = strlen(plan->settings);
	snprintf(plan->settings + n, sizeof(plan->settings) - n, "%ckey=%s", n ? '&' : '?',
		 plan->key_path);
	return 0;
}

static const char *host_of(const struct perf_plan *plan, unsigned int nth)
{
	return plan->hosts.count ? plan->hosts.item[nth % plan->hosts.count] : "127.0.0.1";
}

/* Where server @nth is to listen. */
static void listen_url(const struct perf_plan *plan, unsigned int nth, char *url)
{
	if (!strcmp(plan->fabric, "shm"))
		snprintf(url, PERF_URL_MAX, "shm://perf-%d-%u%s", (int)getpid(), nth,
			 plan->settings);
	else if (plan->bind)
		perf_url(plan, plan->bind, 0, url);
	else
		perf_url(plan, host_of(plan, nth), 0, url);
}

static void be_server(const struct perf_plan *plan, const char *url, int ready_fd)
{
	struct pst_error err = {0};
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rc = perf_serve(plan, url, ready_fd, &err);
	/* why it did not start, to who waits for where it listens; later nobody does */
	if (rc)
		dprintf(ready_fd, "!%s", err.text);
	_exit(rc ? EXIT_FAILED : EXIT_DONE);
}

/* What clients connect to: HOST as it was given, with the port that the server found. */
static int take_url(struct perf_plan *plan, unsigned int nth, const char *said,
		    struct pst_error *err)
{
	const char *port = strrchr(said, ':');
	char *url = plan->url[nth];

	if (!strcmp(plan->fabric, "shm"))
		snprintf(url, PERF_URL_MAX, "%.300s%s", said, plan->settings);
	else if (port)
		perf_url(plan, host_of(plan, nth), (unsigned int)strtoul(port + 1, NULL, 10), url);
	else
		return pst_fail(err, -EPROTO, "the server listens at %.100s, which has no port",
				said);
	return 0;
}

static int start_one(struct perf_plan *plan, unsigned int nth, struct perf_self *self,
		     struct pst_error *err)
{
	char url[PERF_URL_MAX], said[PERF_URL_MAX] = "";
	int fd[2];

	listen_url(plan, nth, url);
	if (pipe(fd))
		return pst_fail(err, -errno, "pipe: %s", strerror(errno));
	fflush(stdout);
	self->pid[self->n] = fork();
	if (!self->pid[self->n]) {
		close(fd[0]);
		be_server(plan, url, fd[1]);
	}
	close(fd[1]);
	if (self->pid[self->n] < 0) {
		close(fd[0]);
		return pst_fail(err, -errno, "starting the server: %s", strerror(errno));
	}
	self->n++;
	if (read(fd[0], said, sizeof(said) - 1) <= 0)
		said[0] = 0;
	close(fd[0]);
	if (!*said)
		return pst_fail(err, -ECHILD, "the server of --self ended before it listened");
	if (*said == '!')
		return pst_fail(err, -ECHILD, "the server of --self: %.450s", said + 1);
	return take_url(plan, nth, said, err);
}

int perf_self_start(struct perf_plan *plan, unsigned int servers, struct perf_self *self,
		    struct pst_error *err)
{
	int rc = make_key(plan, self, err);

	plan->nurls = servers;
	for (unsigned int i = 0; !rc && i < servers; i++)
		rc = start_one(plan, i, self, err);
	return rc;
}

/* A server that does not end when it is asked to is not waited for. */
static void reap(pid_t pid)
{
	for (int ms = 0; ms < STOP_MS; ms++) {
		if (waitpid(pid, NULL, WNOHANG))
			return;
		usleep(1000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

void perf_self_stop(struct perf_self *self)
{
	for (unsigned int i = 0; i < self->n; i++)
		kill(self->pid[i], SIGTERM);
	for (unsigned int i = 0; i < self->n; i++)
		reap(self->pid[i]);
	if (self->key_fd >= 0)
		close(self->key_fd);
}
