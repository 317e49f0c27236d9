/* SPDX-License-Identifier: Apache-2.0 */
/* One safetensors file: what must be accepted, and every way to be refused. */
#include "runtime/io/safetensors.h"
#include "selftests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/resource.h>

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	return path;
}

static int parse_len(const char *json, size_t len, uint64_t data_bytes, size_t *count,
		     struct pst_error *err)
{
	struct pst_tensor_info *tensors = NULL;
	int rc = pst_safetensors_parse(json, len, data_bytes, &tensors, count, err);

	if (rc < 0)
		EXPECT_EQ(NULL, tensors);
	pst_safetensors_free(tensors, rc < 0 ? 0 : *count);
	return rc;
}

static void expect_refused(const char *json, uint64_t data_bytes, const char *says)
{
	struct pst_error err = {0};
	size_t count;

	EXPECT_EQ(-EINVAL, parse_len(json, strlen(json), data_bytes, &count, &err));
	if (!strstr(err.text, says))
		test_say(__FILE__, __LINE__, "%s: \"%s\" lacks \"%s\"", json, err.text, says);
	EXPECT_TRUE(strstr(err.text, says));
}

static void expect_taken(const char *json, uint64_t data_bytes, size_t count)
{
	struct pst_error err = {0};
	size_t got = SIZE_MAX;

	EXPECT_EQ(0, parse_len(json, strlen(json), data_bytes, &got, &err));
	EXPECT_EQ(count, got);
	EXPECT_STREQ("", err.text);
}

#define T(name, dtype, shape, begin, end)                                                     \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin \
	"," #end "]}"

TEST(taken)
{
	expect_taken("{}", 0, 0);
	expect_taken("{}    ", 0, 0);
	expect_taken("{" T("a", "F32", "[]", 0, 4) "}", 4, 1);
	expect_taken("{" T("a", "F32", "[0]", 0, 0) "}", 0, 1);
	expect_taken("{" T("a", "U8", "[3,0,7]", 0, 0) "," T("b", "U8", "[2]", 0,
							     2) "," T("c", "I64", "[0]", 2, 2) "}",
		     2, 3);
	expect_taken("{\"__metadata__\":{\"format\":\"pt\"}," T("a", "BOOL", "[1]", 0, 1) "}", 1,
		     1);
	expect_taken("{" T("b", "BF16", "[1,2]", 2, 6) "," T("a", "F16", "[1]", 0, 2) "}", 6, 2);
	expect_taken("{" T("", "U8", "[1]", 0, 1) "}", 1, 1);
	expect_taken("{\"\xc3\xa4\\u00e4\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],"
		     "\"data_offsets\":[0,1],\"later\":true}}",
		     1, 1);
}

TEST(not_json)
{
	expect_refused("", 0, "start with {");
	expect_refused(" {}", 0, "start with {");
	expect_refused("[]", 0, "start with {");
	expect_refused("{", 0, "not valid JSON");
	expect_refused("{}x", 0, "not valid JSON");
	expect_refused("{}{}", 0, "not valid JSON");
	expect_refused("{\"a\xff\":1}", 0, "not valid JSON");
	expect_refused("{\"a\xc0\x80\":1}", 0, "not valid JSON");
	expect_refused("{\"a\xed\xa0\x80\":1}", 0, "not valid JSON");
	expect_refused("{\"a\\u0000\":1}", 0, "not valid JSON");
	expect_refused("{\"a\":NaN}", 0, "not valid JSON");
}

TEST(nul_in_header)
{
	struct pst_error err = {0};
	size_t count;

	EXPECT_EQ(-EINVAL, parse_len("{}\0", 3, 0, &count, &err));
	EXPECT_EQ(-EINVAL, parse_len("{\0}", 3, 0, &count, &err));
}

TEST(deep_nesting)
{
	size_t len = 1 << 20, count;
	char *json = malloc(len);
	struct pst_error err = {0};

	memset(json, '[', len);
	memcpy(json, "{\"a\":", 5);
	EXPECT_EQ(-EINVAL, parse_len(json, len, 0, &count, &err));
	EXPECT_TRUE(strstr(err.text, "depth"));
	free(json);
}

