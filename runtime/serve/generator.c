/* SPDX-License-Identifier: Apache-2.0 */
/* generator.c - a checkpoint continues a text: servers and workers are threads, or elsewhere. */
#include "rdma/fail.h"
#include "runtime/host.h"
#include "runtime/io/safetensors.h"
#include "runtime/launch/engine_gpu.h"
#include "runtime/launch/reach.h"
#include "runtime/describe.h"
#include "runtime/model/model.h"
#include "runtime/model/params.h"
#include "runtime/model/table.h"
#include "runtime/serve/sampler.h"
#include "runtime/store/ckptdir.h"
#include "runtime/store/client.h"
#include "runtime/store/state.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORKER_TIMEOUT_MS 60000
#define PROMPT_PIECE	  64 /* tokens that are fed at once */

struct pst_generator {
	struct pst_generate_options o;
	struct pst_config config;
	struct pst_launch *launch;
	struct pst_fabric *fabric;
	struct pst_device *device;
	struct pst_engine_gpu *gpu; /* computes the engine's part; NULL: @device does */
	struct pst_pool *pool;
	struct pst_client *client;
	struct pst_moe *moe;
	struct pst_model *model;
	struct pst_param *param;
	size_t nparams;
	uint8_t *mine;
	const float **weights;
	struct pst_sampler sampler;
	double *scratch;
	const float *logits;	/* behind the last token; NULL: the text has ended */
	unsigned char *context; /* what is in the cache */
	uint32_t fed, room;	/* bytes of it */
};

void pst_generate_defaults(struct pst_generate_options *o)
{
	*o = (struct pst_generate_options){
		.size = sizeof(*o),
		.temperature = 0.8,
		.top_p = 0.95,
		.seed = 1,
		.host = {.node = -1, .huge = 1, .lock = 1},
		.servers = 1,
		.workers = 1,
		.peers = {.connect_timeout_ms = 20000},
	};
}

static int check_options(const struct pst_generate_options *o, struct pst_error *err)
{
	if (!o->servers || o->servers > PST_LAUNCH_MAX || !o->workers ||
	    o->workers > PST_LAUNCH_MAX)
		return pst_fail(err, -EINVAL, "servers %u, workers %u: not between 1 and %d",
				o->servers, o->workers, PST_LAUNCH_MAX);
	if (!o->peers.connect_timeout_ms || o->peers.connect_timeout_ms > 1000000000)
		return pst_fail(err, -EINVAL, "connect-timeout %u: not between 1 and 1e9",
				o->peers.connect_timeout_ms);
	if (!o->checkpoint)
		return pst_fail(err, -EINVAL, "no checkpoint was named");
	if (!isfinite(o->temperature) || o->temperature < 0 || o->temperature > 100)
		return pst_fail(err, -EINVAL, "temperature %g: not between 0 and 100",
				o->temperature);
	if (!(o->top_p > 0 && o->top_p <= 1))
		return pst_fail(err, -EINVAL, "top-p %g: not above 0 and at most 1", o->top_p);
	if (!o->prompt_bytes)
		return pst_fail(err, -EINVAL, "the prompt is empty: one byte at least is needed");
	return 0;
}

/*
 * As many positions as the rows had that it was trained on: beyond them it has
 * learned nothing. A longer prompt is taken whole all the same, if the model has the positions.
 */
static int choose_context(struct pst_generator *g, const char *dir, struct pst_error *err)
{
	uint32_t most = g->config.max_positions;
	struct pst_state state;

	if (g->o.prompt_bytes > most || g->o.context > most)
		return pst_fail(err, -EINVAL, "a %s of %zu bytes: the model has %u positions",
				g->o.context > most ? "context" : "prompt",
				g->o.context > most ? g->o.context : g->o.prompt_bytes, most);
	g->room = g->o.context;
	if (!g->room)
		g->room = pst_state_read(dir, &state, NULL) < 0 ? most : state.seq;
	if (g->room < g->o.prompt_bytes || g->room > most)
		g->room = most;
	g->context = malloc(g->room);
	if (!g->context)
		return pst_fail(err, -ENOMEM, "no memory for a context of %u bytes", g->room);
	return 0;
}

static int read_config(struct pst_generator *g, const char *dir, struct pst_error *err)
{
	char path[PATH_MAX];
	int rc;

	if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path))
		return pst_fail(err, -ENAMETOOLONG, "%s: path too long", dir);
	rc = pst_config_read(path, &g->config, err);
	if (rc < 0)
		return rc;
	if (g->config.vocab != 256)
		return pst_fail(err, -ENOTSUP,
				"%s: a vocabulary of %u needs a tokenizer; only bytes (256) can "
				"be generated",
				dir, g->config.vocab);
	return choose_context(g, dir, err);
}

