/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - from options to a trainer that is ready for its first step. */
#include "runtime/train/trainer.h"

#include "rdma/fail.h"
#include "runtime/host.h"
#include "runtime/io/safetensors.h"
#include "runtime/launch/reach.h"
#include "runtime/store/ckptdir.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void pst_train_defaults(struct pst_train_options *o)
{
	*o = (struct pst_train_options){
		.size = sizeof(*o),
		.servers = 1,
		.workers = 2,
		.seed = 1,
		.steps = 100,
		.batch = 4,
		.seq = 128,
		.keep = 2,
		.lr = 3e-3,
		.lr_min = 3e-4,
		.warmup = 50,
		.beta1 = 0.9,
		.beta2 = 0.95,
		.eps = 1e-8,
		.weight_decay = 0.1,
		.clip = 1,
		.balance_alpha = 1e-3,
		.bias_rate = 1e-2,
		.worker_timeout_ms = 60000,
		.host = {.node = -1, .huge = 1, .lock = 1},
		.peers = {.connect_timeout_ms = 20000},
	};
}

/* Options */

static int check_number(const char *name, double v, double min, double max, struct pst_error *err)
{
	if (isfinite(v) && v >= min && v <= max)
		return 0;
	return pst_fail(err, -EINVAL, "%s %g: not between %g and %g", name, v, min, max);
}

static int check_options(const struct pst_train_options *o, struct pst_error *err)
{
	const struct {
		const char *name;
		double v, min, max;
	} number[] = {
		{"servers", o->servers, 1, PST_LAUNCH_MAX},
		{"workers", o->workers, 1, PST_LAUNCH_MAX},
		{"steps", o->steps, 1, UINT32_MAX},
		{"batch", o->batch, 1, 65536},
		{"seq", o->seq, 2, 1 << 20},
		{"lr", o->lr, 0, 100},
		{"lr-min", o->lr_min, 0, 100},
		{"beta1", o->beta1, 0, 0.999999},
		{"beta2", o->beta2, 0, 0.999999},
		{"eps", o->eps, 1e-30, 1},
		{"weight-decay", o->weight_decay, 0, 100},
		{"clip", o->clip, 0, 1e30},
		{"balance-alpha", o->balance_alpha, 0, 1e6},
		{"bias-rate", o->bias_rate, 0, 1},
		{"worker-timeout", o->worker_timeout_ms, 1, 1e9},
		{"connect-timeout", o->peers.connect_timeout_ms, 1, 1e9},
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(number) / sizeof(*number) && !rc; i++)
		rc = check_number(number[i].name, number[i].v, number[i].min, number[i].max, err);
	if (rc < 0)
		return rc;
	if (!o->ndata)
		return pst_fail(err, -EINVAL, "no text to train on was named (data)");
	if (!o->resume && !o->preset == !o->config)
		return pst_fail(err, -EINVAL, "a preset or a config is needed, one of them");
	if (o->resume && (o->preset || o->config))
		return pst_fail(err, -EINVAL,
				"what resumes has its model already: no preset or "
				"config beside it");
	return 0;
}

/* Where the cosine ends: a short run is the beginning of one of the usual length. */
static uint32_t horizon_of(uint32_t steps, uint32_t warmup)
{
	const uint32_t usual = 1000;
	uint32_t h = steps > usual ? steps : usual;

	return h > warmup ? h : warmup + 1;
}

static void fresh_state(struct pst_trainer *t)
{
	const struct pst_train_options *o = &t->o;

	t->state = (struct pst_state){
		.digest = 0xcbf29ce484222325ull,
		.seed = o->seed,
		.steps = o->steps,
		.horizon = horizon_of(o->steps, o->warmup),
		.batch = o->batch,
		.seq = o->seq,
		.warmup = o->warmup,
		.lr = o->lr,
		.lr_min = o->lr_min,
		.beta1 = o->beta1,
		.beta2 = o->beta2,
		.eps = o->eps,
		.weight_decay = o->weight_decay,
		.clip = o->clip,
		.balance_alpha = o->balance_alpha,
		.bias_rate = o->bias_rate,
	};
}

static int resume_from(struct pst_trainer *t, char dir[PATH_MAX], struct pst_error *err)
{
	char path[PATH_MAX];
	uint32_t steps;
	int rc = pst_ckptdir_find(t->o.resume, dir, err);

	if (!rc)
		rc = pst_state_read(dir, &t->state, err);
	if (rc < 0)
		return rc;
	steps = t->o.steps;
	if (steps < t->state.step)
		return pst_fail(err, -EINVAL, "%s: is at step %u already, %u are asked for", dir,
				t->state.step, steps);
	t->state.steps = steps;
	if (steps > t->state.horizon)
		t->state.horizon = steps;
	if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path))
		return pst_fail(err, -ENAMETOOLONG, "%s: path too long", dir);
	return pst_config_read(path, &t->config, err);
}

