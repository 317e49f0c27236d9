/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Twenty AdamW steps against PyTorch's (selftests/goldens): servers, workers and engine as a
 * training run has them, on the golden's weights, batches and settings.
 */
#include "selftests/lib/test.h"

#include "runtime/io/safetensors.h"
#include "runtime/launch/launch.h"
#include "runtime/model/model.h"
#include "runtime/model/params.h"
#include "runtime/model/table.h"
#include "runtime/store/client.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>

#define GOLDEN	"selftests/goldens/nano"
#define STEPS	20
#define BATCH	2
#define SEQ	32
#define GATE	1e-5 /* of losses and norms; the goldens are off by up to 2e-6 */
#define TIMEOUT 20000

FIXTURE(adamw)
{
	struct pst_config cfg;
	struct pst_param *param;
	size_t n;
	struct pst_launch *launch;
	struct pst_fabric *fabric;
	struct pst_device *device;
	struct pst_pool *pool;
	struct pst_client *client;
	struct pst_moe *moe;
	struct pst_model *model;
	uint8_t *all, *mine, *has;
	const float **weights;
	float **grads;
	struct pst_checkpoint *expect;
};
FIXTURE_VARIANT(adamw)
{
	unsigned int servers, workers;
};
FIXTURE_VARIANT_ADD(adamw, one_server_one_worker){1, 1};
FIXTURE_VARIANT_ADD(adamw, two_servers_three_workers){2, 3};

static void *load(const struct pst_checkpoint *ckpt, const char *name, size_t *bytes)
{
	const struct pst_tensor_info *t = pst_checkpoint_find(ckpt, name);
	void *data;
	int fd;

	ASSERT_NE(NULL, t);
	data = malloc(t->bytes + 1);
	fd = open(pst_checkpoint_path(ckpt, t->file), O_RDONLY | O_CLOEXEC);
	ASSERT_EQ((ssize_t)t->bytes, pread(fd, data, t->bytes, (off_t)t->offset));
	close(fd);
	*bytes = t->bytes;
	return data;
}

static size_t size_of(const struct pst_param *p)
{
	return p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1);
}

static void read_config(struct fixture_adamw *f)
{
	struct pst_error err = {0};
	char *json;
	size_t len;

	ASSERT_OK(pst_file_read(GOLDEN "/config.json", 1 << 20, &json, &len, &err), &err);
	ASSERT_OK(pst_config_parse(json, len, &f->cfg, &err), &err);
	free(json);
	ASSERT_EQ(0, pst_params_list(&f->cfg, &f->param, &f->n));
	f->all = malloc(f->n);
	f->mine = malloc(f->n);
	f->has = malloc(f->n);
	f->weights = calloc(f->n, sizeof(*f->weights));
	f->grads = calloc(f->n, sizeof(*f->grads));
	for (size_t i = 0; i < f->n; i++) {
		f->all[i] = 1;
		f->mine[i] = f->param[i].expert < 0;
	}
}

static void open_client(struct fixture_adamw *f, unsigned int servers)
{
	struct pst_client_loaded loaded;
	struct pst_wire_tensor *tensor;
	struct pst_error err = {0};
	char dir[PATH_MAX];
	const char *url[8];
	uint32_t *unit;

	ASSERT_EQ(0, pst_table_of(&f->cfg, f->param, f->n, &tensor, &unit));
	for (unsigned int i = 0; i < servers; i++)
		url[i] = pst_launch_server(f->launch, i);
	ASSERT_OK(pst_client_open(&(struct pst_client_options){sizeof(struct pst_client_options),
							       f->fabric, url, servers, TIMEOUT,
							       tensor, unit, f->n, 0},
				  &f->client, &err),
		  &err);
	free(tensor);
	free(unit);
	ASSERT_NE(NULL, realpath(GOLDEN, dir));
	ASSERT_OK(pst_client_load(f->client, dir, false, 0, &loaded, &err), &err);
	ASSERT_OK(pst_client_train(f->client, &err), &err);
}

