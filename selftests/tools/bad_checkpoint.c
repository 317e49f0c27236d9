/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that are cut, broken or lie: inspect, generate and train --resume each say so. */
#include "selftests/tools/program.h"

#include <math.h>

#define TRAIN "penstock train --data " TEXT " --steps 4 --json - "
#define STEP  "step-00000002"

enum { INSPECT = 1, GENERATE = 2, RESUME = 4, ALL = 7 };

/* one: a good checkpoint of one server; two: of two; work: what is broken next. */
FIXTURE(ckpt)
{
	int unused;
};
FIXTURE_SETUP(ckpt)
{
	static const char shape[] = "penstock train --preset nano --data " TEXT
				    " --batch 2 --seq 64 --steps 2 --json -";

	json_decref(program_json(NULL, "%s --embedded --out %s", shape, in_tmp("one")));
	json_decref(program_json(NULL, "%s --embedded --servers 2 --out %s", shape, in_tmp("two")));
	(void)self;
}
FIXTURE_TEARDOWN(ckpt)
{
	(void)self;
}

static void fresh(const char *from)
{
	shell("rm -rf %s && cp -r %s/" STEP " %s", in_tmp("work"), in_tmp("%s", from),
	      in_tmp("work"));
}

/* The programs @who refuse what is in work and say @text; the others take it. */
static void expect_refused(int who, const char *text)
{
	static const char *const command[] = {"penstock inspect",
					      "penstock generate --max-tokens 2", TRAIN "--resume"};

	for (int i = 0; i < 3; i++) {
		if (who & 1 << i) {
			program_refused(NULL, 1, text, "%s %s", command[i], in_tmp("work"));
		} else {
			struct ended e = program_run("%s %s", command[i], in_tmp("work"));

			if (e.code) {
				printf("# %s: %s\n", command[i], e.err);
				test_failed = true;
			}
			ended_free(&e);
		}
	}
	/* nor did anybody write there */
	shell("test -z \"$(find %s -newer %s)\"", in_tmp("work"), in_tmp("mark"));
}

static void mark(void)
{
	shell("touch -d '+1 hour' %s", in_tmp("mark"));
}

static void cut(const char *file, size_t to, int who)
{
	fresh("one");
	ASSERT_EQ(0, truncate(in_tmp("work/%s", file), (off_t)to));
	expect_refused(who, file);
}

TEST_F(ckpt, good)
{
	mark();
	fresh("one");
	expect_refused(0, "");
	fresh("two");
	expect_refused(0, "");
}

TEST_F(ckpt, cut_short)
{
	size_t len;

	mark();
	free(read_file(in_tmp("one/" STEP "/model.safetensors"), &len));
	cut("model.safetensors", 0, ALL);
	cut("model.safetensors", 7, ALL);
	cut("model.safetensors", 8, ALL);
	cut("model.safetensors", 1000, ALL);
	cut("model.safetensors", len / 2, ALL);
	cut("model.safetensors", len - 1, ALL);
	free(read_file(in_tmp("one/" STEP "/optimizer.safetensors"), &len));
	cut("optimizer.safetensors", 0, RESUME);
	cut("optimizer.safetensors", len / 3, RESUME);
	cut("optimizer.safetensors", len - 1, RESUME);
	cut("trainer.json", 40, RESUME);
	cut("trainer.json", 0, RESUME);
	cut("config.json", 40, ALL);
	cut("config.json", 0, ALL);
}

static void without(const char *from, const char *file, int who, const char *text)
{
	fresh(from);
	ASSERT_EQ(0, unlink(in_tmp("work/%s", file)));
	expect_refused(who, text);
}

TEST_F(ckpt, missing)
{
	mark();
	without("one", "config.json", ALL, "no checkpoint there");
	without("one", "model.safetensors", ALL, "model.safetensors");
	without("one", "optimizer.safetensors", RESUME, "optimizer.safetensors");
	without("one", "trainer.json", RESUME, "trainer.json");
	without("two", "model-00001-of-00002.safetensors", ALL, "model-00001-of-00002");
	without("two", "model-00002-of-00002.safetensors", ALL, "model-00002-of-00002");
	without("two", "optimizer-00002-of-00002.safetensors", RESUME, "optimizer-00002-of-00002");
	without("two", "model.safetensors.index.json", ALL, "model.safetensors");
}