static int choose_model(struct pst_trainer *t, char dir[PATH_MAX], struct pst_error *err)
{
	int rc;

	dir[0] = 0;
	if (t->o.resume)
		rc = resume_from(t, dir, err);
	else if (t->o.preset)
		rc = pst_config_preset(t->o.preset, &t->config, err);
	else
		rc = pst_config_read(t->o.config, &t->config, err);
	if (rc < 0)
		return rc;
	if (!t->o.resume)
		fresh_state(t);
	if (t->config.vocab < 256)
		return pst_fail(err, -EINVAL, "a vocabulary of %u: training is on bytes, 256",
				t->config.vocab);
	if (t->state.seq > t->config.max_positions)
		return pst_fail(err, -EINVAL, "rows of %u tokens: the model has %u positions",
				t->state.seq, t->config.max_positions);
	return 0;
}

static int read_text(struct pst_trainer *t, struct pst_error *err)
{
	int rc = pst_corpus_read(t->o.data, t->o.ndata, t->state.seq, &t->corpus, err);

	if (rc < 0)
		return rc;
	if (t->o.resume && t->state.corpus != t->corpus.hash)
		snprintf(t->note, sizeof(t->note),
			 "the text is not the one that the checkpoint was trained on: it goes on "
			 "from there, not bit for bit");
	t->state.corpus = t->corpus.hash;
	return 0;
}

/* The parts */

static int list_params(struct pst_trainer *t, struct pst_error *err)
{
	int rc = pst_params_list(&t->config, &t->param, &t->nparams);
	size_t n = t->nparams;

	if (rc < 0)
		return pst_fail(err, rc, "the model's parameters: %s", strerror(-rc));
	t->mine = calloc(n, 1);
	t->has = calloc(n, 1);
	t->weights = calloc(n, sizeof(*t->weights));
	t->grads = calloc(n, sizeof(*t->grads));
	t->bias = calloc(t->config.layers, sizeof(*t->bias));
	if (!t->mine || !t->has || !t->weights || !t->grads || !t->bias)
		return pst_fail(err, -ENOMEM, "no memory for %zu parameters", n);
	for (size_t i = 0; i < n; i++)
		t->mine[i] = t->param[i].expert < 0;
	return 0;
}

static int open_table(struct pst_trainer *t, const char *resume, struct pst_error *err)
{
	struct pst_client_options co = {
		.size = sizeof(co),
		.fabric = t->fabric,
		.count = t->nparams,
	};
	struct pst_client_loaded loaded = {0};
	struct pst_wire_tensor *tensor;
	uint32_t *unit;
	int rc = pst_table_of(&t->config, t->param, t->nparams, &tensor, &unit);

	if (rc < 0)
		return pst_fail(err, rc, "no memory for a table");
	co.tensors = tensor;
	co.unit = unit;
	rc = pst_reach_servers(t->launch, &co, &t->client, err);
	free(unit);
	free(tensor);
	if (rc < 0)
		return rc;
	if (*resume)
		rc = pst_client_load(t->client, resume, true, t->state.step, &loaded, err);
	else
		rc = pst_client_init(t->client, t->state.seed, err);
	t->traffic.read = loaded.read_bytes;
	t->traffic.copied = loaded.copied_bytes;
	if (loaded.note[0] && !t->note[0])
		memcpy(t->note, loaded.note, sizeof(t->note));
	return rc < 0 ? rc : pst_client_train(t->client, err);
}

static int open_moe(struct pst_trainer *t, struct pst_error *err)
{
	struct pst_moe_options mo = {
		.size = sizeof(mo),
		.fabric = t->fabric,
		.device = t->device,
		.hidden = t->config.hidden,
		.inter = t->config.moe_inter,
		.experts = t->config.experts,
		.topk = t->config.topk,
		.layers = t->config.layers,
		.dense_layers = t->config.dense_layers,
		.max_tokens = t->state.batch * t->state.seq,
		.train = 1,
		.node = t->o.host.node,
		.pool_flags = pst_host_pool_flags(&t->o.host),
		.timeout_ms = (int)t->o.worker_timeout_ms,
	};

	return pst_reach_workers(t->launch, t->client, &mo, &t->moe, err);
}

