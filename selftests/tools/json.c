/* SPDX-License-Identifier: Apache-2.0 */
/* What train and inspect report: every key of the contract, numbers that fit, nothing else on
 * stdout. */
#include "selftests/tools/program.h"

#include <math.h>

#define TRAIN "penstock train --preset nano --data " TEXT " --steps 12 --batch 2 --seq 64 --json "

static void expect_keys(const json_t *r)
{
	static const char *const key[] = {"steps",
					  "seconds",
					  "tokens",
					  "tokens_per_second",
					  "train_loss",
					  "val_loss",
					  "val_bits_per_byte",
					  "gzip_bits_per_byte",
					  "xz_bits_per_byte",
					  "bytes_pulled",
					  "bytes_pushed",
					  "bytes_dispatched",
					  "bytes_combined",
					  "bytes_moved",
					  "bytes_copied",
					  "bytes_saved",
					  "workers",
					  "servers",
					  "worker_restarts",
					  "expert_load_max_over_mean"};

	for (size_t i = 0; i < sizeof(key) / sizeof(*key); i++)
		EXPECT_TRUE(number_of(r, key[i]) >= 0);
	EXPECT_EQ((size_t)16, strlen(digest_of(r)));
	EXPECT_EQ((size_t)16, strspn(digest_of(r), "0123456789abcdef"));
}

static void expect_plausible(const json_t *r)
{
	double rows = 12 * 2 * 64;

	EXPECT_TRUE(number_of(r, "steps") == 12);
	EXPECT_TRUE(number_of(r, "tokens") == rows);
	EXPECT_TRUE(number_of(r, "seconds") > 0);
	EXPECT_TRUE(number_of(r, "tokens_per_second") > 0);
	EXPECT_TRUE(fabs(number_of(r, "train_loss") - log(256)) < 1.5);
	EXPECT_TRUE(fabs(number_of(r, "val_loss") / M_LN2 - number_of(r, "val_bits_per_byte")) <
		    1e-6);
	EXPECT_TRUE(number_of(r, "gzip_bits_per_byte") > 1);
	EXPECT_TRUE(number_of(r, "gzip_bits_per_byte") < 8);
	EXPECT_TRUE(number_of(r, "xz_bits_per_byte") > 1);
	EXPECT_TRUE(number_of(r, "xz_bits_per_byte") < 8);
	EXPECT_TRUE(number_of(r, "expert_load_max_over_mean") >= 1);
	EXPECT_TRUE(number_of(r, "expert_load_max_over_mean") <= 4);
	EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
	/* every token's row goes to two experts in two layers, forward; its gradient comes after */
	EXPECT_TRUE(number_of(r, "bytes_dispatched") >= rows * 2 * 2 * 2 * 32 * 4);
	EXPECT_TRUE(number_of(r, "bytes_combined") >= rows * 2 * 2 * 2 * 32 * 4);
	/* each step uses and makes the engine's weights at least, 11 thousand or more */
	EXPECT_TRUE(number_of(r, "bytes_pulled") >= 12 * 4 * 11000.0);
	EXPECT_TRUE(number_of(r, "bytes_pushed") >= 12 * 4 * 11000.0);
}

FIXTURE(way)
{
	int unused;
};
FIXTURE_VARIANT(way)
{
	const char *how;
	double workers, servers;
};
FIXTURE_VARIANT_ADD(way, processes){"--workers 2 --servers 2", 2, 2};
FIXTURE_VARIANT_ADD(way, embedded){"--embedded --workers 3", 3, 1};
FIXTURE_SETUP(way)
{
	(void)self;
}
FIXTURE_TEARDOWN(way)
{
	(void)self;
}

/* Weights and gradients are used and made where they lie. */
TEST_F(way, nothing_is_copied)
{
	json_t *r = program_json(NULL, TRAIN "- %s", variant->how);

	expect_keys(r);
	expect_plausible(r);
	EXPECT_TRUE(number_of(r, "bytes_copied") == 0);
	EXPECT_TRUE(number_of(r, "bytes_moved") == 0);
	EXPECT_TRUE(number_of(r, "bytes_saved") == 0);
	EXPECT_TRUE(number_of(r, "workers") == variant->workers);
	EXPECT_TRUE(number_of(r, "servers") == variant->servers);
	json_decref(r);
}

