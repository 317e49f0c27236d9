/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - a small table of tensors, shards of it, and servers as threads or as processes. */
#ifndef PST_SELFTEST_STORE_H
#define PST_SELFTEST_STORE_H

#include "runtime/io/dtype.h"
#include "runtime/store/client.h"
#include "runtime/store/server.h"
#include "runtime/store/shard.h"
#include "selftests/lib/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>

#define STORE_TIMEOUT_MS 30000
#define MAX_SERVERS	 4

/* How the memory of others is reached in a test. */
static const char *settings = "";

#define MAPPED ""	/* in place */
#define FAR    "?map=0" /* over shm, by reads and writes */
#define TCP    "tcp"

static inline bool is_far(void)
{
	return settings[0];
}

static inline bool is_tcp(void)
{
	return !strncmp(settings, TCP, strlen(TCP));
}

/* A fixture of nothing but its variants: each test in place, and by reads and writes. */
#define FIXTURE_OF_FABRICS(name)                   \
	FIXTURE(name)                              \
	{                                          \
		int unused;                        \
	};                                         \
	FIXTURE_VARIANT(name)                      \
	{                                          \
		const char *settings;              \
	};                                         \
	FIXTURE_VARIANT_ADD(name, mapped){MAPPED}; \
	FIXTURE_VARIANT_ADD(name, far){FAR};       \
	FIXTURE_VARIANT_ADD(name, tcp){TCP};       \
	FIXTURE_SETUP(name)                        \
	{                                          \
		(void)self;                        \
		settings = variant->settings;      \
	}                                          \
	FIXTURE_TEARDOWN(name)                     \
	{                                          \
		(void)self;                        \
	}

/* What all parts of a test that speak over sockets share. */
static inline void use_key(void)
{
	char path[256];
	int fd;

	if (getenv("STORE_TEST_KEY"))
		return;
	snprintf(path, sizeof(path), "%s/key", test_tmpdir());
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(33, (int)write(fd, "0123456789abcdef0123456789abcdef\n", 33));
	close(fd);
	setenv("PENSTOCK_KEY", path, 1);
	setenv("STORE_TEST_KEY", path, 1);
}

/*
 * A port that nobody has, and that the kernel gives to nobody who asks for any: below 32768. Tests
 * that run at once begin to look at different ones.
 */
static inline unsigned int free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	static unsigned int next;

	for (int i = 0; i < 1000; i++) {
		unsigned int port = 16000 + ((unsigned int)getpid() * 61 + next++) % 16000;
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

		a.sin_port = htons((uint16_t)port);
		rc = bind(fd, (struct sockaddr *)&a, sizeof(a));
		close(fd);
		if (!rc)
			return port;
	}
	ASSERT_TRUE(!"a free port");
	return 0;
}

/* Where a server or worker of a test is. */
static inline void make_url(char url[PST_WIRE_URL], const char *kind, unsigned int number)
{
	if (is_tcp()) {
		use_key();
		snprintf(url, PST_WIRE_URL, "tcp://127.0.0.1:%u%s", free_port(),
			 settings + strlen(TCP));
	} else {
		snprintf(url, PST_WIRE_URL, "shm://%s-%d-%u%s", kind, (int)getpid(), number,
			 settings);
	}
}

static inline struct pst_fabric *open_fabric(void)
{
	struct pst_error err = {0};
	struct pst_fabric *fabric;
	char url[64];

	if (is_tcp()) {
		use_key();
		snprintf(url, sizeof(url), "tcp://%s", settings + strlen(TCP));
	} else {
		snprintf(url, sizeof(url), "shm://%s", settings);
	}
	ASSERT_OK(pst_fabric_open(url, &fabric, &err), &err);
	return fabric;
}

/* Is it named in what is said, as it was called without settings? */
static inline bool names_url(const char *text, const char *url)
{
	char name[PST_WIRE_URL];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(url, "?"), url);
	return strstr(text, name);
}

/* A table like a small model's: decay and none, every init, units of three, a load bias. */
enum { EMBED, NORM, E0_GATE, E0_UP, E0_DOWN, BIAS, E1_GATE, E1_UP, E1_DOWN, HEAD, TENSORS };