TEST(entries)
{
	expect_refused("{\"a\":1}", 0, "tensor a is not a JSON object");
	expect_refused("{\"a\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, "no dtype");
	expect_refused("{\"a\":{\"dtype\":3,\"shape\":[],\"data_offsets\":[0,1]}}", 1, "no dtype");
	expect_refused("{" T("a", "F99", "[]", 0, 1) "}", 1, "F99");
	expect_refused("{" T("a", "u8", "[]", 0, 1) "}", 1, "not known");
	expect_refused("{" T("a", "U8 ", "[]", 0, 1) "}", 1, "not known");
	expect_refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "no shape");
	expect_refused("{" T("a", "U8", "{}", 0, 1) "}", 1, "no shape");
	expect_refused("{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, "9 dimensions");
	expect_refused("{" T("a", "U8", "[-1]", 0, 1) "}", 1, "dimension 0");
	expect_refused("{" T("a", "U8", "[1,1.0]", 0, 1) "}", 1, "dimension 1");
	expect_refused("{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, "dimension 0");
	expect_refused("{" T("a", "U8", "[null]", 0, 1) "}", 1, "dimension 0");
	expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 1, "data_offsets");
	expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0]}}", 1, "two");
	expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,2]}}", 1,
		       "two");
	expect_refused("{" T("a", "U8", "[]", -1, 0) "}", 1, "two whole numbers");
	expect_refused("{" T("a", "U8", "[]", 0.0, 1) "}", 1, "two whole numbers");
	expect_refused("{" T("a", "U8", "[]", 0, 1e0) "}", 1, "two whole numbers");
	expect_refused("{" T("a", "U8", "[]", 0, true) "}", 1, "two whole numbers");
}

TEST(metadata)
{
	expect_refused("{\"__metadata__\":[]}", 0, "__metadata__ is not");
	expect_refused("{\"__metadata__\":{\"a\":1}}", 0, "a is not a string");
	expect_refused("{\"__metadata__\":{\"a\":{}}}", 0, "a is not a string");
}

TEST(cover)
{
	/* past the end, backwards, too long, too short */
	expect_refused("{" T("a", "U8", "[2]", 0, 2) "}", 1, "outside");
	expect_refused("{" T("a", "U8", "[1]", 1, 0) "}", 1, "outside");
	expect_refused("{" T("a", "U8", "[2]", 0, 1) "}", 1, "needs 2 bytes");
	expect_refused("{" T("a", "F32", "[]", 0, 5) "}", 5, "needs 4 bytes");
	expect_refused("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3,
		       "overlap");
	expect_refused("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 0, 2) "}", 2,
		       "overlap");
	expect_refused("{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[0]", 1, 1) "}", 2,
		       "overlap");
	expect_refused("{" T("a", "U8", "[1]", 1, 2) "}", 2, "1 bytes before tensor a");
	expect_refused("{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3,
		       "before tensor b");
	expect_refused("{" T("a", "U8", "[1]", 0, 1) "}", 3, "last 2 bytes");
	expect_refused("{}", 1, "last 1 bytes");
	expect_refused("{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2,
		       "duplicate");
}

TEST(overflow)
{
	expect_refused("{" T("a", "F64", "[2305843009213693952]", 0, 0) "}", 0, "too large");
	expect_refused("{" T("a", "U8", "[4294967296,4294967296]", 0, 0) "}", 0, "too large");
	expect_refused("{" T("a", "U8", "[3037000500,3037000500,4]", 0, 0) "}", 0, "too large");
	expect_refused("{" T("a", "U8", "[9223372036854775808]", 0, 0) "}", 0, "too big");
	expect_refused("{" T("a", "U8", "[1]", 0, 18446744073709551617) "}", 1, "too big");
	expect_refused("{" T("a", "U8", "[1]", 0, 9223372036854775807) "}", 1, "outside");
	expect_refused("{}", UINT64_MAX, "too large");
}

/* What is in a file must not reach the terminal as it is. */
TEST(names_are_cleaned)
{
	struct pst_error err = {0};
	const char *json = "{\"\\u001b[31m\\n\\u009b\":1}";
	size_t count;

	EXPECT_EQ(-EINVAL, parse_len(json, strlen(json), 0, &count, &err));
	EXPECT_STREQ("tensor ?[31m??? is not a JSON object", err.text);
}