static int open_table(struct pst_generator *g, const char *dir, struct pst_error *err)
{
	struct pst_client_options co = {
		.size = sizeof(co),
		.fabric = g->fabric,
	};
	struct pst_client_loaded loaded;
	struct pst_wire_tensor *tensor;
	uint64_t version;
	uint32_t *unit;
	int rc = pst_params_list(&g->config, &g->param, &g->nparams);

	if (!rc)
		rc = pst_table_of(&g->config, g->param, g->nparams, &tensor, &unit);
	if (rc < 0)
		return pst_fail(err, rc, "no memory for a table");
	co.tensors = tensor;
	co.unit = unit;
	co.count = g->nparams;
	rc = pst_reach_servers(g->launch, &co, &g->client, err);
	free(unit);
	free(tensor);
	if (!rc)
		rc = pst_client_load(g->client, dir, false, 0, &loaded, err);
	if (rc < 0)
		return rc;
	g->mine = calloc(g->nparams, 1);
	g->weights = calloc(g->nparams, sizeof(*g->weights));
	if (!g->mine || !g->weights)
		return pst_fail(err, -ENOMEM, "no memory for %zu parameters", g->nparams);
	for (size_t i = 0; i < g->nparams; i++)
		g->mine[i] = g->param[i].expert < 0;
	return pst_client_begin(g->client, g->mine, g->weights, NULL, &version, err);
}

static int open_moe(struct pst_generator *g, struct pst_error *err)
{
	struct pst_moe_options mo = {
		.size = sizeof(mo),
		.fabric = g->fabric,
		.device = g->device,
		.hidden = g->config.hidden,
		.inter = g->config.moe_inter,
		.experts = g->config.experts,
		.topk = g->config.topk,
		.layers = g->config.layers,
		.dense_layers = g->config.dense_layers,
		.max_tokens = PROMPT_PIECE,
		.node = g->o.host.node,
		.pool_flags = pst_host_pool_flags(&g->o.host),
		.timeout_ms = WORKER_TIMEOUT_MS,
	};

	return pst_reach_workers(g->launch, g->client, &mo, &g->moe, err);
}

static int open_model(struct pst_generator *g, struct pst_error *err)
{
	struct pst_model_options mo = {
		.size = sizeof(mo),
		.config = &g->config,
		.device = g->device,
		.moe = g->moe,
		.batch = 1,
		.seq = g->room,
		.compute = pst_engine_gpu_compute(g->gpu),
	};
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "activations",
		.bytes = pst_model_bytes(&mo),
		.node = g->o.host.node,
		.flags = pst_host_pool_flags(&g->o.host),
	};
	int rc = pst_pool_create(&po, &g->pool, err);

	if (rc < 0)
		return rc;
	mo.pool = g->pool;
	g->scratch = calloc(2 * (size_t)g->config.vocab, sizeof(*g->scratch));
	if (!g->scratch)
		return pst_fail(err, -ENOMEM, "no memory for a sampler");
	rc = pst_engine_gpu_reach_pool(g->gpu, g->pool, err);
	if (!rc)
		rc = pst_engine_gpu_reach(g->gpu, g->client, err);
	if (!rc)
		rc = pst_model_create(&mo, &g->model, err);
	if (!rc)
		pst_model_version(g->model, 0);
	return rc;
}

static int feed_failed(const struct pst_generator *g, int rc, struct pst_error *err)
{
	const struct pst_error *why = pst_model_error(g->model);

	if (!why->code)
		why = pst_moe_error(g->moe);
	return pst_fail(err, rc, "%s", why->code ? why->text : strerror(-rc));
}

static int feed(struct pst_generator *g, const unsigned char *text, size_t n, struct pst_error *err)
{
	int32_t token[PROMPT_PIECE];

	for (size_t at = 0; at < n;) {
		uint32_t piece = n - at < PROMPT_PIECE ? (uint32_t)(n - at) : PROMPT_PIECE;
		int rc;

		for (uint32_t i = 0; i < piece; i++)
			token[i] = text[at + i];
		rc = pst_model_feed(g->model, g->weights, token, piece, &g->logits);
		if (rc < 0)
			return feed_failed(g, rc, err);
		memcpy(g->context + g->fed, text + at, piece);
		at += piece;
		g->fed += piece;
	}
	return 0;
}

