/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe.h - experts behind real servers and workers, held against pst_mlp_* in the test itself.
 *
 * Workers are threads, or processes of this test (then the test stays without threads of
 * its own, so that it may fork at any time).
 */
#ifndef PST_SELFTEST_MOE_H
#define PST_SELFTEST_MOE_H

#include "runtime/device/mlp.h"
#include "runtime/moe/engine.h"
#include "runtime/moe/worker.h"
#include "selftests/store/engine.h"

enum { GATE, UP, DOWN, MATRICES };

#define MAX_WORKERS 4
#define LAYERS	    3
#define DENSE	    1 /* layer 0 has no experts */
#define TOPK	    2

struct shape {
	uint32_t experts, hidden, inter, tokens;
};

struct workers {
	unsigned int n, born, replaced;
	bool processes, refuse; /* refuse: no replacement can be had */
	bool kept;		/* by others, who need time: they say so many times: not yet */
	unsigned int later;
	pid_t pid[MAX_WORKERS];
	struct pst_worker *worker[MAX_WORKERS];
	pthread_t thread[MAX_WORKERS];
	char url[MAX_WORKERS][PST_WIRE_URL];
};

struct rig {
	struct shape s;
	struct servers servers;
	struct workers workers;
	struct pst_fabric *fabric;
	struct pst_device *device;
	struct pst_client *client;
	struct pst_moe *moe;
	struct pst_wire_tensor *tensor;
	uint32_t *unit;
	uint8_t *all, *none, *has;
	const float **weight;
	float **grad;
	size_t count;
	uint64_t version, seed;
	struct pst_error err;
};

/* Workers */

static const char *server_urls[MAX_SERVERS + 1];

/* Where a server of the rig listens, or over shm any: workers are called otherwise. */
static inline bool is_server(const struct sockaddr_storage *a, socklen_t len)
{
	const struct sockaddr_in *in = (const void *)a;
	char port[16];

	if (a->ss_family == AF_UNIX)
		return memmem(a, len, "store-", 6);
	snprintf(port, sizeof(port), ":%u", ntohs(in->sin_port));
	for (int i = 0; server_urls[i] && a->ss_family == AF_INET; i++)
		if (strstr(server_urls[i], port))
			return true;
	return false;
}

static uint64_t worker_copy_bytes; /* their budget, 0: as much as they like */
static int connect_ms;		   /* for one to appear, 0: as ever */
static int (*replace_with)(void *ctx, unsigned int i, char url[PST_WIRE_URL],
			   struct pst_error *err); /* NULL: worker_replace */

static inline void *work_thread(void *worker)
{
	EXPECT_EQ(0, pst_worker_serve(worker, NULL));
	return NULL;
}

/* In a worker's process: all its connections to others, but not those of others to it, are cut. */
static inline void cut_ways(int sig)
{
	(void)sig;
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a);

		if (!getpeername(fd, (struct sockaddr *)&a, &len) && is_server(&a, len))
			shutdown(fd, SHUT_RDWR);
	}
}

static inline struct pst_worker *make_worker(const char *url)
{
	struct pst_worker_config c = {.size = sizeof(c),
				      .url = url,
				      .threads = 1,
				      .node = -1,
				      .copy_bytes = worker_copy_bytes};
	struct pst_error err = {0};
	struct pst_worker *worker;

	ASSERT_OK(pst_worker_create(&c, &worker, &err), &err);
	return worker;
}

static inline void worker_start(struct workers *w, unsigned int i)
{
	make_url(w->url[i], "moe", w->born++);
	if (w->processes) {
		w->pid[i] = fork();
		ASSERT_LE(0, w->pid[i]);
		if (!w->pid[i] && signal(SIGUSR1, cut_ways) != SIG_ERR &&
		    !prctl(PR_SET_PDEATHSIG, SIGKILL))
			_exit(work_thread(make_worker(w->url[i])) != NULL);
		return;
	}
	w->worker[i] = make_worker(w->url[i]);
	ASSERT_EQ(0, pthread_create(&w->thread[i], NULL, work_thread, w->worker[i]));
}

