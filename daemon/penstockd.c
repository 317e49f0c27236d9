/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/penstockd.h"

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/parts.h"
#include "rdma/fail.h"
#include "runtime/penstock.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <penstock/door.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CONFIG_FILE "/etc/penstock/penstockd.conf"

/* What the loop is told besides: signals, and that the watchdog waits. */
struct host {
	struct penstockd d;
	const char *config, *socket; /* of the command line, or found; NULL: none */
	struct loop_source signals;
	struct loop_timer watchdog;
	int watchdog_ms;
	bool stop; /* its children end with it: somebody wants it to end, not to be replaced */
};

static int signal_pipe[2] = {-1, -1};

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'}, {"socket", required_argument, NULL, 's'},
	{"foreground", no_argument, NULL, 'f'},	  {"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},	  {0},
};

static void help(void)
{
	printf("Usage: penstockd [OPTION...]\n"
	       "Own the devices, kernels, pools and workers of this host, and answer who asks.\n"
	       "\n"
	       "  --config FILE   read this penstockd.conf(5) (default " CONFIG_FILE ",\n"
	       "                  if it is there)\n"
	       "  --socket PATH   where to answer (default %s)\n"
	       "  --foreground    do not go into the background; it never does\n"
	       "  --version       print the version and exit\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "SIGHUP: read the config again. SIGTERM, SIGINT: end, workers and servers too.\n"
	       "SIGUSR2: end, they go on. Exit status: 0 ended by a signal, 1 failed, 2 usage.\n",
	       PST_DOOR_SOCKET);
}

static int usage(const char *what, const char *value)
{
	fprintf(stderr, "penstockd: %s%s; see penstockd --help\n", what, value);
	return 2;
}

static int fail(const struct pst_error *err)
{
	log_line(LOG_ERR, NULL, "%s", err->text);
	notify_say("STATUS=%s\nERRNO=%d", err->text, -err->code);
	return 1;
}

static void on_signal(int sig)
{
	unsigned char byte = (unsigned char)sig;
	int saved = errno;

	if (write(signal_pipe[1], &byte, 1) < 0) {
		/* full: as many wait already */
	}
	errno = saved;
}

static void reload(struct host *host)
{
	notify_reloading();
	parts_reload(&host->d, host->config);
	notify_say("READY=1");
}

static void signals_ready(struct loop_source *src, uint32_t events)
{
	struct host *host = (struct host *)((char *)src - offsetof(struct host, signals));
	unsigned char sig;

	(void)events;
	while (read(src->fd, &sig, 1) == 1) {
		if (sig == SIGHUP) {
			reload(host);
			continue;
		}
		log_line(LOG_NOTICE, NULL, "ends: %s", strsignal(sig));
		host->stop = sig != SIGUSR2;
		loop_end(host->d.loop);
	}
}

static void watchdog_fired(struct loop_timer *timer)
{
	struct host *host = (struct host *)((char *)timer - offsetof(struct host, watchdog));

	notify_say("WATCHDOG=1");
	loop_after(host->d.loop, timer, host->watchdog_ms / 2);
}

/* By handlers, which those who are started do not inherit, as they would a mask. */
static int take_signals(struct pst_error *err)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	static const int taken[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR2};

	if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return pst_fail(err, -errno, "no pipe for signals: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		sigaction(taken[i], &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
	return 0;
}

static int serve(struct host *host, struct pst_error *err)
{
	struct penstockd *d = &host->d;
	int rc;

	host->signals.fd = signal_pipe[0];
	host->signals.ready = signals_ready;
	rc = loop_watch(d->loop, &host->signals, EPOLLIN);
	if (rc < 0)
		return pst_fail(err, rc, "signals cannot be watched: %s", strerror(-rc));
	host->watchdog.fire = watchdog_fired;
	host->watchdog_ms = notify_watchdog_ms();
	if (host->watchdog_ms)
		loop_after(d->loop, &host->watchdog, host->watchdog_ms / 2);
	log_line(LOG_NOTICE, NULL, "answers at %s", d->config.socket);
	notify_say("READY=1\nSTATUS=answers at %s", d->config.socket);
	rc = loop_run(d->loop);
	notify_say("STOPPING=1");
	return rc < 0 ? pst_fail(err, rc, "the loop ended: %s", strerror(-rc)) : 0;
}

/* From the folder that it was started in, if @path does not begin at the root. */
static int name_socket(char *socket, const char *path)
{
	size_t size = sizeof(((struct config *)0)->socket);
	char here[PATH_MAX] = "";
	int n;

	if (*path != '/' && !getcwd(here, sizeof(here)))
		return -errno;
	n = snprintf(socket, size, "%s%s%s", here, *here ? "/" : "", path);
	return n < (int)size ? 0 : -ENAMETOOLONG;
}

static int run(struct host *host)
{
	struct penstockd *d = &host->d;
	struct pst_error err = {0};
	int rc;

	if (!host->config && !access(CONFIG_FILE, F_OK))
		host->config = CONFIG_FILE;
	if (config_read(host->config, &d->config, &err))
		return fail(&err);
	if (host->socket && name_socket(d->config.socket, host->socket))
		return usage("too long for the path of a socket: ", host->socket);
	if (take_signals(&err) || parts_open(d, &err))
		return fail(&err);
	rc = serve(host, &err);
	parts_close(d, host->stop);
	return rc ? fail(&err) : 0;
}

/* Closed ones are taken, or what is opened next would be read from and printed to. */
static void fill_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	static struct host host;
	int c;

	fill_standard_files();
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			host.config = optarg;
			break;
		case 's':
			host.socket = optarg;
			break;
		case 'f':
			break;
		case 'V':
			printf("penstockd %s\n", pst_version());
			return 0;
		case 'h':
			help();
			return 0;
		default:
			return usage("unknown or incomplete option: ", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return usage("not an option: ", argv[optind]);
	log_begin("penstockd");
	return run(&host);
}