static int start_parts(struct pst_generator *g, struct pst_error *err)
{
	const struct pst_peer_options *p = &g->o.peers;
	struct pst_launch_options lo = {
		.size = sizeof(lo),
		.servers = g->o.servers,
		.workers = g->o.workers,
		.server_at = p->server_at,
		.worker_at = p->worker_at,
		.nserver_at = (unsigned int)p->nserver_at,
		.nworker_at = (unsigned int)p->nworker_at,
		.daemon = p->daemon,
		.fabric = g->o.fabric,
		.key = p->key,
		.listen_host = p->listen_host,
		.connect_ms = (int)p->connect_timeout_ms,
		.embedded = true,
		.node = g->o.host.node,
		.device = g->o.host.device,
		.pool_flags = pst_host_pool_flags(&g->o.host),
	};
	char url[PST_URL_MAX];
	int rc = pst_launch_create(&lo, &g->launch, err);

	if (rc < 0)
		return rc;
	pst_launch_fabric(g->launch, url);
	rc = pst_fabric_open(url, &g->fabric, err);
	if (!rc)
		rc = pst_engine_gpu_open(pst_launch_device(g->launch), &g->gpu, err);
	return rc < 0 ? rc : pst_launch_start(g->launch, err);
}

static int open_all(struct pst_generator *g, struct pst_error *err)
{
	char dir[PATH_MAX];
	int rc = pst_ckptdir_find(g->o.checkpoint, dir, err);

	if (!rc)
		rc = read_config(g, dir, err);
	if (!rc)
		rc = start_parts(g, err);
	if (!rc)
		rc = pst_device_open_cpu(g->o.host.node, g->o.host.threads, &g->device, err);
	if (!rc)
		rc = open_table(g, dir, err);
	if (!rc)
		rc = open_moe(g, err);
	if (!rc)
		rc = open_model(g, err);
	return rc < 0 ? rc : feed(g, (const void *)g->o.prompt, g->o.prompt_bytes, err);
}

int pst_generator_open(const struct pst_generate_options *opts, struct pst_generator **out,
		       struct pst_error *err)
{
	struct pst_generator *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return pst_fail(err, -ENOMEM, "no memory for a generator");
	pst_generate_defaults(&g->o);
	rc = pst_host_take_options(&g->o, sizeof(g->o), opts, opts->size, err);
	if (!rc)
		rc = check_options(&g->o, err);
	if (!rc)
		rc = open_all(g, err);
	g->o.checkpoint = g->o.prompt = g->o.fabric = NULL; /* the caller's again */
	g->o.peers = (struct pst_peer_options){0};
	g->sampler = (struct pst_sampler){g->o.temperature, g->o.top_p, g->o.seed, 0};
	if (rc < 0) {
		pst_generator_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

void pst_generator_close(struct pst_generator *g)
{
	if (!g)
		return;
	if (g->model)
		pst_model_destroy(g->model);
	pst_engine_gpu_close(g->gpu, &g->pool, &g->client, &g->fabric);
	pst_moe_destroy(g->moe);
	pst_client_close(g->client);
	pst_pool_destroy(g->pool);
	if (g->fabric)
		pst_fabric_close(g->fabric);
	pst_launch_stop(g->launch);
	if (g->device)
		pst_device_close(g->device);
	free(g->context);
	free(g->scratch);
	free(g->weights);
	free(g->mine);
	free(g->param);
	free(g);
}

/* Keep the younger half of a full context. */
static int make_room(struct pst_generator *g, struct pst_error *err)
{
	uint32_t half = g->room / 2;
	unsigned char *younger;
	int rc;

	if (g->fed < g->room)
		return 0;
	younger = malloc(half + 1);
	if (!younger)
		return pst_fail(err, -ENOMEM, "no memory for a context of %u bytes", half);
	memcpy(younger, g->context + g->fed - half, half);
	pst_model_forget(g->model);
	g->fed = 0;
	rc = feed(g, younger, half, err);
	free(younger);
	return rc;
}

int pst_generator_next(struct pst_generator *g, unsigned char *byte, struct pst_error *err)
{
	unsigned char next;
	uint32_t token;
	int rc;

	if (!g->logits)
		return 0;
	token = pst_sampler_next(&g->sampler, g->logits, g->config.vocab, g->scratch);
	if (!token) { /* a NUL stands between texts */
		g->logits = NULL;
		return 0;
	}
	next = (unsigned char)token;
	rc = make_room(g, err);
	if (!rc)
		rc = feed(g, &next, 1, err);
	if (rc < 0)
		return rc;
	*byte = next;
	return 1;
}

void pst_generator_model(const struct pst_generator *g, struct pst_model_info *out)
{
	pst_model_describe(&g->config, out);
}