static inline void worker_stop(struct workers *w, unsigned int i)
{
	if (w->processes) {
		kill(w->pid[i], SIGKILL);
		ASSERT_EQ(w->pid[i], waitpid(w->pid[i], NULL, 0));
		return;
	}
	if (!w->worker[i])
		return;
	pst_worker_stop(w->worker[i]);
	pthread_join(w->thread[i], NULL);
	pst_worker_destroy(w->worker[i]);
	w->worker[i] = NULL;
}

/* It ends by itself. */
static inline void worker_await(struct workers *w, unsigned int i)
{
	pthread_join(w->thread[i], NULL);
	pst_worker_destroy(w->worker[i]);
	w->worker[i] = NULL;
}

#if defined(__SANITIZE_THREAD__)
#define FORKS_WITH_THREADS false
#elif defined(__has_feature)
#define FORKS_WITH_THREADS (!__has_feature(thread_sanitizer))
#else
#define FORKS_WITH_THREADS true
#endif

static inline int worker_replace(void *ctx, unsigned int i, char url[PST_WIRE_URL],
				 struct pst_error *err)
{
	struct workers *w = ctx;

	if (w->refuse) {
		err->code = -ENOEXEC;
		snprintf(err->text, sizeof(err->text), "no worker %u today", i);
		return err->code;
	}
	if (w->later && w->later--)
		return -EAGAIN;
	/* over tcp this process has threads of its fabric */
	if (w->processes && is_tcp() && !FORKS_WITH_THREADS)
		SKIP("the thread sanitizer follows no fork of a process with threads", "make SAN=");
	worker_stop(w, i);
	worker_start(w, i);
	w->replaced++;
	memcpy(url, w->url[i], PST_WIRE_URL);
	return w->kept ? STORE_TIMEOUT_MS : 0;
}

static inline void worker_kill(struct workers *w, unsigned int i)
{
	ASSERT_TRUE(w->processes);
	kill(w->pid[i], SIGKILL);
}

/* The table: all experts of all layers */

static inline size_t matrix_of(const struct rig *r, uint32_t layer, uint32_t e, int m)
{
	return ((layer - DENSE) * (size_t)r->s.experts + e) * MATRICES + (size_t)m;
}

static inline void make_experts(struct rig *r)
{
	static const char *const part[MATRICES] = {"gate_proj", "up_proj", "down_proj"};
	char name[PST_WIRE_NAME];

	r->count = (size_t)(LAYERS - DENSE) * r->s.experts * MATRICES;
	r->tensor = calloc(r->count, sizeof(*r->tensor));
	r->unit = calloc(r->count, sizeof(*r->unit));
	r->all = malloc(r->count);
	r->none = calloc(r->count, 1);
	r->has = calloc(r->count, 1);
	r->weight = calloc(r->count, sizeof(*r->weight));
	r->grad = calloc(r->count, sizeof(*r->grad));
	memset(r->all, 1, r->count);
	for (size_t i = 0; i < r->count; i++) {
		uint32_t e = (uint32_t)(i / MATRICES);
		bool down = i % MATRICES == DOWN;

		snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.%s.weight",
			 DENSE + e / r->s.experts, e % r->s.experts, part[i % MATRICES]);
		r->tensor[i] =
			tensor(name, down ? r->s.hidden : r->s.inter,
			       down ? r->s.inter : r->s.hidden, PST_INIT_NORMAL, PST_TENSOR_DECAY);
		r->tensor[i].init_std = 0.2;
		r->unit[i] = e;
	}
}

static inline void open_client(struct rig *r)
{
	struct pst_client_options o = {
		.size = sizeof(o),
		.fabric = r->fabric,
		.urls = r->servers.urls,
		.servers = r->servers.n,
		.timeout_ms = STORE_TIMEOUT_MS,
		.tensors = r->tensor,
		.unit = r->unit,
		.count = r->count,
	};

	ASSERT_OK(pst_client_open(&o, &r->client, &r->err), &r->err);
	ASSERT_OK(pst_client_init(r->client, 17, &r->err), &r->err);
	ASSERT_OK(pst_client_train(r->client, &r->err), &r->err);
}

static inline int reach_servers(void *client, struct pst_error *err)
{
	return pst_client_check(client, err);
}