static inline struct pst_wire_tensor tensor(const char *name, uint64_t rows, uint64_t cols,
					    uint32_t init, uint32_t flags)
{
	struct pst_wire_tensor t = {
		.dtype = PST_F32,
		.ndim = cols ? 2 : 1,
		.shape = {rows, cols},
		.init = init,
		.flags = flags,
		.init_std = 0.02,
	};

	snprintf(t.name, sizeof(t.name), "%s", name);
	return t;
}

#define EXPERT_NAME(e, m) "model.layers.0.mlp.experts." e "." m ".weight"

/* Sizes are odd, one tensor is larger than the pieces (64 Ki elements) that steps are cut in. */
static inline void make_table(struct pst_wire_tensor t[TENSORS], uint32_t unit[TENSORS])
{
	const uint32_t decay = PST_TENSOR_DECAY, normal = PST_INIT_NORMAL;

	t[EMBED] = tensor("model.embed_tokens.weight", 259, 257, normal, decay);
	t[NORM] = tensor("model.norm.weight", 33, 0, PST_INIT_ONE, 0);
	t[E0_GATE] = tensor(EXPERT_NAME("0", "gate_proj"), 24, 40, normal, decay);
	t[E0_UP] = tensor(EXPERT_NAME("0", "up_proj"), 24, 40, normal, decay);
	t[E0_DOWN] = tensor(EXPERT_NAME("0", "down_proj"), 40, 24, normal, decay);
	t[BIAS] = tensor("model.layers.0.mlp.gate.e_score_correction_bias", 7, 0, PST_INIT_ZERO,
			 PST_TENSOR_LOAD);
	t[E1_GATE] = tensor(EXPERT_NAME("1", "gate_proj"), 24, 40, normal, decay);
	t[E1_UP] = tensor(EXPERT_NAME("1", "up_proj"), 24, 40, normal, decay);
	t[E1_DOWN] = tensor(EXPERT_NAME("1", "down_proj"), 40, 24, normal, decay);
	t[HEAD] = tensor("lm_head.weight", 50, 41, normal, 0);
	for (uint32_t i = 0; i < TENSORS; i++) {
		t[i].order = i;
		unit[i] = i > E0_GATE && i <= E0_DOWN	? E0_GATE
			  : i > E1_GATE && i <= E1_DOWN ? E1_GATE
							: i;
	}
}

static inline size_t elements(const struct pst_wire_tensor *t)
{
	size_t n = 1;

	for (uint32_t d = 0; d < t->ndim; d++)
		n *= t->shape[d];
	return n;
}

static inline uint64_t name_hash(const char *name)
{
	uint64_t h = 5381;

	for (; *name; name++)
		h = h * 33 + (unsigned char)*name;
	return h;
}

/* A made-up gradient: depends on nothing but the tensor's name, @step and @salt. */
static inline void make_gradient(const struct pst_wire_tensor *t, uint64_t step, uint64_t salt,
				 float *g)
{
	uint64_t state = name_hash(t->name) + step * 1000003 + salt * 97;

	for (size_t k = 0; k < elements(t); k++)
		g[k] = (float)((double)(test_random(&state) >> 40) * 0x1p-23 - 1);
}

static inline bool same_bits(const float *a, const float *b, size_t n)
{
	return !memcmp(a, b, n * sizeof(*a));
}

static inline struct pst_msg_apply some_apply(uint64_t version)
{
	return (struct pst_msg_apply){
		.version = version,
		.lr = 1e-2,
		.beta1 = 0.9,
		.beta2 = 0.95,
		.eps = 1e-8,
		.weight_decay = 0.1,
		.grad_scale = 1,
		.bias_rate = 1e-3,
	};
}

static inline struct pst_device *open_device(unsigned int threads)
{
	struct pst_error err = {0};
	struct pst_device *dev;

	ASSERT_OK(pst_device_open_cpu(-1, threads, &dev, &err), &err);
	return dev;
}

/* Servers */

struct servers {
	unsigned int n;
	bool processes;
	struct pst_server *server[MAX_SERVERS];
	pthread_t thread[MAX_SERVERS];
	pid_t pid[MAX_SERVERS];
	char url[MAX_SERVERS][PST_WIRE_URL];
	const char *urls[MAX_SERVERS];
};

static inline struct pst_server *make_server(const char *url)
{
	struct pst_server_config c = {.size = sizeof(c), .url = url, .threads = 2, .node = -1};
	struct pst_error err = {0};
	struct pst_server *server;

	ASSERT_OK(pst_server_create(&c, &server, &err), &err);
	return server;
}

