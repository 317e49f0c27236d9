/* SPDX-License-Identifier: Apache-2.0 */
/* penstockctl: ask and order the daemon of this host. */
#include "tools/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct command {
	const char *group, *name; /* "pool", "create"; or NULL, "pools" */
	int (*run)(struct ctl *ctl, int argc, char **argv);
	const char *help;
};

static const struct command commands[] = {
	{NULL, "info", cmd_info, "what the daemon has, and what you may do"},
	{NULL, "devices", cmd_devices, "CPUs and GPUs: load, memory, power, health"},
	{NULL, "pools", cmd_pools, "memory that others map"},
	{NULL, "kernels", cmd_kernels, "implementations of ops, and which of them serve"},
	{NULL, "workers", cmd_workers, "what computes experts"},
	{NULL, "servers", cmd_servers, "what keeps weights"},
	{NULL, "experts", cmd_experts, "where copies of experts are, and how hot they are"},
	{NULL, "tables", cmd_tables, "weights and their versions"},
	{NULL, "events", cmd_events, "what happened"},
	{NULL, "top", cmd_top, "all of it, live"},
	{"kernel", "load", cmd_kernel_load, "try an image; it may be bound when it is right"},
	{"kernel", "bind", cmd_kernel_bind, "let a kernel serve its op"},
	{"kernel", "rollback", cmd_kernel_rollback, "go back to what it replaced"},
	{"kernel", "unload", cmd_kernel_unload, "forget a kernel"},
	{"worker", "start", cmd_worker_start, "start a worker"},
	{"worker", "drain", cmd_worker_drain, "let it finish, send its work elsewhere, stop it"},
	{"worker", "stop", cmd_worker_stop, "stop it at once"},
	{"pool", "create", cmd_pool_create, "make a pool that stays"},
	{"pool", "destroy", cmd_pool_destroy, "let a pool go"},
	{"expert", "place", cmd_expert_place, "bring an expert to a worker"},
	{"expert", "pin", cmd_expert_pin, "bring it, and keep it there"},
	{"expert", "unpin", cmd_expert_unpin, "it may go when there is no room"},
	{"expert", "evict", cmd_expert_evict, "let its copy go now"},
	{NULL, "power", cmd_power, "show or set what a device may draw"},
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void help(FILE *out)
{
	fprintf(out, "Usage: penstockctl [--socket PATH] [--json] COMMAND [ARGUMENT...]\n"
		     "Ask and order the Penstock daemon of this host.\n"
		     "\n");
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];

		fprintf(out, "  %s%s%-*s %s\n", c->group ? c->group : "", c->group ? " " : "",
			(int)(16 - (c->group ? strlen(c->group) + 1 : 0)), c->name, c->help);
	}
	fprintf(out, "\n"
		     "  --socket PATH    the daemon's socket\n"
		     "  --json           print JSON, for programs\n"
		     "  --version        print the version of the library and exit\n"
		     "  --help           print this and exit\n"
		     "\n"
		     "Each command explains itself: penstockctl COMMAND --help\n"
		     "Exit status: 0 done, 1 failed, 2 usage.\n");
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

/* What could not be printed is a failure, unless the reader had enough of it. */
static int check_stdout(int rc)
{
	struct pollfd reader = {.fd = STDOUT_FILENO};
	int bad = ferror(stdout);

	bad |= fflush(stdout);
	if (!bad || rc != EXIT_DONE || (poll(&reader, 1, 0) == 1 && reader.revents & POLLERR))
		return rc;
	fprintf(stderr, "penstockctl: standard output cannot be written: %s\n",
		errno ? strerror(errno) : "input/output error");
	return EXIT_FAILED;
}

/* Options before the command. -1: argv[*at] is the command; else the status to exit with. */
static int global_options(struct ctl *ctl, int argc, char **argv, int *at)
{
	static const char socket[] = "--socket=";

	for (; *at < argc && argv[*at][0] == '-'; ++*at) {
		const char *word = argv[*at];

		if (!strcmp(word, "--help")) {
			help(stdout);
			return EXIT_DONE;
		}
		if (!strcmp(word, "--version")) {
			printf("penstockctl %s\n", pst_version());
			return EXIT_DONE;
		}
		if (!strcmp(word, "--json")) {
			ctl->json = 1;
		} else if (!strncmp(word, socket, strlen(socket))) {
			ctl->socket = word + strlen(socket);
		} else if (!strcmp(word, "--socket") && *at + 1 < argc) {
			ctl->socket = argv[++*at];
		} else {
			fprintf(stderr, "penstockctl: %s '%s'; see penstockctl --help\n",
				strcmp(word, "--socket") ? "unknown option" : "no PATH behind",
				word);
			return EXIT_USAGE;
		}
	}
	return -1;
}

static int unknown(const char *group, const char *name)
{
	bool known = false;

	for (size_t i = 0; i < COMMANDS; i++)
		known |= commands[i].group && !strcmp(commands[i].group, group);
	if (known && name)
		fprintf(stderr, "penstockctl: unknown command '%s %s'; see penstockctl --help\n",
			group, name);
	else if (known)
		fprintf(stderr,
			"penstockctl: what should be done with the %s? see penstockctl "
			"--help\n",
			group);
	else
		fprintf(stderr, "penstockctl: unknown command '%s'; see penstockctl --help\n",
			group);
	return EXIT_USAGE;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
	int at = 1, rc = global_options(ctl, argc, argv, &at);

	if (rc >= 0)
		return rc;
	if (at == argc) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[at], "help")) {
		help(stdout);
		return EXIT_DONE;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		const struct command *c = &commands[i];
		int last = at + (c->group ? 1 : 0);

		if (last < argc && !strcmp(argv[last], c->name) &&
		    (!c->group || !strcmp(argv[at], c->group)))
			return c->run(ctl, argc - last, argv + last);
	}
	if (at + 1 < argc && !strcmp(argv[at + 1], "--help")) {
		help(stdout);
		return EXIT_DONE;
	}
	return unknown(argv[at], at + 1 < argc ? argv[at + 1] : NULL);
}

int main(int argc, char **argv)
{
	struct ctl ctl = {0};
	int rc;

	fill_standard_files();
	setlocale(LC_CTYPE, ""); /* for what the terminal can show; numbers stay in C */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
	options_program = "penstockctl";
	rc = check_stdout(run(&ctl, argc, argv));
	ctl_hang_up(&ctl);
	return rc;
}
