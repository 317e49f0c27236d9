/* SPDX-License-Identifier: Apache-2.0 */
/* penstock: train a Mixture-of-Experts model, let it write, look into checkpoints. */
#include "tools/penstock.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"train", cmd_train, "train a model on text"},
	{"generate", cmd_generate, "let a checkpoint continue a text"},
	{"inspect", cmd_inspect, "show and check what a checkpoint holds"},
};

int say_error(const char *command, const struct pst_error *err)
{
	fprintf(stderr, "penstock %s: %s\n", command, err->text[0] ? err->text : "failed");
	return EXIT_FAILED;
}

int write_json(const char *command, const char *path, json_t *root)
{
	int to_stdout = !strcmp(path, "-"), bad;
	FILE *out = to_stdout ? stdout : fopen(path, "w");

	if (!out || !root) {
		fprintf(stderr, "penstock %s: %s: %s\n", command, path,
			strerror(out ? ENOMEM : errno));
		json_decref(root);
		return EXIT_FAILED;
	}
	errno = 0;
	bad = json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
	bad |= fputc('\n', out) == EOF;
	bad |= to_stdout ? fflush(out) : fclose(out);
	json_decref(root);
	if (bad)
		fprintf(stderr, "penstock %s: %s: %s\n", command, path, strerror(errno));
	return bad ? EXIT_FAILED : EXIT_DONE;
}

/* Length of the UTF-8 character at @p, 0 if it is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;
	char word[5] = {0};
	json_t *probe;

	if (!n || n > left)
		return 0;
	memcpy(word, p, n);
	probe = json_stringn(word, n); /* refuses overlong forms and surrogates */
	json_decref(probe);
	return probe ? n : 0;
}

json_t *json_text(const char *text, size_t bytes)
{
	char *clean = malloc(3 * bytes + 1);
	size_t n = 0;
	json_t *out;

	if (!clean)
		return NULL;
	for (size_t i = 0; i < bytes;) {
		size_t len = utf8_length((const unsigned char *)text + i, bytes - i);

		memcpy(clean + n, len ? text + i : "\xef\xbf\xbd", len ? len : 3);
		n += len ? len : 3;
		i += len ? len : 1;
	}
	out = json_stringn(clean, n);
	free(clean);
	return out;
}

const char *human_bytes(double bytes, char buf[16])
{
	static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	int u = 0;

	for (; bytes >= 999.5 && u < 5; u++)
		bytes /= 1000;
	snprintf(buf, 16,
		 u && bytes < 9.995   ? "%.2f %s"
		 : bytes < 99.95 && u ? "%.1f %s"
				      : "%.0f %s",
		 bytes, unit[u]);
	return buf;
}

double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void help(FILE *out)
{
	fprintf(out,
		"Usage: penstock COMMAND [OPTION...]\n"
		"Train and run Mixture-of-Experts models whose experts live on parameter servers.\n"
		"\n");
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\nEach command explains itself: penstock COMMAND --help\n"
		     "Exit status: 0 done, 1 failed, 2 usage.\n");
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

/* What could not be printed is a failure, unless the reader had enough of it. */
static int check_stdout(const char *command, int rc)
{
	struct pollfd reader = {.fd = STDOUT_FILENO};
	int bad = ferror(stdout);

	bad |= fflush(stdout);
	if (!bad || rc != EXIT_DONE || (poll(&reader, 1, 0) == 1 && reader.revents & POLLERR))
		return rc;
	fprintf(stderr, "penstock %s: standard output cannot be written: %s\n", command,
		errno ? strerror(errno) : "input/output error");
	return EXIT_FAILED;
}

int main(int argc, char **argv)
{
	fill_standard_files();
	setlocale(LC_CTYPE, ""); /* for what the terminal can show; numbers stay in C */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		help(stdout);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "--version")) {
		printf("penstock %s\n", pst_version());
		return EXIT_DONE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return check_stdout(argv[1], commands[i].run(argc - 1, argv + 1));
	fprintf(stderr, "penstock: unknown command '%s'; see penstock --help\n", argv[1]);
	return EXIT_USAGE;
}