/* Nor when a checkpoint is read: the loader puts tensors where they will be used. */
TEST_F(way, nothing_is_copied_by_a_resume)
{
	json_t *r = program_json(NULL, TRAIN "- --out %s", in_tmp("out"));
	size_t len;

	EXPECT_TRUE(number_of(r, "bytes_saved") > 3 * 4 * 50000.0);
	free(read_file(in_tmp("out/step-00000012/model.safetensors"), &len));
	EXPECT_GT(len, (size_t)200000);
	EXPECT_TRUE(json_is_string(json_object_get(r, "checkpoint")));
	json_decref(r);
	r = program_json(NULL, "penstock train --data " TEXT " --steps 14 --resume %s --json - %s",
			 in_tmp("out"), variant->how);
	expect_keys(r);
	EXPECT_TRUE(number_of(r, "steps") == 14);
	EXPECT_TRUE(number_of(r, "tokens") == 2 * 2 * 64);
	EXPECT_TRUE(number_of(r, "bytes_copied") == 0);
	EXPECT_TRUE(number_of(r, "bytes_moved") == 0);
	json_decref(r);
}

TEST(a_file_beside_what_people_read)
{
	struct ended e =
		program_run(TRAIN "%s --out %s --sample 20", in_tmp("r.json"), in_tmp("o"));
	json_t *r = json_load_file(in_tmp("r.json"), JSON_REJECT_DUPLICATES, NULL);

	EXPECT_EQ(0, e.code);
	EXPECT_STREQ("", e.err);
	EXPECT_TRUE(strstr(e.out, "step 12/12") != NULL);
	EXPECT_TRUE(strstr(e.out, "Held-out text") != NULL);
	EXPECT_TRUE(strstr(e.out, "loss_digest") == NULL);
	ASSERT_NE(NULL, r);
	expect_keys(r);
	json_decref(r);
	ended_free(&e);
}

TEST(inspect)
{
	json_t *r, *tensors;
	double bytes = 0;

	json_decref(program_json(NULL, TRAIN "- --embedded --servers 2 --out %s", in_tmp("out")));
	r = program_json(NULL, "penstock inspect %s --json -", in_tmp("out"));
	tensors = json_object_get(r, "tensors");
	EXPECT_TRUE(number_of(r, "step") == 12);
	EXPECT_TRUE(number_of(r, "files") == 2);
	EXPECT_TRUE(number_of(r, "experts") == 8);
	EXPECT_TRUE(number_of(r, "layers") == 3);
	EXPECT_EQ((size_t)91, json_array_size(tensors));
	for (size_t i = 0; i < json_array_size(tensors); i++) {
		const json_t *t = json_array_get(tensors, i), *shape = json_object_get(t, "shape");
		double n = 4;

		for (size_t d = 0; d < json_array_size(shape); d++)
			n *= json_number_value(json_array_get(shape, d));
		EXPECT_TRUE(n == number_of(t, "bytes"));
		EXPECT_STREQ("F32", json_string_value(json_object_get(t, "dtype")));
		bytes += n;
	}
	EXPECT_TRUE(bytes == number_of(r, "bytes"));
	json_decref(r);
}

TEST(a_result_that_cannot_be_written_is_a_failure)
{
	static const struct how full = {.out = "/dev/full"}, closed = {.out = "-"};

	program_refused(&full, 1, "No space left", TRAIN "-");
	program_refused(&closed, 1, "", TRAIN "- --embedded");
	program_refused(NULL, 1, "/nowhere/r.json", TRAIN "/nowhere/r.json --embedded --out %s",
			in_tmp("out"));
	program_refused(&full, 1, "No space left", "penstock inspect %s --json -", in_tmp("out"));
	program_refused(&closed, 1, "", "penstock inspect %s --json -", in_tmp("out"));
	program_refused(&full, 1, "No space left", "penstock generate %s --json -", in_tmp("out"));
	program_refused(&full, 1, "standard output", "penstock inspect %s", in_tmp("out"));
	program_refused(&full, 1, "standard output", "penstock generate %s", in_tmp("out"));
	program_refused(&closed, 1, "standard output", "penstock inspect %s", in_tmp("out"));
	program_refused(&full, 1, "standard output",
			"penstock train --preset nano --data " TEXT
			" --steps 2 --batch 2 --seq 64");
}

TEST_MAIN