TEST_F(ckpt, nothing_there)
{
	static const char *const command[] = {"penstock inspect", "penstock generate",
					      TRAIN "--resume"};

	shell("mkdir %s && touch %s", in_tmp("empty"), in_tmp("file"));
	for (int i = 0; i < 3; i++) {
		program_refused(NULL, 1, "/nowhere/x", "%s /nowhere/x", command[i]);
		program_refused(NULL, 1, "no checkpoint there", "%s %s", command[i],
				in_tmp("empty"));
		program_refused(NULL, 1, "not a directory", "%s %s", command[i], in_tmp("file"));
		program_refused(NULL, 1, "", "%s /dev/null", command[i]);
		program_refused(NULL, 1, "", "%s ''", command[i]);
	}
	program_refused(NULL, 1, "step 2",
			"penstock train --data " TEXT " --steps 1 --json - --resume %s",
			in_tmp("one"));
}

/* Headers that lie: a tensor's entry is changed, the data is as it was. */
static void rewrite_header(const char *file, void (*change)(json_t *header))
{
	size_t len;
	char *data = read_file(file, &len), *text;
	uint64_t size;
	json_t *header;
	FILE *f;

	memcpy(&size, data, sizeof(size));
	header = json_loadb(data + 8, size, 0, NULL);
	ASSERT_NE(NULL, header);
	change(header);
	text = json_dumps(header, JSON_COMPACT);
	f = fopen(file, "w");
	ASSERT_NE(NULL, f);
	/* blanks to where the data began, or more of them */
	while (strlen(text) > size)
		size += 4096;
	fwrite(&size, sizeof(size), 1, f);
	fprintf(f, "%-*s", (int)size, text);
	memcpy(&size, data, sizeof(size));
	fwrite(data + 8 + size, 1, len - 8 - size, f);
	ASSERT_EQ(0, fclose(f));
	json_decref(header);
	free(text);
	free(data);
}

#define NORM  "model.norm.weight"
#define EMBED "model.embed_tokens.weight"

static json_t *entry(json_t *header, const char *name)
{
	json_t *e = json_object_get(header, name);

	ASSERT_NE(NULL, e);
	return e;
}

static void overlap(json_t *h)
{
	json_object_set(entry(h, "model.layers.0.input_layernorm.weight"), "data_offsets",
			json_object_get(entry(h, NORM), "data_offsets"));
}

static void outside(json_t *h)
{
	json_object_set_new(entry(h, NORM), "data_offsets",
			    json_pack("[II]", 1ll << 40, (1ll << 40) + 128));
}

static void backwards(json_t *h)
{
	json_object_set_new(entry(h, NORM), "data_offsets", json_pack("[ii]", 128, 0));
}

static void negative(json_t *h)
{
	json_object_set_new(entry(h, NORM), "data_offsets", json_pack("[ii]", -128, 0));
}

static void wrong_dtype(json_t *h)
{
	json_object_set_new(entry(h, NORM), "dtype", json_string("F16"));
}

static void no_dtype(json_t *h)
{
	json_object_set_new(entry(h, NORM), "dtype", json_string("F33"));
}

static void wrong_shape(json_t *h)
{
	json_object_set_new(entry(h, NORM), "shape", json_pack("[ii]", 4, 8));
}

static void huge_shape(json_t *h)
{
	json_object_set_new(entry(h, NORM), "shape",
			    json_pack("[III]", 1ll << 40, 1ll << 40, 1ll << 40));
}

static void swapped_shape(json_t *h)
{
	json_object_set_new(entry(h, EMBED), "shape", json_pack("[ii]", 32, 256));
}

static void gone(json_t *h)
{
	json_object_del(h, NORM);
}

static void renamed(json_t *h)
{
	json_object_set(h, "model.norm.wait", entry(h, NORM));
	json_object_del(h, NORM);
}

TEST_F(ckpt, lying_headers)
{
	static const struct {
		void (*change)(json_t *h);
		const char *text;
	} lie[] = {
		{overlap, "model.safetensors"},
		{outside, NORM},
		{backwards, NORM},
		{negative, NORM},
		{wrong_dtype, NORM},
		{no_dtype, NORM},
		{wrong_shape, NORM},
		{huge_shape, NORM},
		{swapped_shape, EMBED},
		{gone, "model."},
		{renamed, "model."},
	};

	mark();
	for (size_t i = 0; i < sizeof(lie) / sizeof(*lie); i++) {
		fresh("one");
		rewrite_header(in_tmp("work/model.safetensors"), lie[i].change);
		expect_refused(ALL, lie[i].text);
	}
}

