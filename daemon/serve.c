/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <penstock/wire.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct serve_role *the_role;
static void *the_object;
static bool until_eof; /* standard input ends with who started this, and is where it listens */
static int leash = -1; /* of the daemon that started this, -1: none */

static const struct option options[] = {
	{"listen", required_argument, NULL, 'l'},  {"key", required_argument, NULL, 'k'},
	{"threads", required_argument, NULL, 't'}, {"node", required_argument, NULL, 'n'},
	{"lock", required_argument, NULL, 'm'},	   {"huge", required_argument, NULL, 'g'},
	{"device", required_argument, NULL, 'd'},  {"until-eof", no_argument, NULL, 'e'},
	{"leash", required_argument, NULL, 'L'},   {"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},	   {0},
};

static void help(void)
{
	printf("Usage: %s --listen URL [OPTION...]\n"
	       "Run %s.\n"
	       "\n"
	       "  --listen URL    where to listen: shm://NAME, shm:///PATH for a socket file,\n"
	       "                  tcp://HOST[:PORT], verbs://HOST[,HOST][:PORT]; port 0: any\n"
	       "  --key FILE      over tcp and verbs, what both sides must share: a file that is\n"
	       "                  nobody else's to read (else $PENSTOCK_KEY, or\n"
	       "                  ~/.config/penstock/key)\n"
	       "  --threads N     threads that compute (default 0: all cores of the node)\n"
	       "  --node N        NUMA node for memory and threads (default -1: any)\n"
	       "  --lock N        lock memory in RAM: 0 no, 1 if allowed (default), 2 or fail\n"
	       "  --huge N        use huge pages (default 1)\n"
	       "%s"
	       "  --until-eof     end when standard input does (with who holds its other end)\n"
	       "  --leash FD      a socket that penstockd holds the other end of: by it orders "
	       "come\n"
	       "                  and figures go\n"
	       "  --version       print the version and exit\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "Says where it listens, with the port. Ends on SIGTERM or SIGINT. Exit status: 0 "
	       "ended by a signal, 1 failed, 2 usage.\n",
	       the_role->name, the_role->what,
	       the_role->computes
		       ? "  --device D      what computes: cpu (default), or cuda:N for a GPU\n"
		       : "");
}

static int usage(const char *what, const char *value)
{
	fprintf(stderr, "%s: %s%s; see %s --help\n", the_role->name, what, value, the_role->name);
	return 2;
}

static int parse_number(const char *text, long min, long max, long *out)
{
	char *end;

	errno = 0;
	*out = strtol(text, &end, 10);
	return *text && !*end && !errno && *out >= min && *out <= max ? 0 : -EINVAL;
}

/* Nothing is kept that would have to be put away: the end may be sudden. */
static void *wait_for_eof(void *arg)
{
	char byte;

	(void)arg;
	while (read(STDIN_FILENO, &byte, 1) > 0 || errno == EINTR)
		errno = 0;
	_exit(0);
}

static void on_signal(int sig)
{
	(void)sig;
	the_role->end(the_object);
}

/* To who holds the other end of standard input, if that is a socket; he may be gone already. */
static bool tell(const char *text)
{
	if (!until_eof)
		return false;
	if (send(STDIN_FILENO, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		return true;
	return errno == EPIPE || errno == ECONNRESET;
}

static void say_url(void)
{
	char line[512];

	snprintf(line, sizeof(line), PST_LISTENS "%s\n", the_role->url(the_object));
	/* over a leash HELLO says it */
	if (tell(line) || leash >= 0)
		return;
	fputs(line, stdout);
	fflush(stdout);
}

/* Who started this says it to people, in a sentence of its own. */
static int fail(const struct pst_error *err)
{
	if (tell(err->text) || (leash >= 0 && !leashed_fail(leash, err)))
		return 1;
	fprintf(stderr, "%s: %s\n", the_role->name, err->text);
	return 1;
}

static int end_at_eof(void)
{
	struct pst_error err = {0};
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, wait_for_eof, NULL);

	until_eof = true;
	if (rc) {
		snprintf(err.text, sizeof(err.text), "no thread to watch standard input: %s",
			 strerror(rc));
		return fail(&err);
	}
	pthread_detach(thread);
	return 0;
}

static void block_signals(sigset_t *before)
{
	sigset_t both;

	sigemptyset(&both);
	sigaddset(&both, SIGTERM);
	sigaddset(&both, SIGINT);
	sigprocmask(SIG_BLOCK, &both, before);
}

/* Serving, seen and ordered over the leash if there is one. */
static int run(struct pst_error *err)
{
	struct leashed *l = NULL;
	int rc = 0;

	if (leash >= 0)
		rc = leashed_begin(leash, the_role->leash_role, the_role->url(the_object),
				   the_role->leashed, the_object, &l, err);
	if (rc < 0)
		return rc;
	say_url();
	rc = the_role->run(the_object, err);
	block_signals(NULL);
	if (rc < 0)
		err->code = rc;
	leashed_end(l, err);
	return rc;
}

static int serve(const struct pst_serve_options *o)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct pst_error err = {0};
	sigset_t before;
	int rc;

	/* no signal before there is something to end */
	block_signals(&before);
	rc = the_role->begin(o, &the_object, &err);
	if (rc < 0)
		return fail(&err);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	rc = run(&err);
	block_signals(NULL);
	the_role->release(the_object);
	return rc < 0 ? fail(&err) : 0;
}

/* It came from who started this, and is not for others. */
static int take_leash(const char *text)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	long n;

	if (parse_number(text, STDERR_FILENO + 1, INT_MAX, &n) ||
	    getpeername((int)n, (struct sockaddr *)&peer, &len) || peer.ss_family != AF_UNIX)
		return -EINVAL;
	leash = (int)n;
	fcntl(leash, F_SETFD, FD_CLOEXEC);
	return 0;
}

/* Closed ones are taken, or what is opened next would be read from and printed to. */
static void fill_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int serve_main(const struct serve_role *role, int argc, char **argv)
{
	struct pst_serve_options o;
	long n;
	int c;

	fill_standard_files();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
	the_role = role;
	opterr = 0;
	pst_serve_defaults(&o);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			o.url = optarg;
			break;
		case 'k':
			o.key = optarg;
			break;
		case 't':
			if (parse_number(optarg, 0, 4096, &n))
				return usage("not a number of threads: ", optarg);
			o.host.threads = (uint32_t)n;
			break;
		case 'n':
			if (parse_number(optarg, -1, 4096, &n))
				return usage("not a NUMA node: ", optarg);
			o.host.node = (int32_t)n;
			break;
		case 'm':
			if (parse_number(optarg, 0, 2, &n))
				return usage("not 0, 1 or 2 for --lock: ", optarg);
			o.host.lock = (uint32_t)n;
			break;
		case 'g':
			if (parse_number(optarg, 0, 1, &n))
				return usage("not 0 or 1 for --huge: ", optarg);
			o.host.huge = (uint32_t)n;
			break;
		case 'd':
			if (!role->computes)
				return usage("unknown or incomplete option: ", "--device");
			o.host.device = optarg;
			break;
		case 'e':
			if (end_at_eof())
				return 1;
			break;
		case 'L':
			if (take_leash(optarg))
				return usage("not a leash, which penstockd gives: ", optarg);
			break;
		case 'V':
			printf("%s %s\n", role->name, pst_version());
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
	if (!o.url)
		return usage("--listen URL is needed", "");
	return serve(&o);
}
