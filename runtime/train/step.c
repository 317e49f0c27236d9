/* SPDX-License-Identifier: Apache-2.0 */
/* step.c - one training step, the way that design.md describes. */
#include "runtime/train/trainer.h"

#include "rdma/fail.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static uint64_t bytes_of(const struct pst_param *p)
{
	uint64_t n = sizeof(float);

	for (unsigned int d = 0; d < p->ndim; d++)
		n *= p->shape[d];
	return n;
}

int pst_trainer_begin(struct pst_trainer *t, float **grads, struct pst_error *err)
{
	uint64_t version;
	int rc = pst_client_begin(t->client, t->mine, t->weights, grads, &version, err);

	if (!rc)
		rc = pst_engine_gpu_reach(t->gpu, t->client, err);
	if (rc < 0)
		return rc;
	pst_moe_version(t->moe, version);
	pst_model_version(t->model, version);
	return 0;
}

static int begin(struct pst_trainer *t, struct pst_error *err)
{
	int rc = pst_trainer_begin(t, t->grads, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < t->nparams; i++) {
		if (!t->mine[i])
			continue;
		t->traffic.pulled_engine += bytes_of(&t->param[i]);
		t->traffic.pushed_engine += bytes_of(&t->param[i]);
		if (t->param[i].kind == PST_PARAM_BIAS) {
			t->bias[t->param[i].layer] = t->grads[i];
			t->grads[i] = NULL;
		}
	}
	return 0;
}

/* d(bias) = sign(load - mean): too much work moves it down (arXiv:2408.15664). */
static void balance_biases(struct pst_trainer *t)
{
	double mean = (double)t->state.batch * t->state.seq * t->config.topk / t->config.experts;

	for (uint32_t l = t->config.dense_layers; l < t->config.layers; l++) {
		const uint32_t *load = pst_model_load(t->model, l);

		for (uint32_t e = 0; e < t->config.experts && t->bias[l]; e++)
			t->bias[l][e] = (float)((load[e] > mean) - (load[e] < mean));
	}
}

static void mark_gradients(struct pst_trainer *t)
{
	for (size_t i = 0; i < t->nparams; i++) {
		const struct pst_param *p = &t->param[i];

		t->has[i] =
			p->expert < 0 || pst_model_load(t->model, (uint32_t)p->layer)[p->expert];
	}
}

static double load_skew(const struct pst_trainer *t)
{
	double mean = (double)t->state.batch * t->state.seq * t->config.topk / t->config.experts;
	double worst = 0;

	for (uint32_t l = t->config.dense_layers; l < t->config.layers; l++) {
		const uint32_t *load = pst_model_load(t->model, l);

		for (uint32_t e = 0; e < t->config.experts; e++)
			worst = fmax(worst, load[e] / mean);
	}
	return worst;
}

static void digest(struct pst_trainer *t, double loss)
{
	unsigned char bits[sizeof(loss)];

	memcpy(bits, &loss, sizeof(loss));
	for (size_t i = 0; i < sizeof(bits); i++)
		t->state.digest = (t->state.digest ^ bits[i]) * 0x100000001b3ull; /* FNV-1a */
}

static int not_finite(const struct pst_trainer *t, const char *what, struct pst_error *err)
{
	return pst_fail(err, -EDOM,
			"step %u: the %s is not a finite number; nothing of the step was applied "
			"(a smaller learning rate may help)",
			t->state.step + 1, what);
}

int pst_trainer_fail(const struct pst_trainer *t, int code, struct pst_error *err)
{
	const struct pst_error *why = pst_model_error(t->model);

	if (!why->code)
		why = pst_moe_error(t->moe);
	return pst_fail(err, code, "%s", why->code ? why->text : strerror(-code));
}

static int apply(struct pst_trainer *t, struct pst_step_info *info, struct pst_error *err)
{
	struct pst_msg_apply a = {
		.lr = pst_schedule_lr(&t->state, t->state.step),
		.beta1 = t->state.beta1,
		.beta2 = t->state.beta2,
		.eps = t->state.eps,
		.weight_decay = t->state.weight_decay,
		.grad_scale = 1,
		.bias_rate = t->state.bias_rate,
	};
	double norm_sq;
	int rc = pst_client_commit(t->client, t->mine, t->has, &norm_sq, err);

	if (rc < 0)
		return rc;
	info->grad_norm = sqrt(norm_sq);
	info->lr = a.lr;
	if (!isfinite(norm_sq))
		return not_finite(t, "gradient", err);
	if (t->state.clip > 0 && info->grad_norm > t->state.clip)
		a.grad_scale = t->state.clip / (info->grad_norm + 1e-6);
	return pst_client_apply(t->client, &a, err);
}

/* Forward and backward of this step's batch; gradients are in the slots after it. */
static int compute(struct pst_trainer *t, struct pst_model_loss *loss, struct pst_error *err)
{
	int rc;

	pst_batch_draw(&t->corpus, t->state.seed, t->state.step, t->state.batch, t->state.seq,
		       t->tokens, t->targets);
	rc = pst_model_forward(t->model, t->weights, t->state.batch, t->state.seq, t->tokens,
			       t->targets, loss, NULL);
	if (!rc && !isfinite(loss->cross_entropy))
		return not_finite(t, "loss", err);
	if (!rc)
		rc = pst_model_backward(t->model, t->weights, t->grads);
	return rc < 0 ? pst_trainer_fail(t, rc, err) : 0;
}

void pst_trainer_add(struct pst_error *err, const char *fmt, ...)
{
	size_t at = err ? strlen(err->text) : 0;
	char more[sizeof(err->text)];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(more, sizeof(more), fmt, ap);
	va_end(ap);
	if (err && n > 0 && at + (size_t)n < sizeof(err->text))
		memcpy(err->text + at, more, (size_t)n + 1);
}

static int make_step(struct pst_trainer *t, struct pst_step_info *out, struct pst_error *err)
{
	struct pst_step_info info = {.tokens = (uint64_t)t->state.batch * t->state.seq};
	struct pst_model_loss loss;
	int rc = begin(t, err);

	if (!rc)
		rc = compute(t, &loss, err);
	if (rc < 0)
		return rc;
	balance_biases(t);
	mark_gradients(t);
	rc = apply(t, &info, err);
	if (rc < 0)
		return rc;
	digest(t, loss.cross_entropy);
	info.step = ++t->state.step;
	info.loss = loss.cross_entropy;
	info.balance = loss.balance;
	info.load_max_over_mean = load_skew(t);
	*out = info;
	if (t->o.save_every && t->out[0] && t->state.step % t->o.save_every == 0)
		return pst_trainer_save(t, NULL, 0, err);
	return 0;
}

int pst_trainer_step(struct pst_trainer *t, struct pst_step_info *out, struct pst_error *err)
{
	int rc = make_step(t, out, err);

	if (rc < 0 && rc != -EDOM && t->saved)
		pst_trainer_add(err, "; go on from the last checkpoint: --resume %s", t->out);
	return rc;
}

int pst_trainer_done(const struct pst_trainer *t)
{
	return t->state.step >= t->state.steps;
}

uint32_t pst_trainer_at(const struct pst_trainer *t)
{
	return t->state.step;
}

uint64_t pst_trainer_digest(const struct pst_trainer *t)
{
	return t->state.digest;
}