static int open_model(struct pst_trainer *t, struct pst_error *err)
{
	struct pst_model_options mo = {
		.size = sizeof(mo),
		.config = &t->config,
		.device = t->device,
		.moe = t->moe,
		.batch = t->state.batch,
		.seq = t->state.seq,
		.balance_alpha = t->state.balance_alpha,
		.train = 1,
		.compute = pst_engine_gpu_compute(t->gpu),
	};
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "activations",
		.bytes = pst_model_bytes(&mo),
		.node = t->o.host.node,
		.flags = pst_host_pool_flags(&t->o.host),
	};
	size_t n = (size_t)t->state.batch * t->state.seq;
	int rc = pst_pool_create(&po, &t->pool, err);

	if (rc < 0)
		return rc;
	t->tokens = calloc(n, sizeof(*t->tokens));
	t->targets = calloc(n, sizeof(*t->targets));
	t->token_loss = calloc(n, sizeof(*t->token_loss));
	if (!t->tokens || !t->targets || !t->token_loss)
		return pst_fail(err, -ENOMEM, "no memory for batches of %zu tokens", n);
	mo.pool = t->pool;
	rc = pst_engine_gpu_reach_pool(t->gpu, t->pool, err);
	return rc < 0 ? rc : pst_model_create(&mo, &t->model, err);
}

/* Who would be where, before anything is read or started. */
static int place_parts(struct pst_trainer *t, struct pst_error *err)
{
	const struct pst_peer_options *p = &t->o.peers;
	struct pst_launch_options lo = {
		.size = sizeof(lo),
		.servers = t->o.servers,
		.workers = t->o.workers,
		.server_at = p->server_at,
		.worker_at = p->worker_at,
		.nserver_at = (unsigned int)p->nserver_at,
		.nworker_at = (unsigned int)p->nworker_at,
		.daemon = p->daemon,
		.fabric = t->o.fabric,
		.key = p->key,
		.listen_host = p->listen_host,
		.connect_ms = (int)p->connect_timeout_ms,
		.embedded = t->o.embedded,
		.node = t->o.host.node,
		.device = t->o.host.device,
		.pool_flags = pst_host_pool_flags(&t->o.host),
	};
	int rc = pst_launch_create(&lo, &t->launch, err);

	if (rc < 0)
		return rc;
	t->o.servers = pst_launch_servers(t->launch);
	t->o.workers = pst_launch_workers(t->launch);
	return 0;
}

static int open_parts(struct pst_trainer *t, const char *resume, struct pst_error *err)
{
	char url[PST_URL_MAX];
	int rc = list_params(t, err);

	if (rc < 0)
		return rc;
	pst_launch_fabric(t->launch, url);
	rc = pst_fabric_open(url, &t->fabric, err);
	if (!rc)
		rc = pst_engine_gpu_open(pst_launch_device(t->launch), &t->gpu, err);
	if (!rc)
		rc = pst_launch_start(t->launch, err);
	if (!rc)
		rc = pst_device_open_cpu(t->o.host.node, t->o.host.threads, &t->device, err);
	if (!rc)
		rc = open_table(t, resume, err);
	if (!rc)
		rc = open_moe(t, err);
	return rc < 0 ? rc : open_model(t, err);
}

int pst_trainer_open(const struct pst_train_options *opts, struct pst_trainer **out,
		     struct pst_error *err)
{
	struct pst_trainer *t = calloc(1, sizeof(*t));
	char resume[PATH_MAX];
	int rc;

	if (!t)
		return pst_fail(err, -ENOMEM, "no memory for a trainer");
	pst_train_defaults(&t->o);
	rc = pst_host_take_options(&t->o, sizeof(t->o), opts, opts->size, err);
	if (!rc)
		rc = check_options(&t->o, err);
	if (!rc)
		rc = place_parts(t, err);
	if (!rc && t->o.out)
		rc = pst_ckptdir_prepare(t->o.out, t->out, err);
	if (!rc)
		rc = choose_model(t, resume, err);
	if (!rc)
		rc = read_text(t, err);
	if (!rc)
		rc = open_parts(t, resume, err);
	/* the caller's strings are the caller's again */
	t->o.preset = t->o.config = t->o.out = t->o.resume = t->o.fabric = NULL;
	t->o.data = NULL;
	t->o.peers = (struct pst_peer_options){0};
	if (rc < 0) {
		pst_trainer_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void pst_trainer_close(struct pst_trainer *t)
{
	if (!t)
		return;
	if (t->model)
		pst_model_destroy(t->model);
	pst_engine_gpu_close(t->gpu, &t->pool, &t->client, &t->fabric);
	pst_moe_destroy(t->moe);
	pst_client_close(t->client);
	pst_pool_destroy(t->pool);
	if (t->fabric)
		pst_fabric_close(t->fabric);
	pst_launch_stop(t->launch);
	if (t->device)
		pst_device_close(t->device);
	pst_corpus_free(&t->corpus);
	free(t->token_loss);
	free(t->targets);
	free(t->tokens);
	free(t->bias);
	free(t->grads);
	free(t->weights);
	free(t->has);
	free(t->mine);
	free(t->param);
	free(t);
}