static void open_moe(struct fixture_adamw *f, const struct variant_adamw *v)
{
	struct pst_wire_server server[8];
	struct pst_error err = {0};
	struct pst_moe_options mo = {
		.size = sizeof(mo),
		.fabric = f->fabric,
		.device = f->device,
		.workers = v->workers,
		.servers = server,
		.nservers = v->servers,
		.hidden = f->cfg.hidden,
		.inter = f->cfg.moe_inter,
		.experts = f->cfg.experts,
		.topk = f->cfg.topk,
		.layers = f->cfg.layers,
		.dense_layers = f->cfg.dense_layers,
		.max_tokens = BATCH * SEQ,
		.train = 1,
		.node = PST_NODE_ANY,
		.timeout_ms = TIMEOUT,
	};

	for (unsigned int i = 0; i < v->servers; i++)
		pst_client_describe(f->client, i, &server[i]);
	ASSERT_OK(pst_moe_create(&mo, &f->moe, &err), &err);
	for (unsigned int i = 0; i < v->workers; i++)
		ASSERT_OK(pst_moe_connect(f->moe, i, pst_launch_worker(f->launch, i), &err), &err);
}

static void open_model(struct fixture_adamw *f)
{
	struct pst_error err = {0};
	struct pst_model_options mo = {
		.size = sizeof(mo),
		.config = &f->cfg,
		.device = f->device,
		.moe = f->moe,
		.batch = BATCH,
		.seq = SEQ,
		.train = 1,
	};
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "activations",
		.bytes = pst_model_bytes(&mo),
		.node = PST_NODE_ANY,
	};

	ASSERT_OK(pst_pool_create(&po, &f->pool, &err), &err);
	mo.pool = f->pool;
	ASSERT_OK(pst_model_create(&mo, &f->model, &err), &err);
}

FIXTURE_SETUP(adamw)
{
	const struct variant_adamw *v = variant;
	struct pst_launch_options lo = {
		.size = sizeof(lo),
		.servers = v->servers,
		.workers = v->workers,
		.embedded = true,
		.node = PST_NODE_ANY,
	};
	struct pst_error err = {0};

	read_config(self);
	ASSERT_OK(pst_checkpoint_open(GOLDEN "/adamw.safetensors", "", &self->expect, &err), &err);
	ASSERT_OK(pst_launch_create(&lo, &self->launch, &err), &err);
	ASSERT_OK(pst_launch_start(self->launch, &err), &err);
	ASSERT_OK(pst_fabric_open("shm://golden", &self->fabric, &err), &err);
	ASSERT_OK(pst_device_open_cpu(PST_NODE_ANY, 2, &self->device, &err), &err);
	open_client(self, v->servers);
	open_moe(self, v);
	open_model(self);
}

FIXTURE_TEARDOWN(adamw)
{
	pst_model_destroy(self->model);
	pst_moe_destroy(self->moe);
	pst_client_close(self->client);
	pst_pool_destroy(self->pool);
	pst_fabric_close(self->fabric);
	pst_launch_stop(self->launch);
	pst_device_close(self->device);
	pst_checkpoint_close(self->expect);
	free(self->param);
	free(self->all);
	free(self->mine);
	free(self->has);
	free(self->weights);
	free(self->grads);
}

static void expect_close(const char *what, double want, double got)
{
	if (fabs(got - want) <= GATE * fabs(want))
		return;
	printf("# %s is %.9g, not %.9g: off by %.2g\n", what, got, want, fabs(got / want - 1));
	test_failed = true;
}

/* The load bias stays as it is: its gradient is zero. */
static void begin(struct fixture_adamw *f)
{
	struct pst_error err = {0};
	uint64_t version;

	ASSERT_OK(pst_client_begin(f->client, f->mine, f->weights, f->grads, &version, &err), &err);
	pst_moe_version(f->moe, version);
	for (size_t i = 0; i < f->n; i++)
		if (f->param[i].kind == PST_PARAM_BIAS) {
			memset(f->grads[i], 0, size_of(&f->param[i]) * sizeof(float));
			f->grads[i] = NULL;
		}
}

static double norm_of_step(struct fixture_adamw *f)
{
	struct pst_error err = {0};
	double sum;

	for (size_t i = 0; i < f->n; i++) {
		const struct pst_param *p = &f->param[i];

		f->has[i] =
			p->expert < 0 || pst_model_load(f->model, (uint32_t)p->layer)[p->expert];
	}
	ASSERT_OK(pst_client_commit(f->client, f->mine, f->has, &sum, &err), &err);
	return sqrt(sum);
}