static inline void open_moe(struct rig *r, int timeout_ms)
{
	struct pst_wire_server server[MAX_SERVERS];
	struct pst_moe_options o = {
		.size = sizeof(o),
		.fabric = r->fabric,
		.device = r->device,
		.workers = r->workers.n,
		.servers = server,
		.nservers = r->servers.n,
		.hidden = r->s.hidden,
		.inter = r->s.inter,
		.experts = r->s.experts,
		.topk = TOPK,
		.layers = LAYERS,
		.dense_layers = DENSE,
		.max_tokens = r->s.tokens,
		.train = 1,
		.node = -1,
		.timeout_ms = timeout_ms,
		.connect_ms = connect_ms,
		.replace = replace_with ? replace_with : worker_replace,
		.ctx = &r->workers,
		.reach = reach_servers,
		.reach_ctx = r->client,
	};

	for (unsigned int i = 0; i < r->servers.n; i++)
		pst_client_describe(r->client, i, &server[i]);
	ASSERT_OK(pst_moe_create(&o, &r->moe, &r->err), &r->err);
	for (unsigned int i = 0; i < r->workers.n; i++)
		ASSERT_OK(pst_moe_connect(r->moe, i, r->workers.url[i], &r->err), &r->err);
}

static inline void rig_open(struct rig *r, struct shape s, unsigned int servers,
			    unsigned int workers, bool processes, int timeout_ms)
{
	*r = (struct rig){.s = s, .workers = {.n = workers, .processes = processes}};
	servers_start(&r->servers, servers, processes);
	for (unsigned int i = 0; i < servers; i++)
		server_urls[i] = r->servers.url[i];
	for (unsigned int i = 0; i < workers; i++)
		worker_start(&r->workers, i);
	r->device = open_device(1);
	r->fabric = open_fabric();
	make_experts(r);
	open_client(r);
	open_moe(r, timeout_ms);
}

static inline void rig_close(struct rig *r)
{
	pst_moe_destroy(r->moe);
	pst_client_close(r->client);
	pst_fabric_close(r->fabric);
	pst_device_close(r->device);
	for (unsigned int i = 0; i < r->workers.n; i++)
		worker_stop(&r->workers, i);
	servers_stop(&r->servers);
	free(r->grad);
	free(r->weight);
	free(r->has);
	free(r->none);
	free(r->all);
	free(r->unit);
	free(r->tensor);
}

/* One layer's tokens, and what is to come of them */

struct batch {
	float *x, *dy, *w;	    /* [tokens, hidden], [tokens, hidden], [tokens, k] */
	int32_t *expert, *slot;	    /* [tokens, k] */
	int32_t *token;		    /* [rows] */
	uint32_t *first;	    /* [experts + 1] */
	float *y, *dx, *dw;	    /* of the workers */
	float *ty, *tdx, *tdw;	    /* the truth */
	float *rx, *ry, *rdy, *rdx; /* rows of the truth */
	float **truth;		    /* [experts * MATRICES] gradients */
	struct pst_mlp_job *job;    /* [experts] */
	size_t jobs;
};

/* Who goes where. */
enum spread {
	EVENLY,
	TO_ONE, /* each token to expert 1, and the other to expert 2 */
};

static inline void fill_floats(float *v, size_t n, uint64_t *state)
{
	for (size_t i = 0; i < n; i++)
		v[i] = (float)((double)(test_random(state) >> 40) * 0x1p-23 - 1);
}

static inline void choose_experts(const struct rig *r, struct batch *b, enum spread spread,
				  uint64_t *state)
{
	/* the last expert never has a row */
	uint32_t n = r->s.experts - 1;

	for (uint32_t t = 0; t < r->s.tokens; t++) {
		uint32_t a = (uint32_t)(test_random(state) % n);
		uint32_t c = (uint32_t)(test_random(state) % (n - 1));

		c += c >= a;
		b->expert[t * TOPK] = spread == TO_ONE ? 1 : (int32_t)(a < c ? a : c);
		b->expert[t * TOPK + 1] = spread == TO_ONE ? 2 : (int32_t)(a < c ? c : a);
	}
}

static inline void group_rows(const struct rig *r, struct batch *b)
{
	uint32_t row = 0;

	for (uint32_t e = 0; e < r->s.experts; e++) {
		b->first[e] = row;
		for (uint32_t i = 0; i < r->s.tokens * TOPK; i++)
			if (b->expert[i] == (int32_t)e) {
				b->token[row] = (int32_t)(i / TOPK);
				b->slot[i] = (int32_t)row++;
			}
	}
	b->first[r->s.experts] = row;
}

