/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/train/trainer.h"

#include "rdma/fail.h"

#include <errno.h>
#include <math.h>

/*
 * Held-out byte i is scored once, in the window whose second half it lies in,
 * so that it is seen with at least half a window of text before it (the training
 * text's end, for the first ones).
 */
struct window {
	size_t first;	 /* byte that its first token is */
	size_t from, to; /* bytes that it scores */
};

static size_t window_at(const struct pst_trainer *t, size_t i, struct window *w)
{
	size_t half = t->state.seq > 1 ? t->state.seq / 2 : 1, bytes = t->corpus.bytes;

	w->from = t->corpus.train + i * half;
	w->to = w->from + half < bytes ? w->from + half : bytes;
	w->first = w->from + half > t->state.seq ? w->from + half - t->state.seq - 1 : 0;
	return w->from < bytes;
}

/* Fill row @row; tokens past the scored ones are there but count for nothing. */
static void fill(struct pst_trainer *t, uint32_t row, const struct window *w)
{
	uint32_t seq = t->state.seq;

	for (uint32_t k = 0; k < seq; k++) {
		size_t at = w->first + k, target = at + 1;
		size_t i = (size_t)row * seq + k;

		t->tokens[i] = at < t->corpus.bytes ? t->corpus.text[at] : 0;
		t->targets[i] = -1;
		if (target >= w->from && target < w->to)
			t->targets[i] = t->corpus.text[target];
	}
}

static int score(struct pst_trainer *t, uint32_t rows, double *sum, uint64_t *count,
		 struct pst_error *err)
{
	struct pst_model_loss loss;
	int rc = pst_model_forward(t->model, t->weights, rows, t->state.seq, t->tokens, t->targets,
				   &loss, t->token_loss);

	if (rc < 0)
		return pst_trainer_fail(t, rc, err);
	for (size_t i = 0; i < (size_t)rows * t->state.seq; i++)
		if (t->targets[i] >= 0) {
			*sum += t->token_loss[i];
			++*count;
		}
	return 0;
}

int pst_trainer_evaluate(struct pst_trainer *t, struct pst_eval_info *out, struct pst_error *err)
{
	const unsigned char *held = t->corpus.text + t->corpus.train;
	struct pst_eval_info e = {.bytes = t->corpus.bytes - t->corpus.train};
	uint64_t scored = 0;
	struct window w;
	uint32_t rows = 0;
	double sum = 0;
	int rc = pst_trainer_begin(t, NULL, err);

	for (size_t i = 0; !rc && window_at(t, i, &w); i++) {
		fill(t, rows++, &w);
		if (rows == t->state.batch) {
			rc = score(t, rows, &sum, &scored, err);
			rows = 0;
		}
	}
	if (!rc && rows)
		rc = score(t, rows, &sum, &scored, err);
	if (rc < 0)
		return rc;
	e.loss = sum / (double)scored;
	e.bits_per_byte = e.loss / M_LN2;
	rc = pst_compress_gzip(held, e.bytes, &e.gzip_bits_per_byte);
	if (!rc)
		rc = pst_compress_xz(held, e.bytes, &e.xz_bits_per_byte);
	if (rc < 0)
		return pst_fail(err, rc, "no memory to compress the held-out text");
	*out = e;
	return 0;
}