static void write_header(const char *json, uint64_t size)
{
	FILE *f = fopen(in_tmp("work/model.safetensors"), "w");

	ASSERT_NE(NULL, f);
	fwrite(&size, sizeof(size), 1, f);
	fputs(json, f);
	ASSERT_EQ(0, fclose(f));
	expect_refused(ALL, "model.safetensors");
}

TEST_F(ckpt, headers_that_are_none)
{
	static const char twice[] =
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
		"\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}";

	mark();
	fresh("one");
	write_header("{}", 1ull << 62);
	write_header("{}", UINT64_MAX);
	write_header("not json at all", 15);
	write_header("[1,2]", 5);
	write_header("{\"a\":7}", 7);
	write_header(twice, sizeof(twice) - 1);
}

/* A number at a place of its own, in the middle of a tensor. */
static void plant(const char *file, float value, int who)
{
	size_t len;
	FILE *f;

	fresh("one");
	free(read_file(in_tmp("work/%s", file), &len));
	f = fopen(in_tmp("work/%s", file), "r+");
	ASSERT_NE(NULL, f);
	ASSERT_EQ(0, fseek(f, (long)(len / 2 / 4096 * 4096), SEEK_SET));
	ASSERT_EQ((size_t)1, fwrite(&value, sizeof(value), 1, f));
	ASSERT_EQ(0, fclose(f));
	expect_refused(who, "NaN or infinity");
}

TEST_F(ckpt, numbers_that_are_none)
{
	mark();
	plant("model.safetensors", NAN, ALL);
	plant("model.safetensors", INFINITY, ALL);
	plant("optimizer.safetensors", -INFINITY, RESUME);
}

static void index_is(const char *text, const char *says)
{
	fresh("two");
	write_file(in_tmp("work/model.safetensors.index.json"), text, strlen(text));
	expect_refused(ALL, says);
}

TEST_F(ckpt, broken_index)
{
	mark();
	index_is("", "index.json");
	index_is("{", "index.json");
	index_is("[]", "index.json");
	index_is("{\"weight_map\": 7}", "index.json");
	index_is("{\"weight_map\": {\"" NORM "\": 7}}", "index.json");
	index_is("{\"weight_map\": {\"" NORM "\": \"../one/" STEP "/model.safetensors\"}}",
		 "../one");
	index_is("{\"weight_map\": {\"" NORM "\": \"/etc/passwd\"}}", "/etc/passwd");
	index_is("{\"weight_map\": {}}", "");
	index_is("{\"weight_map\": {\"" NORM "\": \"none.safetensors\"}}", "none.safetensors");
}

static void state_is(const char *key, json_t *value, const char *says)
{
	json_t *root;

	fresh("one");
	root = json_load_file(in_tmp("work/trainer.json"), 0, NULL);
	ASSERT_NE(NULL, root);
	if (value)
		json_object_set_new(root, key, value);
	else
		json_object_del(root, key);
	ASSERT_EQ(0, json_dump_file(root, in_tmp("work/trainer.json"), 0));
	json_decref(root);
	expect_refused(RESUME, says);
}

TEST_F(ckpt, broken_state)
{
	mark();
	state_is("step", NULL, "step");
	state_is("step", json_integer(-1), "step");
	state_is("seed", json_integer(1), "seed");
	state_is("seed", json_string("1"), "seed");
	state_is("loss_digest", json_string("zzzzzzzzzzzzzzzz"), "loss_digest");
	state_is("lr", json_string("fast"), "lr");
	state_is("lr", json_real(-1), "lr");
	state_is("beta1", json_real(1.5), "beta1");
	state_is("batch", json_integer(0), "batch");
	state_is("batch", json_integer(4000000000), "batch");
	state_is("seq", json_integer(0), "seq");
	state_is("seq", json_integer(100000), "");
	state_is("horizon", json_integer(0), "horizon");
	state_is("format", json_integer(2), "format");
}

TEST_MAIN