static inline void batch_make(const struct rig *r, struct batch *b, enum spread spread,
			      uint64_t seed)
{
	size_t n = (size_t)r->s.tokens * r->s.hidden, rows = (size_t)r->s.tokens * TOPK;
	float **const wide[] = {&b->x, &b->dy, &b->y, &b->dx, &b->ty, &b->tdx};
	float **const tall[] = {&b->rx, &b->ry, &b->rdy, &b->rdx};
	float **const thin[] = {&b->w, &b->dw, &b->tdw};

	*b = (struct batch){0};
	for (size_t i = 0; i < sizeof(wide) / sizeof(*wide); i++)
		*wide[i] = calloc(n, sizeof(float));
	for (size_t i = 0; i < sizeof(tall) / sizeof(*tall); i++)
		*tall[i] = calloc(rows * r->s.hidden, sizeof(float));
	for (size_t i = 0; i < sizeof(thin) / sizeof(*thin); i++)
		*thin[i] = calloc(rows, sizeof(float));
	b->expert = calloc(rows, sizeof(*b->expert));
	b->slot = calloc(rows, sizeof(*b->slot));
	b->token = calloc(rows, sizeof(*b->token));
	b->first = calloc(r->s.experts + 1, sizeof(*b->first));
	b->job = calloc(r->s.experts, sizeof(*b->job));
	b->truth = calloc((size_t)r->s.experts * MATRICES, sizeof(*b->truth));
	for (size_t i = 0; i < (size_t)r->s.experts * MATRICES; i++)
		b->truth[i] = calloc((size_t)r->s.hidden * r->s.inter, sizeof(float));
	fill_floats(b->x, n, &seed);
	fill_floats(b->dy, n, &seed);
	fill_floats(b->w, rows, &seed);
	choose_experts(r, b, spread, &seed);
	group_rows(r, b);
}

static inline void batch_free(const struct rig *r, struct batch *b)
{
	float *const all[] = {b->x,  b->dy,  b->y,   b->dx, b->ty, b->tdx, b->rx,
			      b->ry, b->rdy, b->rdx, b->w,  b->dw, b->tdw};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		free(all[i]);
	for (size_t i = 0; i < (size_t)r->s.experts * MATRICES; i++)
		free(b->truth[i]);
	free(b->truth);
	free(b->job);
	free(b->first);
	free(b->token);
	free(b->slot);
	free(b->expert);
}

/* The same by pst_mlp_* alone, from the weights as they are published. */
static inline void compute_truth(struct rig *r, struct batch *b, uint32_t layer)
{
	const struct pst_ops *ops = pst_device_ops(r->device);
	size_t h = r->s.hidden, tokens = r->s.tokens;
	float *scratch;

	ops->gather(b->rx, b->x, b->token, tokens * TOPK, h);
	ops->scatter_scaled(b->rdy, b->dy, b->w, b->slot, tokens, TOPK, h);
	b->jobs = 0;
	for (uint32_t e = 0; e < r->s.experts; e++) {
		size_t at = b->first[e] * h, m = matrix_of(r, layer, e, 0);

		if (b->first[e] == b->first[e + 1])
			continue;
		b->job[b->jobs++] = (struct pst_mlp_job){
			.rows = b->first[e + 1] - b->first[e],
			.hidden = h,
			.inter = r->s.inter,
			.gate = r->weight[m + GATE],
			.up = r->weight[m + UP],
			.down = r->weight[m + DOWN],
			.x = b->rx + at,
			.y = b->ry + at,
			.dy = b->rdy + at,
			.dx = b->rdx + at,
			.dgate = b->truth[e * MATRICES + GATE],
			.dup = b->truth[e * MATRICES + UP],
			.ddown = b->truth[e * MATRICES + DOWN],
		};
	}
	scratch = aligned_alloc(64, (pst_mlp_scratch(b->job, b->jobs, true) +
				     pst_mlp_scratch(b->job, b->jobs, false) + 16) *
					    64);
	pst_mlp_forward(r->device, b->job, b->jobs, scratch);
	pst_mlp_backward(r->device, b->job, b->jobs, scratch);
	free(scratch);
	ops->combine(b->ty, b->ry, b->w, b->slot, tokens, TOPK, h, 1);
	ops->combine(b->tdx, b->rdx, NULL, b->slot, tokens, TOPK, h, 1);
	ops->combine_dw(b->tdw, b->dy, b->ry, b->slot, tokens, TOPK, h);
}

