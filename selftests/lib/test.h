/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test.h - a KTAP program in the manner of the kernel's kselftest_harness.
 *
 *	TEST(name) { EXPECT_EQ(0, f()); ASSERT_NE(NULL, p); }
 *	FIXTURE(pool) { struct pst_pool *p; };
 *	FIXTURE_SETUP(pool) { ... self->p ... }	   FIXTURE_TEARDOWN(pool) { ... }
 *	TEST_F(pool, name) { ... self->p ... }
 *	FIXTURE_VARIANT(pool) { int node; };  FIXTURE_VARIANT_ADD(pool, any) { .node = -1 };
 *	TEST_MAIN
 *
 * Every test runs in a process of its own with a time limit (60 s, or
 * TEST_TIMEOUT seconds from the environment), so that a crash or a hang fails
 * one test only. EXPECT_* go on, ASSERT_* end the test, SKIP(why, command that makes it run)
 * ends it as skipped. -l lists, arguments choose tests by substring.
 */
#ifndef PST_TEST_H
#define PST_TEST_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct test {
	const char *fixture, *variant, *name;
	void (*run)(const void *variant);
	const void *data;
	struct test *next;
};

struct test_variant {
	const char *fixture, *name;
	const void *data;
	struct test_variant *next;
};

extern struct test **test_tail;
extern struct test_variant **test_variant_tail;
extern bool test_failed;

enum { TEST_PASS = 0, TEST_FAIL = 1, TEST_SKIP = 4 };