TEST(locale)
{
	if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "C.UTF-8"))
		SKIP("no other locale", "locale-gen de_DE.UTF-8");
	expect_taken("{" T("a", "U8", "[1000]", 0, 1000) "}", 1000, 1);
	expect_refused("{" T("a", "U8", "[1,5]", 0, 1) "}", 1, "needs 5");
	expect_refused("{" T("a", "U8", "[1.5]", 0, 1) "}", 1, "dimension 0");
}

TEST(dtypes)
{
#define EXPECT_DTYPE(value, name, bytes)                                 \
	EXPECT_EQ(value, (int)PST_##name);                               \
	EXPECT_EQ(value, pst_dtype_parse(#name "?", sizeof(#name) - 1)); \
	EXPECT_STREQ(#name, pst_dtype_name(PST_##name));                 \
	EXPECT_EQ((size_t)bytes, pst_dtype_bytes(PST_##name));
	PST_DTYPES(EXPECT_DTYPE)
	EXPECT_EQ(-EINVAL, pst_dtype_parse("F3", 2));
	EXPECT_EQ(-EINVAL, pst_dtype_parse("", 0));
	EXPECT_EQ(0u, pst_dtype_bytes(0));
	EXPECT_EQ(0u, pst_dtype_bytes(16));
	EXPECT_EQ(NULL, pst_dtype_name(16));
}

static const uint8_t bytes[] = {1, 2, 3, 4, 5};
static const float floats[] = {1.5f, -2, 3, 4, 5, 6};
static const double one = 0.1;

static const struct pst_tensor_source sources[] = {
	{"z.bytes", PST_U8, 1, {5}, bytes},
	{"floats \xc3\xa4 \"\\\n", PST_F32, 2, {2, 3}, floats},
	{"empty", PST_BF16, 3, {4, 0, 2}, NULL},
	{"scalar", PST_F64, 0, {0}, &one},
};
#define NSOURCES (sizeof(sources) / sizeof(sources[0]))

static void expect_tensor(const struct pst_checkpoint *ckpt, const struct pst_tensor_source *s)
{
	const struct pst_tensor_info *t = pst_checkpoint_find(ckpt, s->name);
	char data[64];
	int fd = open(pst_checkpoint_path(ckpt, 0), O_RDONLY);

	ASSERT_NE(NULL, t);
	EXPECT_STREQ(s->name, t->name);
	EXPECT_EQ(s->dtype, t->dtype);
	EXPECT_EQ(s->ndim, t->ndim);
	for (unsigned int i = 0; i < s->ndim; i++)
		EXPECT_EQ(s->shape[i], t->shape[i]);
	EXPECT_EQ(0u, t->file);
	EXPECT_EQ(0u, t->offset % pst_dtype_bytes(t->dtype));
	ASSERT_LE(t->bytes, sizeof(data));
	ASSERT_EQ((ssize_t)t->bytes, pread(fd, data, t->bytes, t->offset));
	EXPECT_EQ(0, t->bytes ? memcmp(data, s->data, t->bytes) : 0);
	close(fd);
}

TEST(round_trip)
{
	struct pst_error err = {0};
	struct pst_checkpoint *ckpt;
	uint64_t first = UINT64_MAX;

	ASSERT_OK(pst_safetensors_write(in_dir("a"), sources, NSOURCES, &err), &err);
	ASSERT_OK(pst_checkpoint_open(in_dir("a"), NULL, &ckpt, &err), &err);
	EXPECT_EQ(1u, pst_checkpoint_files(ckpt));
	EXPECT_STREQ(in_dir("a"), pst_checkpoint_path(ckpt, 0));
	EXPECT_EQ(NULL, pst_checkpoint_path(ckpt, 1));
	ASSERT_EQ(NSOURCES, pst_checkpoint_count(ckpt));
	for (size_t i = 0; i < NSOURCES; i++) {
		expect_tensor(ckpt, &sources[i]);
		if (pst_checkpoint_at(ckpt, i)->offset < first)
			first = pst_checkpoint_at(ckpt, i)->offset;
		if (i)
			EXPECT_LT(strcmp(pst_checkpoint_at(ckpt, i - 1)->name,
					 pst_checkpoint_at(ckpt, i)->name),
				  0);
	}
	EXPECT_EQ(4096u, first);
	EXPECT_EQ(NULL, pst_checkpoint_at(ckpt, NSOURCES));
	EXPECT_EQ(NULL, pst_checkpoint_find(ckpt, "none"));
	pst_checkpoint_close(ckpt);
}

TEST(no_tensors)
{
	struct pst_error err = {0};
	struct pst_checkpoint *ckpt;

	ASSERT_OK(pst_safetensors_write(in_dir("a"), NULL, 0, &err), &err);
	ASSERT_OK(pst_checkpoint_open(in_dir("a"), NULL, &ckpt, &err), &err);
	EXPECT_EQ(0u, pst_checkpoint_count(ckpt));
	EXPECT_EQ(NULL, pst_checkpoint_find(ckpt, "a"));
	EXPECT_EQ(NULL, pst_checkpoint_at(ckpt, 0));
	pst_checkpoint_close(ckpt);
}

/* Many small buffers take more than one call of pwritev. */
TEST(many_tensors)
{
	enum { N = 5000 };
	struct pst_tensor_source *s = calloc(N, sizeof(*s));
	char(*names)[16] = calloc(N, sizeof(*names));
	uint64_t *data = calloc(N, sizeof(*data));
	struct pst_checkpoint *ckpt;
	struct pst_error err = {0};
	int fd;

	for (size_t i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "t%zu", i);
		data[i] = i * 3;
		s[i] = (struct pst_tensor_source){names[i], PST_U64, 1, {1}, &data[i]};
	}
	ASSERT_OK(pst_safetensors_write(in_dir("a"), s, N, &err), &err);
	ASSERT_OK(pst_checkpoint_open(in_dir("a"), NULL, &ckpt, &err), &err);
	fd = open(in_dir("a"), O_RDONLY);
	for (size_t i = 0; i < N; i++) {
		const struct pst_tensor_info *t = pst_checkpoint_find(ckpt, names[i]);
		uint64_t got = 0;

		ASSERT_NE(NULL, t);
		EXPECT_EQ(8, pread(fd, &got, 8, t->offset));
		EXPECT_EQ(data[i], got);
	}
	close(fd);
	pst_checkpoint_close(ckpt);
	free(data);
	free(names);
	free(s);
}

static char *slurp(const char *path, size_t *len)
{
	char *text;

	ASSERT_EQ(0, pst_file_read(path, 1 << 20, &text, len, NULL));
	return text;
}

static void put(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ASSERT_EQ((ssize_t)len, write(fd, data, len));
	close(fd);
}

static int open_code(const char *path, struct pst_error *err)
{
	struct pst_checkpoint *ckpt = NULL;
	int rc;

	memset(err, 0, sizeof(*err));
	rc = pst_checkpoint_open(path, NULL, &ckpt, err);
	if (rc < 0) {
		EXPECT_EQ(NULL, ckpt);
		EXPECT_TRUE(strstr(err->text, path));
	}
	pst_checkpoint_close(ckpt);
	return rc;
}

TEST(cut_at_every_byte)
{
	static const char json[] = "{" T("a", "U8", "[2]", 0, 2) "," T("b", "F32", "[]", 2, 6) "} ";
	char file[8 + sizeof(json) - 1 + 6] = {(char)(sizeof(json) - 1)};
	const char *path = in_dir("a");
	struct pst_error err;

	memcpy(file + 8, json, sizeof(json) - 1);
	put(path, file, sizeof(file));
	EXPECT_EQ(0, open_code(path, &err));
	for (size_t len = 0; len < sizeof(file); len++) {
		put(path, file, len);
		EXPECT_EQ(-EINVAL, open_code(path, &err));
	}
}

TEST(trailing_bytes)
{
	struct pst_error err;
	const char *path = in_dir("a");
	size_t len;
	char *text;

	ASSERT_EQ(0, pst_safetensors_write(path, sources, NSOURCES, NULL));
	text = slurp(path, &len);
	text = realloc(text, len + 1);
	text[len] = 0;
	put(path, text, len + 1);
	EXPECT_EQ(-EINVAL, open_code(path, &err));
	EXPECT_TRUE(strstr(err.text, "last 1 bytes"));
	free(text);
}

TEST(lying_length)
{
	static const uint64_t lies[] = {0,	   1,	      4087,	  4089,		 100000000,
					100000001, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
	const char *path = in_dir("a");
	struct pst_error err;
	size_t len;
	char *text;

	ASSERT_EQ(0, pst_safetensors_write(path, sources, NSOURCES, NULL));
	text = slurp(path, &len);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		memcpy(text, &lies[i], 8);
		put(path, text, len);
		EXPECT_EQ(-EINVAL, open_code(path, &err));
	}
	free(text);
}

/* A header longer than the format allows is not even read. */
TEST(huge_header)
{
	static const uint64_t word = 100000001;
	const char *path = in_dir("a");
	struct pst_error err = {0};
	size_t count;

	put(path, &word, sizeof(word));
	ASSERT_EQ(0, truncate(path, word + 8));
	EXPECT_EQ(-EINVAL, open_code(path, &err));
	EXPECT_TRUE(strstr(err.text, "no safetensors file"));
	memset(&err, 0, sizeof(err));
	EXPECT_EQ(-EINVAL, parse_len("{}", word, 0, &count, &err));
	EXPECT_TRUE(strstr(err.text, "longer than"));
}

TEST(not_a_file)
{
	struct pst_error err;

	EXPECT_EQ(-ENOENT, open_code(in_dir("none"), &err));
	EXPECT_EQ(-EINVAL, open_code("/dev/zero", &err));
	ASSERT_EQ(0, symlink("loop", in_dir("loop")));
	EXPECT_EQ(-EINVAL, open_code(in_dir("loop"), &err));
}

static int write_one(const struct pst_tensor_source s, const char *says)
{
	struct pst_error err = {0};
	int rc = pst_safetensors_write(in_dir("a"), &s, 1, &err);

	EXPECT_TRUE(strstr(err.text, says));
	EXPECT_LT(access(in_dir("a"), F_OK), 0);
	return rc;
}

TEST(write_refused)
{
	const struct pst_tensor_source twice[] = {{"a", PST_U8, 1, {5}, bytes},
						  {"a", PST_U8, 1, {5}, bytes}};
	struct pst_error err = {0};

	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){NULL, PST_U8, 0, {0}, bytes}, "name"));
	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){"__metadata__", PST_U8, 0, {0}, bytes},
			    "name"));
	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){"\xff", PST_U8, 0, {0}, bytes}, "UTF-8"));
	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){"a", 0, 0, {0}, bytes}, "tensor a"));
	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){"a", PST_U8, 9, {1}, bytes}, "tensor a"));
	EXPECT_EQ(-EINVAL, write_one(
				   (struct pst_tensor_source){
					   "a", PST_F64, 2, {1ull << 40, 1ull << 40}, bytes},
				   "tensor a"));
	EXPECT_EQ(-EINVAL,
		  write_one((struct pst_tensor_source){"a", PST_U8, 0, {0}, NULL}, "no data"));
	EXPECT_EQ(-EINVAL, pst_safetensors_write(in_dir("a"), twice, 2, &err));
	EXPECT_TRUE(strstr(err.text, "two tensors"));
	EXPECT_EQ(-EINVAL, pst_safetensors_write(NULL, twice, 1, NULL));
	EXPECT_EQ(-EINVAL, pst_safetensors_write(in_dir("a"), NULL, 1, NULL));
}

static unsigned int files_in(const char *dir)
{
	struct dirent *e;
	unsigned int n = 0;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	if (d)
		closedir(d);
	return n;
}

TEST(no_room)
{
	const struct rlimit limit = {.rlim_cur = 65536, .rlim_max = 65536};
	struct pst_tensor_source s = {"a", PST_U8, 1, {1 << 20}, calloc(1, 1 << 20)};
	struct pst_error err = {0};

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_EQ(-EFBIG, pst_safetensors_write(in_dir("a"), &s, 1, &err));
	EXPECT_TRUE(strstr(err.text, in_dir("a")));
	EXPECT_EQ(0u, files_in(test_tmpdir()));
	free((void *)s.data);
}

TEST_MAIN