/* Gradients that workers put into the slot of server @p, held against the truth. */
static inline void check_slot(struct rig *r, const struct batch *b, uint32_t layer, unsigned int p)
{
	struct pst_wire_server server;
	struct engine e;

	pst_client_describe(r->client, p, &server);
	engine_connect(&e, server.url);
	engine_join(&e, server.token);
	for (uint32_t x = 0; x < r->s.experts; x++)
		for (int m = 0; m < MATRICES; m++) {
			size_t i = matrix_of(r, layer, x, m);
			long at = pst_view_find(e.view, r->tensor[i].name);

			if (at >= 0 && r->has[i])
				EXPECT_TRUE(same_bits(b->truth[x * MATRICES + (uint32_t)m],
						      engine_gradient(&e, (size_t)at),
						      (size_t)r->s.hidden * r->s.inter));
		}
	engine_close(&e);
}

static inline void check_layer(struct rig *r, const struct batch *b, uint32_t layer)
{
	size_t n = (size_t)r->s.tokens * r->s.hidden;

	EXPECT_TRUE(same_bits(b->ty, b->y, n));
	EXPECT_TRUE(same_bits(b->tdx, b->dx, n));
	EXPECT_TRUE(same_bits(b->tdw, b->dw, (size_t)r->s.tokens * TOPK));
	for (uint32_t e = 0; e < r->s.experts; e++)
		for (int m = 0; m < MATRICES; m++)
			r->has[matrix_of(r, layer, e, m)] = b->first[e] != b->first[e + 1];
	for (unsigned int p = 0; p < r->servers.n; p++)
		check_slot(r, b, layer, p);
}

/* Where a test may do harm: before and after each of the four calls of each layer. */
typedef void harm_fn(struct rig *r, int moment);

static inline void harm_none(struct rig *r, int moment)
{
	(void)r, (void)moment;
}

/* A whole step: forward, backward, commit, apply, each held against the truth. */
static inline void rig_step(struct rig *r, enum spread spread, harm_fn *harm)
{
	struct pst_msg_apply apply = some_apply(0);
	struct batch b[LAYERS];
	int moment = 0;
	double norm;

	ASSERT_OK(pst_client_begin(r->client, r->all, r->weight, r->grad, &r->version, &r->err),
		  &r->err);
	pst_moe_version(r->moe, r->version);
	for (uint32_t l = DENSE; l < LAYERS; l++) {
		batch_make(r, &b[l], spread, ++r->seed);
		harm(r, moment++);
		ASSERT_OK(pst_moe_forward_begin(r->moe, l, r->s.tokens, b[l].x, b[l].expert),
			  pst_moe_error(r->moe));
		harm(r, moment++);
		ASSERT_OK(pst_moe_forward_end(r->moe, l, b[l].w, b[l].y), pst_moe_error(r->moe));
	}
	for (uint32_t l = LAYERS; l-- > DENSE;) {
		harm(r, moment++);
		ASSERT_OK(pst_moe_backward_begin(r->moe, l, b[l].w, b[l].dy),
			  pst_moe_error(r->moe));
		harm(r, moment++);
		ASSERT_OK(pst_moe_backward_end(r->moe, l, b[l].dy, b[l].dx, b[l].dw),
			  pst_moe_error(r->moe));
	}
	for (uint32_t l = DENSE; l < LAYERS; l++) {
		compute_truth(r, &b[l], l);
		check_layer(r, &b[l], l);
		batch_free(r, &b[l]);
	}
	/* every gradient has been announced: the commit does not wait */
	ASSERT_OK(pst_client_commit(r->client, r->none, r->has, &norm, &r->err), &r->err);
	EXPECT_TRUE(norm > 0);
	ASSERT_OK(pst_client_apply(r->client, &apply, &r->err), &r->err);
}

#endif /* PST_SELFTEST_MOE_H */
