/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers never see a torn version: they copy whole snapshots while versions are
 * published as fast as they can be. All elements start equal and get the same
 * gradient, so a copy of one version has one value, whose bits the version decides.
 */
#include "selftests/store/store.h"

#include <stdatomic.h>
#include <sys/mman.h>

#define VERSIONS 600
#define ROWS	 8
#define ELEMENTS 20000

/* What publisher and reader share, also when the reader is a process. */
struct shared {
	_Atomic uint32_t done;
	_Atomic uint64_t copies;
	uint64_t torn, changed, versions, last;
	uint32_t bits[VERSIONS + 1]; /* of each version's value, known before it is published */
};

struct reader {
	const struct pst_snapshot_head *head; /* mapped read-only */
	struct shared *shared;
	uint64_t bytes; /* of data in a buffer */
};

static struct shared *make_shared(void)
{
	void *p = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ASSERT_TRUE(p != MAP_FAILED);
	return p;
}

/* A race by design: what was torn is thrown away. */
__attribute__((no_sanitize("thread"))) static void
copy_words(uint32_t *to, const volatile uint32_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

static bool all_are(const uint32_t *word, size_t n, uint32_t bits)
{
	for (size_t i = 0; i < n; i++)
		if (word[i] != bits)
			return false;
	return true;
}

/* One copy by the protocol of penstock/wire.h. */
static void look(const struct reader *r, uint32_t *copy)
{
	const struct pst_snapshot_head *h = r->head;
	uint64_t version = __atomic_load_n(&h->current, __ATOMIC_ACQUIRE);
	const char *from = (const char *)h + h->buffer[version & 1];
	size_t half = r->bytes / sizeof(*copy) / 2;

	if (__atomic_load_n(&h->held[version & 1], __ATOMIC_ACQUIRE) != version) {
		r->shared->changed++;
		return;
	}
	/* slowly, every other time: so that a step falls into it */
	copy_words(copy, (const uint32_t *)from, half);
	if (r->shared->copies % 2)
		usleep(500);
	copy_words(copy + half, (const uint32_t *)from + half, half);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&h->held[version & 1], __ATOMIC_RELAXED) != version) {
		r->shared->changed++;
		return;
	}
	r->shared->copies++;
	if (version != r->shared->last)
		r->shared->versions++;
	/* versions only rise */
	if (version < r->shared->last ||
	    !all_are(copy, r->bytes / sizeof(*copy), r->shared->bits[version]))
		r->shared->torn++;
	r->shared->last = version;
}

static void *read_on(void *arg)
{
	const struct reader *r = arg;
	uint32_t *copy = malloc(r->bytes);

	do
		look(r, copy);
	while (!atomic_load(&r->shared->done));
	look(r, copy);
	free(copy);
	return NULL;
}

static struct pst_shard *make_shard(struct pst_device *dev)
{
	/* no gaps between tensors: 20000 floats are a multiple of 64 bytes */
	struct pst_wire_tensor t[ROWS];
	struct pst_shard_options o = {.size = sizeof(o),
				      .tensors = t,
				      .count = ROWS,
				      .shards = 1,
				      .device = dev,
				      .node = -1};
	struct pst_error err = {0};
	struct pst_shard *s;
	char name[16];

	for (uint32_t i = 0; i < ROWS; i++) {
		snprintf(name, sizeof(name), "row.%u", i);
		t[i] = tensor(name, ELEMENTS, 0, PST_INIT_ONE, PST_TENSOR_DECAY);
		t[i].order = i;
	}
	ASSERT_OK(pst_shard_create(&o, &s, &err), &err);
	return s;
}

static const void *map_readonly(struct pst_shard *s)
{
	struct pst_pool *pool = pst_shard_snapshot(s);
	void *p = mmap(NULL, pst_pool_bytes(pool), PROT_READ, MAP_SHARED, pst_pool_fd(pool), 0);

	ASSERT_TRUE(p != MAP_FAILED);
	return p;
}

/* What every version's value will be, from the same steps on a shard of one thread's own. */
static void foresee(struct shared *shared, const float *grads, uint8_t mask[ROWS])
{
	struct pst_device *dev = open_device(1);
	struct pst_shard *s = make_shard(dev);
	const struct pst_snapshot_head *h = pst_pool_base(pst_shard_snapshot(s));
	struct pst_error err = {0};

	ASSERT_OK(pst_shard_init(s, 1, &err), &err);
	for (uint64_t v = 0; v <= VERSIONS; v++) {
		struct pst_msg_apply a = some_apply(v);

		memcpy(&shared->bits[v], (const char *)h + h->buffer[v & 1], sizeof(uint32_t));
		EXPECT_TRUE(!v || shared->bits[v] != shared->bits[v - 1]);
		if (v < VERSIONS)
			ASSERT_EQ(0, pst_shard_apply(s, mask, grads, &a));
	}
	pst_shard_destroy(s);
	pst_device_close(dev);
}

static void publish(struct pst_shard *s, struct shared *shared, const float *grads,
		    const uint8_t mask[ROWS])
{
	for (uint64_t v = 0; v < VERSIONS; v++) {
		struct pst_msg_apply a = some_apply(v);
		uint64_t seen = atomic_load(&shared->copies);

		/* now and then the reader has time for a whole copy */
		while (v % 60 == 0 && atomic_load(&shared->copies) == seen)
			usleep(100);
		ASSERT_EQ(0, pst_shard_apply(s, mask, grads, &a));
		/* a step of a model takes longer than a reader's look; here now and then */
		if (v % 8 == 0)
			usleep(200);
	}
	atomic_store(&shared->done, 1);
}

static void run(bool process)
{
	struct pst_device *dev = open_device(1);
	struct pst_shard *s = make_shard(dev);
	struct shared *shared = make_shared();
	struct reader r = {map_readonly(s), shared, ROWS * ELEMENTS * sizeof(float)};
	float *grads = malloc(pst_shard_buffer_bytes(s));
	struct pst_error err = {0};
	uint8_t mask[ROWS];
	pthread_t thread;
	pid_t pid = 0;
	int status;

	memset(mask, 1, sizeof(mask));
	for (size_t i = 0; i < pst_shard_buffer_bytes(s) / sizeof(float); i++)
		grads[i] = 0.5f;
	foresee(shared, grads, mask);
	ASSERT_OK(pst_shard_init(s, 1, &err), &err);
	if (process) {
		pid = fork();
		if (!pid)
			_exit(read_on(&r) != NULL);
	} else {
		ASSERT_EQ(0, pthread_create(&thread, NULL, read_on, &r));
	}
	publish(s, shared, grads, mask);
	if (process) {
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
	} else {
		pthread_join(thread, NULL);
	}
	printf("# %llu copies of %llu versions, %llu changed meanwhile\n",
	       (unsigned long long)shared->copies, (unsigned long long)shared->versions,
	       (unsigned long long)shared->changed);
	EXPECT_EQ(0u, shared->torn);
	/* the last look was at the last version, and it was whole */
	EXPECT_EQ(VERSIONS, (int)shared->last);
	EXPECT_LE(VERSIONS / 60, (int)shared->versions);
	free(grads);
	pst_shard_destroy(s);
	pst_device_close(dev);
}

TEST(a_reading_thread_sees_whole_versions)
{
	run(false);
}

TEST(a_reading_process_sees_whole_versions)
{
	run(true);
}

TEST_MAIN
