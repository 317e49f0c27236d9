/* SPDX-License-Identifier: Apache-2.0 */
/* trainer.h - a trainer's inside, for the files of train/. */
#ifndef PST_TRAINER_H
#define PST_TRAINER_H

#include "runtime/launch/engine_gpu.h"
#include "runtime/launch/launch.h"
#include "runtime/model/model.h"
#include "runtime/model/params.h"
#include "runtime/model/table.h"
#include "runtime/penstock.h"
#include "runtime/store/client.h"
#include "runtime/train/corpus.h"
#include "runtime/store/state.h"

#include <limits.h>

struct pst_trainer {
	struct pst_train_options o; /* strings are not kept */
	struct pst_state state;
	struct pst_config config;
	struct pst_corpus corpus;
	char out[PATH_MAX]; /* empty: none */
	bool saved;	    /* a checkpoint of this run is there */
	char note[256];

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
	uint8_t *mine, *has;   /* per parameter: the engine's; has a gradient now */
	const float **weights; /* per parameter */
	float **grads;
	float **bias;		   /* per layer: where the load bias's gradient goes, or NULL */
	int32_t *tokens, *targets; /* [batch, seq] */
	float *token_loss;
	struct pst_traffic traffic;
};

/* batch.c: the rows of step @step (from 0), drawn by (seed, step, row). */
void pst_batch_draw(const struct pst_corpus *corpus, uint64_t seed, uint32_t step, uint32_t batch,
		    uint32_t seq, int32_t *tokens, int32_t *targets);

/* schedule.c: learning rate of step @step (from 0). */
double pst_schedule_lr(const struct pst_state *state, uint32_t step);

/* step.c: weights of the current version, and slots if @grads; all that computes is told. */
int pst_trainer_begin(struct pst_trainer *trainer, float **grads, struct pst_error *err);

/* step.c: what went wrong in the model, in the words of whom it happened to. */
int pst_trainer_fail(const struct pst_trainer *trainer, int code, struct pst_error *err);

/* More of a sentence, where there is room for all of it. */
void pst_trainer_add(struct pst_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* PST_TRAINER_H */