static void apply(struct fixture_adamw *f, double norm)
{
	struct pst_error err = {0};
	struct pst_msg_apply a = {
		.lr = 0.001,
		.beta1 = 0.9,
		.beta2 = 0.95,
		.eps = 1e-8,
		.weight_decay = 0.1,
		.grad_scale = fmin(1, 1 / (norm + 1e-6)),
	};

	ASSERT_OK(pst_client_apply(f->client, &a, &err), &err);
}

static double step(struct fixture_adamw *f, const uint8_t *batch, double *norm)
{
	int32_t tokens[BATCH * SEQ], targets[BATCH * SEQ];
	struct pst_model_loss loss;

	for (size_t b = 0; b < BATCH; b++)
		for (size_t t = 0; t < SEQ; t++) {
			tokens[b * SEQ + t] = batch[b * (SEQ + 1) + t];
			targets[b * SEQ + t] = batch[b * (SEQ + 1) + t + 1];
		}
	begin(f);
	ASSERT_EQ(0, pst_model_forward(f->model, f->weights, BATCH, SEQ, tokens, targets, &loss,
				       NULL));
	ASSERT_EQ(0, pst_model_backward(f->model, f->weights, f->grads));
	*norm = norm_of_step(f);
	apply(f, *norm);
	return loss.cross_entropy;
}

static double norm_of(const float *a, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * a[i];
	return sqrt(sum);
}

static const float *weights_of(const struct fixture_adamw *f, const char *name, size_t *n)
{
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->param[i].name, name)) {
			*n = size_of(&f->param[i]);
			return f->weights[i];
		}
	printf("# no parameter %s\n", name);
	_exit(TEST_FAIL);
}

/* Every tensor's norm, and four tensors whole. */
static void check_final(struct fixture_adamw *f)
{
	json_t *root = json_load_file(GOLDEN "/adamw.json", 0, NULL);
	const json_t *names = json_object_get(root, "final_norms");
	struct pst_error err = {0};
	uint64_t version;
	size_t bytes, n, whole = 0;
	float *want = load(f->expect, "final_norms", &bytes);

	ASSERT_EQ(f->n, json_array_size(names));
	ASSERT_OK(pst_client_begin(f->client, f->all, f->weights, NULL, &version, &err), &err);
	EXPECT_EQ((uint64_t)STEPS, version);
	for (size_t i = 0; i < f->n; i++) {
		const char *name = json_string_value(json_array_get(names, i));
		const float *w = weights_of(f, name, &n);

		expect_close(name, want[i], norm_of(w, n));
	}
	json_decref(root);
	free(want);
	for (size_t i = 0; i < pst_checkpoint_count(f->expect); i++) {
		const struct pst_tensor_info *t = pst_checkpoint_at(f->expect, i);
		const float *w;
		double size, off;

		if (strncmp(t->name, "final.", 6))
			continue;
		want = load(f->expect, t->name, &bytes);
		w = weights_of(f, t->name + 6, &n);
		ASSERT_EQ(bytes, n * sizeof(*w));
		size = norm_of(want, n);
		for (size_t j = 0; j < n; j++)
			want[j] -= w[j];
		off = norm_of(want, n);
		EXPECT_TRUE(off <= GATE * size);
		whole++;
		free(want);
	}
	EXPECT_EQ((size_t)4, whole);
}

TEST_F(adamw, losses_norms_and_weights)
{
	size_t bytes;
	uint8_t *batch = load(self->expect, "batches", &bytes);
	float *loss = load(self->expect, "losses", &bytes);
	float *norm = load(self->expect, "norms", &bytes);

	ASSERT_EQ((size_t)STEPS * sizeof(float), bytes);
	for (size_t i = 0; i < STEPS; i++) {
		double got_norm, got = step(self, batch + i * BATCH * (SEQ + 1), &got_norm);

		expect_close("loss", loss[i], got);
		expect_close("norm", norm[i], got_norm);
	}
	check_final(self);
	free(batch);
	free(loss);
	free(norm);
}

TEST_MAIN