int test_main(int argc, char **argv);
void test_say(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A fresh directory, removed with all in it when the test's process is gone. */
const char *test_tmpdir(void);
/* A seeded generator for tests: the same numbers on every machine. */
uint64_t test_random(uint64_t *state);
/* How many huge pages are free here: pools take those first, and they are always locked. */
unsigned long test_huge_pages(void);

#define TEST_REGISTER_(fix, nm, fn)                                       \
	__attribute__((constructor)) static void test_register_##fn(void) \
	{                                                                 \
		static struct test t = {fix, NULL, nm, fn, NULL, NULL};   \
		*test_tail = &t;                                          \
		test_tail = &t.next;                                      \
	}

#define TEST(nm)                                 \
	static void test_body_##nm(void);        \
	static void test_run_##nm(const void *v) \
	{                                        \
		(void)v;                         \
		test_body_##nm();                \
	}                                        \
	TEST_REGISTER_(NULL, #nm, test_run_##nm) \
	static void test_body_##nm(void)

#define FIXTURE(fix)	     struct fixture_##fix
#define FIXTURE_VARIANT(fix) struct variant_##fix
#define FIXTURE_VARIANT_ADD(fix, nm)                                                     \
	static const struct variant_##fix variant_##fix##_##nm;                          \
	__attribute__((constructor)) static void variant_register_##fix##_##nm(void)     \
	{                                                                                \
		static struct test_variant t = {#fix, #nm, &variant_##fix##_##nm, NULL}; \
		*test_variant_tail = &t;                                                 \
		test_variant_tail = &t.next;                                             \
	}                                                                                \
	static const struct variant_##fix variant_##fix##_##nm =
#define FIXTURE_SETUP(fix)                                                          \
	struct variant_##fix;                                                       \
	static void setup_##fix(struct fixture_##fix *self __attribute__((unused)), \
				const struct variant_##fix *variant __attribute__((unused)))
#define FIXTURE_TEARDOWN(fix)                                                          \
	static void teardown_##fix(struct fixture_##fix *self __attribute__((unused)), \
				   const struct variant_##fix *variant __attribute__((unused)))
#define TEST_F(fix, nm)                                                                        \
	static void test_body_##fix##_##nm(struct fixture_##fix *self,                         \
					   const struct variant_##fix *variant);               \
	static void test_run_##fix##_##nm(const void *v)                                       \
	{                                                                                      \
		struct fixture_##fix self;                                                     \
		memset(&self, 0, sizeof(self));                                                \
		setup_##fix(&self, v);                                                         \
		test_body_##fix##_##nm(&self, v);                                              \
		teardown_##fix(&self, v);                                                      \
	}                                                                                      \
	TEST_REGISTER_(#fix, #nm, test_run_##fix##_##nm)                                       \
	static void test_body_##fix##_##nm(struct fixture_##fix *self __attribute__((unused)), \
					   const struct variant_##fix *variant                 \
					   __attribute__((unused)))

#define TEST_CHECK_(want, got, op, end)                                                        \
	do {                                                                                   \
		__typeof__(want) w_ = (want);                                                  \
		__typeof__(got) g_ = (got);                                                    \
		if (!(w_ op g_)) {                                                             \
			test_say(__FILE__, __LINE__, "%s (%lld) %s %s (%lld)", #want,          \
				 (long long)(intptr_t)w_, #op, #got, (long long)(intptr_t)g_); \
			end;                                                                   \
		}                                                                              \
	} while (0)
#define TEST_TRUE_(cond, end)                                      \
	do {                                                       \
		if (!(cond)) {                                     \
			test_say(__FILE__, __LINE__, "%s", #cond); \
			end;                                       \
		}                                                  \
	} while (0)
#define TEST_STR_(want, got, end)                                                                \
	do {                                                                                     \
		const char *w_ = (want), *g_ = (got);                                            \
		if (!g_ || strcmp(w_, g_)) {                                                     \
			test_say(__FILE__, __LINE__, "\"%s\" is not \"%s\"", g_ ? g_ : "(null)", \
				 w_);                                                            \
			end;                                                                     \
		}                                                                                \
	} while (0)

#define EXPECT_EQ(want, got)	TEST_CHECK_(want, got, ==, test_failed = true)
#define EXPECT_NE(want, got)	TEST_CHECK_(want, got, !=, test_failed = true)
#define EXPECT_LT(a, b)		TEST_CHECK_(a, b, <, test_failed = true)
#define EXPECT_LE(a, b)		TEST_CHECK_(a, b, <=, test_failed = true)
#define EXPECT_GT(a, b)		TEST_CHECK_(a, b, >, test_failed = true)
#define EXPECT_GE(a, b)		TEST_CHECK_(a, b, >=, test_failed = true)
#define EXPECT_TRUE(cond)	TEST_TRUE_(cond, test_failed = true)
#define EXPECT_FALSE(cond)	TEST_TRUE_(!(cond), test_failed = true)
#define EXPECT_STREQ(want, got) TEST_STR_(want, got, test_failed = true)
#define ASSERT_EQ(want, got)	TEST_CHECK_(want, got, ==, _exit(TEST_FAIL))
#define ASSERT_NE(want, got)	TEST_CHECK_(want, got, !=, _exit(TEST_FAIL))
#define ASSERT_LT(a, b)		TEST_CHECK_(a, b, <, _exit(TEST_FAIL))
#define ASSERT_LE(a, b)		TEST_CHECK_(a, b, <=, _exit(TEST_FAIL))
#define ASSERT_GT(a, b)		TEST_CHECK_(a, b, >, _exit(TEST_FAIL))
#define ASSERT_GE(a, b)		TEST_CHECK_(a, b, >=, _exit(TEST_FAIL))
#define ASSERT_TRUE(cond)	TEST_TRUE_(cond, _exit(TEST_FAIL))
#define ASSERT_FALSE(cond)	TEST_TRUE_(!(cond), _exit(TEST_FAIL))
#define ASSERT_STREQ(want, got) TEST_STR_(want, got, _exit(TEST_FAIL))
/* 0 or the reason that the library gave. */
#define ASSERT_OK(call, err)                                                                  \
	do {                                                                                  \
		int rc_ = (call);                                                             \
		if (rc_ < 0) {                                                                \
			test_say(__FILE__, __LINE__, "%s: %d (%s)", #call, rc_, (err)->text); \
			_exit(TEST_FAIL);                                                     \
		}                                                                             \
	} while (0)

#define SKIP_WITH_HUGE_PAGES()                                                           \
	do {                                                                             \
		if (test_huge_pages())                                                   \
			SKIP("huge pages are free here", "sysctl -w vm.nr_hugepages=0"); \
	} while (0)
#define SKIP(why, command)                                          \
	do {                                                        \
		printf("#SKIP %s (to run it: %s)\n", why, command); \
		fflush(stdout);                                     \
		_exit(TEST_SKIP);                                   \
	} while (0)

#define TEST_MAIN                             \
	int main(int argc, char **argv)       \
	{                                     \
		return test_main(argc, argv); \
	}

#endif /* PST_TEST_H */
