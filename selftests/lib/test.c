/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/lib/test.h"

#include <ftw.h>
#include <poll.h>
#include <stdarg.h>
#include <time.h>

static struct test *tests;
struct test **test_tail = &tests;
static struct test_variant *variants;
struct test_variant **test_variant_tail = &variants;
bool test_failed;

static char tmpdir[64];
static unsigned int count[TEST_SKIP + 1], number;

void test_say(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("# %s:%d: not so: ", file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

unsigned long test_huge_pages(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long n = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "HugePages_Free: %lu", &n);
	if (f)
		fclose(f);
	return n;
}

const char *test_tmpdir(void)
{
	return tmpdir;
}

uint64_t test_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static unsigned int time_limit(void)
{
	const char *s = getenv("TEST_TIMEOUT");

	return s && atoi(s) > 0 ? (unsigned int)atoi(s) : 60;
}

/* Pass the child's output on, keeping the reason of a skip; 0 when it closed its end. */
static void relay(int fd, pid_t pid, char *why, size_t whylen, bool *late)
{
	struct timespec now, end;
	FILE *in = fdopen(fd, "r");

	char line[4096];

	setvbuf(in, NULL, _IONBF, 0); /* poll() must see what is left to read */
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += time_limit();
	*late = false;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		long left;

		clock_gettime(CLOCK_MONOTONIC, &now);
		left = (end.tv_sec - now.tv_sec) * 1000 + (end.tv_nsec - now.tv_nsec) / 1000000;
		if (left <= 0 || poll(&p, 1, (int)left) == 0) {
			*late = true;
			kill(-pid, SIGKILL);
			break;
		}
		if (!fgets(line, sizeof(line), in))
			break;
		if (!strncmp(line, "#SKIP ", 6))
			snprintf(why, whylen, "%.*s", (int)strcspn(line + 6, "\n"), line + 6);
		else
			printf("%s%s", line[0] == '#' ? "" : "# ", line);
	}
	fclose(in);
}

static void run_one(const struct test *t, const char *variant, const void *data, const char *name)
{
	char why[512] = "", *failed = NULL;
	int fd[2], status, result;
	bool late;
	pid_t pid;

	(void)variant;
	fflush(stdout);
	snprintf(tmpdir, sizeof(tmpdir), "/tmp/pst-test-XXXXXX");
	if (!mkdtemp(tmpdir) || pipe(fd)) {
		perror("# test");
		exit(TEST_FAIL);
	}
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		dup2(fd[1], STDOUT_FILENO);
		close(fd[0]);
		close(fd[1]);
		setvbuf(stdout, NULL, _IOLBF, 0);
		t->run(data);
		fflush(stdout);
		/* exit, not _exit: the leak check of the address sanitizer runs there */
		exit(test_failed ? TEST_FAIL : TEST_PASS);
	}
	setpgid(pid, pid);
	close(fd[1]);
	relay(fd[0], pid, why, sizeof(why), &late);
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL); /* whatever the test left running */
	nftw(tmpdir, remove_one, 16, FTW_DEPTH | FTW_PHYS);

	result = WIFEXITED(status) ? WEXITSTATUS(status) : TEST_FAIL;
	if (result != TEST_PASS && result != TEST_SKIP)
		result = TEST_FAIL;
	if (late)
		failed = "ran out of time";
	else if (WIFSIGNALED(status))
		failed = strsignal(WTERMSIG(status));
	if (failed) {
		printf("# %s\n", failed);
		result = TEST_FAIL;
	}
	count[result]++;
	printf("%sok %u %s", result == TEST_FAIL ? "not " : "", ++number, name);
	if (result == TEST_SKIP)
		printf(" # SKIP %s", why);
	putchar('\n');
	fflush(stdout);
}

static bool chosen(int argc, char **argv, const char *name)
{
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc < 2;
}

/* Calls @each for every test under every variant of its fixture. */
static unsigned int walk(int argc, char **argv,
			 void (*each)(const struct test *, const char *, const void *,
				      const char *))
{
	unsigned int n = 0;
	char name[256];

	for (const struct test *t = tests; t; t = t->next) {
		bool any = false;

		for (const struct test_variant *v = variants; t->fixture && v; v = v->next) {
			if (strcmp(v->fixture, t->fixture))
				continue;
			any = true;
			snprintf(name, sizeof(name), "%s.%s.%s", t->fixture, v->name, t->name);
			if (chosen(argc, argv, name) && ++n && each)
				each(t, v->name, v->data, name);
		}
		if (any)
			continue;
		snprintf(name, sizeof(name), "%s%s%s", t->fixture ? t->fixture : "",
			 t->fixture ? "." : "", t->name);
		if (chosen(argc, argv, name) && ++n && each)
			each(t, NULL, NULL, name);
	}
	return n;
}

static void list_one(const struct test *t, const char *variant, const void *data, const char *name)
{
	(void)t, (void)variant, (void)data;
	puts(name);
}

int test_main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && !strcmp(argv[1], "-l")) {
		walk(argc - 1, argv + 1, list_one);
		return 0;
	}
	printf("KTAP version 1\n1..%u\n", walk(argc, argv, NULL));
	walk(argc, argv, run_one);
	printf("# Totals: pass:%u fail:%u xfail:0 xpass:0 skip:%u error:0\n", count[TEST_PASS],
	       count[TEST_FAIL], count[TEST_SKIP]);
	return count[TEST_FAIL] || !number;
}