static inline void *serve_thread(void *server)
{
	EXPECT_EQ(0, pst_server_serve(server, NULL));
	return NULL;
}

/* Processes are to be started before anything that has threads. */
static inline void servers_start(struct servers *s, unsigned int n, bool processes)
{
	static unsigned int count;

	*s = (struct servers){.n = n, .processes = processes};
	for (unsigned int i = 0; i < n; i++) {
		make_url(s->url[i], "store", count++);
		s->urls[i] = s->url[i];
		if (processes) {
			s->pid[i] = fork();
			ASSERT_LE(0, s->pid[i]);
			if (!s->pid[i] && !prctl(PR_SET_PDEATHSIG, SIGKILL))
				_exit(serve_thread(make_server(s->url[i])) != NULL);
			continue;
		}
		s->server[i] = make_server(s->url[i]);
		ASSERT_EQ(0, pthread_create(&s->thread[i], NULL, serve_thread, s->server[i]));
	}
}

static inline void servers_stop(struct servers *s)
{
	for (unsigned int i = 0; i < s->n; i++) {
		if (s->processes) {
			kill(s->pid[i], SIGKILL);
			waitpid(s->pid[i], NULL, 0);
			continue;
		}
		pst_server_stop(s->server[i]);
		pthread_join(s->thread[i], NULL);
		pst_server_destroy(s->server[i]);
	}
}

/* A client of all of them, with the table made there. */
struct table {
	struct pst_fabric *fabric;
	struct pst_client *client;
	struct pst_wire_tensor tensor[TENSORS];
	uint32_t unit[TENSORS];
	uint8_t all[TENSORS];
	const float *weight[TENSORS];
	float *grad[TENSORS];
	uint64_t version;
	double norm_sq;
};

static inline int table_try(struct table *t, const struct servers *s, struct pst_error *err)
{
	struct pst_client_options o = {
		.size = sizeof(o),
		.fabric = t->fabric,
		.urls = (const char *const *)s->urls,
		.servers = s->n,
		.timeout_ms = STORE_TIMEOUT_MS,
		.tensors = t->tensor,
		.unit = t->unit,
		.count = TENSORS,
	};

	return pst_client_open(&o, &t->client, err);
}

static inline void table_prepare(struct table *t)
{
	memset(t, 0, sizeof(*t));
	make_table(t->tensor, t->unit);
	memset(t->all, 1, sizeof(t->all));
	t->fabric = open_fabric();
}

static inline void table_open(struct table *t, const struct servers *s)
{
	struct pst_error err = {0};

	table_prepare(t);
	ASSERT_OK(table_try(t, s, &err), &err);
}

static inline void table_close(struct table *t)
{
	pst_client_close(t->client);
	pst_fabric_close(t->fabric);
}

static inline void table_init(struct table *t, uint64_t seed)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_client_init(t->client, seed, &err), &err);
	ASSERT_OK(pst_client_train(t->client, &err), &err);
}

static inline void table_begin(struct table *t)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_client_begin(t->client, t->all, t->weight, t->grad, &t->version, &err), &err);
}

/* One step; a tensor whose turn it is has no gradient. */
static inline void table_step(struct table *t, double clip)
{
	struct pst_msg_apply apply = some_apply(0);
	struct pst_error err = {0};
	uint8_t has[TENSORS];

	table_begin(t);
	for (int i = 0; i < TENSORS; i++) {
		has[i] = (t->version + (uint64_t)i) % 5 != 0;
		if (has[i])
			make_gradient(&t->tensor[i], t->version, 0, t->grad[i]);
	}
	ASSERT_OK(pst_client_commit(t->client, t->all, has, &t->norm_sq, &err), &err);
	apply.grad_scale = clip > 0 ? clip : 1;
	ASSERT_OK(pst_client_apply(t->client, &apply, &err), &err);
}

/* The weights as they are now, one behind the other; to be freed. */
static inline float *table_copy(struct table *t, size_t *n)
{
	size_t at = 0;
	float *all;

	table_begin(t);
	for (int i = 0; i < TENSORS; i++)
		at += elements(&t->tensor[i]);
	all = malloc(at * sizeof(*all));
	*n = at;
	at = 0;
	for (int i = 0; i < TENSORS; i++) {
		memcpy(all + at, t->weight[i], elements(&t->tensor[i]) * sizeof(*all));
		at += elements(&t->tensor[i]);
	}
	return all;
}

#endif /* PST_SELFTEST_STORE_H */
