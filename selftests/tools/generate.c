/* SPDX-License-Identifier: Apache-2.0 */
/* penstock generate: the same request writes the same text, another one another. */
#include "selftests/tools/program.h"

FIXTURE(model)
{
	char dir[300];
};
FIXTURE_SETUP(model)
{
	snprintf(self->dir, sizeof(self->dir), "%s", in_tmp("out"));
	json_decref(program_json(
		NULL,
		"penstock train --preset nano --data " TEXT
		" --steps 120 --warmup 5 --batch 4 --seq 64 --embedded --out %s --json -",
		self->dir));
}
FIXTURE_TEARDOWN(model)
{
	(void)self;
}

/* What it wrote with these options; valid until the next but one. */
static const char *text(const char *dir, const char *options)
{
	static char text[2][4096];
	static int turn;
	json_t *r = program_json(NULL, "penstock generate %s --json - %s", dir, options);
	const char *s = json_string_value(json_object_get(r, "text"));

	ASSERT_NE(NULL, s);
	turn = !turn;
	snprintf(text[turn], sizeof(text[turn]), "%s", s);
	json_decref(r);
	return text[turn];
}

static void expect_same(const char *dir, const char *a, const char *b)
{
	const char *first = text(dir, a), *second = text(dir, b);

	EXPECT_STREQ(first, second);
	EXPECT_NE(0, first[0]);
}

static void expect_other(const char *dir, const char *a, const char *b)
{
	const char *first = text(dir, a), *second = text(dir, b);

	if (!strcmp(first, second)) {
		printf("# %s and %s write the same: %s\n", a, b, first);
		test_failed = true;
	}
}

TEST_F(model, the_same_again)
{
	expect_same(self->dir, "--temperature 0 --max-tokens 60",
		    "--temperature 0 --max-tokens 60");
	expect_same(self->dir, "--temperature 0 --max-tokens 60 --seed 2",
		    "--temperature 0 --max-tokens 60 --seed 9 --threads 1");
	expect_same(self->dir, "--seed 5 --max-tokens 60", "--seed 5 --max-tokens 60 --threads 1");
	expect_same(self->dir, "--temperature 0 --max-tokens 60",
		    "--temperature 0.8 --top-p 0.000001 --max-tokens 60");
}

TEST_F(model, another_one)
{
	expect_other(self->dir, "--seed 5 --max-tokens 60", "--seed 6 --max-tokens 60");
	expect_other(self->dir, "--seed 5 --max-tokens 60", "--seed 5 --max-tokens 60 --top-p 0.3");
	expect_other(self->dir, "--seed 5 --max-tokens 60",
		     "--seed 5 --max-tokens 60 --temperature 2");
	expect_other(self->dir, "--seed 5 --max-tokens 60",
		     "--seed 5 --max-tokens 60 --prompt The");
}

/* The first bytes of a longer text are those of a shorter one. */
TEST_F(model, longer)
{
	const char *small = text(self->dir, "--max-tokens 10 --seed 3");
	const char *large = text(self->dir, "--max-tokens 40 --seed 3");

	EXPECT_EQ(0, strncmp(small, large, strlen(small)));
	EXPECT_GT(strlen(large), strlen(small));
}

static void expect_counts(const char *dir, const char *options, double prompt, double tokens)
{
	json_t *r = program_json(NULL, "penstock generate %s --json - %s", dir, options);

	EXPECT_TRUE(number_of(r, "prompt_tokens") == prompt);
	EXPECT_TRUE(number_of(r, "tokens") == tokens);
	json_decref(r);
}

TEST_F(model, counts)
{
	char long_prompt[512];
	json_t *r;

	expect_counts(self->dir, "--max-tokens 0", 1, 0);
	expect_counts(self->dir, "--max-tokens 7 --prompt 'one two'", 7, 7);
	/* all 256 positions that the model has; and on, when the 64 of its rows are full */
	snprintf(long_prompt, sizeof(long_prompt), "--temperature 0 --max-tokens 5 --prompt %0256d",
		 7);
	expect_counts(self->dir, long_prompt, 256, 5);
	expect_counts(self->dir, "--temperature 0 --max-tokens 200 --prompt The", 3, 200);
	r = program_json(NULL, "penstock generate %s --json - --seed 18446744073709551615",
			 self->dir);
	json_decref(r);
}

/* Bytes that are no text are made some: JSON is UTF-8. */
TEST_F(model, bytes_that_are_no_text)
{
	json_t *r = program_json(
		NULL, "penstock generate %s --json - --max-tokens 3 --prompt \xff\xc3z", self->dir);

	EXPECT_STREQ("\xef\xbf\xbd\xef\xbf\xbdz", json_string_value(json_object_get(r, "prompt")));
	json_decref(r);
}

TEST_F(model, to_the_terminal)
{
	struct ended e = program_run(
		"penstock generate %s --prompt Licen --temperature 0 --max-tokens 9", self->dir);
	const char *s = text(self->dir, "--prompt Licen --temperature 0 --max-tokens 9");

	EXPECT_EQ(0, e.code);
	EXPECT_STREQ("", e.err);
	EXPECT_EQ(0, strncmp(e.out, "Licen", 5));
	EXPECT_EQ(0, strncmp(e.out + 5, s, strlen(s)));
	ended_free(&e);
}

TEST_F(model, refused)
{
	program_refused(NULL, 1, "257", "penstock generate %s --prompt %0257d", self->dir, 7);
	program_refused(NULL, 1, "empty", "penstock generate %s --prompt ''", self->dir);
	program_refused(NULL, 2, "temperature", "penstock generate %s --temperature -1", self->dir);
	program_refused(NULL, 2, "temperature", "penstock generate %s --temperature nan",
			self->dir);
	program_refused(NULL, 2, "top-p", "penstock generate %s --top-p 0", self->dir);
	program_refused(NULL, 2, "top-p", "penstock generate %s --top-p 1.01", self->dir);
	program_refused(NULL, 2, "max-tokens", "penstock generate %s --max-tokens -1", self->dir);
	program_refused(NULL, 2, "max-tokens", "penstock generate %s --max-tokens 1e12", self->dir);
	program_refused(NULL, 2, "seed", "penstock generate %s --seed -1", self->dir);
	program_refused(NULL, 2, "seed", "penstock generate %s --seed 1.5", self->dir);
	program_refused(NULL, 2, "seed", "penstock generate %s --seed 18446744073709551616",
			self->dir);
	program_refused(NULL, 2, "DIR", "penstock generate");
	program_refused(NULL, 2, "DIR", "penstock generate %s %s", self->dir, self->dir);
}

TEST_MAIN
