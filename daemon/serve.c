/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/serve.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct serve_role *the_role;
static void *the_object;

static const struct option options[] = {
	{"listen", required_argument, NULL, 'l'}, {"threads", required_argument, NULL, 't'},
	{"node", required_argument, NULL, 'n'},	  {"must-lock", no_argument, NULL, 'm'},
	{"until-eof", no_argument, NULL, 'e'},  {"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},	  {0},
};

static void help(void)
{
	printf("Usage: %s --listen URL [OPTION...]\n"
	       "Run %s.\n"
	       "\n"
	       "  --listen URL    where to listen: shm://NAME, or shm:///PATH for a socket file\n"
	       "  --threads N     threads that compute (default 0: all cores of the node)\n"
	       "  --node N        NUMA node for memory and threads (default -1: any)\n"
	       "  --must-lock     fail when memory cannot be locked in RAM\n"
	       "  --until-eof     end when standard input does (with who holds its other end)\n"
	       "  --version       print the version and exit\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "Ends on SIGTERM or SIGINT. Exit status: 0 ended by a signal, 1 failed, 2 usage.\n",
	       the_role->name, the_role->what);
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

static int end_at_eof(void)
{
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, wait_for_eof, NULL);

	if (rc) {
		fprintf(stderr, "%s: no thread to watch standard input: %s\n", the_role->name,
			strerror(rc));
		return 1;
	}
	pthread_detach(thread);
	return 0;
}

static void on_signal(int sig)
{
	(void)sig;
	the_role->end(the_object);
}

static int fail(const struct pst_error *err)
{
	fprintf(stderr, "%s: %s\n", the_role->name, err->text);
	return 1;
}

static int serve(const struct pst_serve_options *o)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct pst_error err = {0};
	sigset_t both, before;
	int rc;

	/* no signal before there is something to end */
	sigemptyset(&both);
	sigaddset(&both, SIGTERM);
	sigaddset(&both, SIGINT);
	sigprocmask(SIG_BLOCK, &both, &before);
	rc = the_role->begin(o, &the_object, &err);
	if (rc < 0)
		return fail(&err);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	rc = the_role->run(the_object, &err);
	sigprocmask(SIG_BLOCK, &both, NULL);
	the_role->release(the_object);
	return rc < 0 ? fail(&err) : 0;
}

int serve_main(const struct serve_role *role, int argc, char **argv)
{
	struct pst_serve_options o;
	long n;
	int c;

	the_role = role;
	opterr = 0;
	pst_serve_defaults(&o);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			o.url = optarg;
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
			o.host.lock = 2;
			break;
		case 'e':
			if (end_at_eof())
				return 1;
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
