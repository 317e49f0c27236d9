/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu-check - all CUDA kernels on the first GPU, against ref.
 *
 *	gpu-check [NAME...]	a process for each test; names choose by substring
 *	gpu-check -l		their names
 *	gpu-check --here NAME	one test, in this process, for tools that look into it
 *
 * Exit status 0: all passed, and if none was left out, or with --every before the names, they
 * launched every kernel; 1: not so; 4: no GPU is here that could run them, and one line says why.
 *
 * The tests are those of gpu/kernels. The linker gives test_main() to this file (--wrap).
 */
#include "selftests/gpu/check_gpu.h"
#include "selftests/gpu/check_launch.h"
#include "selftests/gpu/check_memory.h"
#include "selftests/lib/test.h"

int __real_test_main(int argc, char **argv);
int __wrap_test_main(int argc, char **argv);

/* Where their lists begin: before anybody has added to them. */
static struct test **first;
static struct test_variant **first_variant;

__attribute__((constructor(101))) static void remember(void)
{
	first = test_tail;
	first_variant = test_variant_tail;
}

static bool is(const struct test *t, const struct test_variant *v, const char *name)
{
	char full[256];

	snprintf(full, sizeof(full), "%s%s%s%s%s", t->fixture ? t->fixture : "",
		 t->fixture ? "." : "", v ? v->name : "", v ? "." : "", t->name);
	return !strcmp(full, name);
}

static int run_here(const char *name)
{
	for (const struct test *t = *first; t; t = t->next) {
		if (is(t, NULL, name)) {
			t->run(NULL);
			return test_failed ? TEST_FAIL : TEST_PASS;
		}
		for (const struct test_variant *v = *first_variant; t->fixture && v; v = v->next) {
			if (strcmp(v->fixture, t->fixture) || !is(t, v, name))
				continue;
			t->run(v->data);
			return test_failed ? TEST_FAIL : TEST_PASS;
		}
	}
	printf("# there is no test %s; -l lists them\n", name);
	return TEST_FAIL;
}

static int on_stack(int argc, char **argv)
{
	bool every = argc == 1;
	int rc;

	check_launch_begin();
	if (argc == 3 && !strcmp(argv[1], "--here"))
		return run_here(argv[2]);
	if (argc > 1 && !strcmp(argv[1], "--every")) {
		every = true;
		argv[1] = argv[0];
		argv++, argc--;
	}
	rc = __real_test_main(argc, argv);
	return every && check_launch_end() ? TEST_FAIL : rc;
}

/* In a process of its own: a child cannot use a driver that its parent has opened. */
static int probe(void)
{
	struct check_gpu g;
	char why[500];
	int rc = check_gpu_open(&g, why, sizeof(why));

	if (!rc)
		printf("# %s, compute capability %d.%d, driver for CUDA %d.%d\n", g.name, g.major,
		       g.minor, g.version / 1000, g.version / 10 % 100);
	else if (rc == -ENODEV)
		printf("1..0 # SKIP %s (to run it, on a machine with a GPU: make -C kernels "
		       "gpu-check)\n",
		       why);
	else
		printf("Bail out! %s\n", why);
	fflush(stdout);
	return !rc ? TEST_PASS : rc == -ENODEV ? TEST_SKIP : TEST_FAIL;
}

static int look(void)
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(probe());
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
		puts("Bail out! The driver ends the process that opens it");
		return TEST_FAIL;
	}
	return WEXITSTATUS(status);
}

int __wrap_test_main(int argc, char **argv)
{
	bool lists = argc > 1 && !strcmp(argv[1], "-l"),
	     here = argc > 1 && !strcmp(argv[1], "--here");
	int rc = lists || here ? 0 : look();

	return rc ? rc : check_memory_stack(on_stack, argc, argv);
}
