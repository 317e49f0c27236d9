/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - trainer.json: what a run needs, beside its tensors, to go on as if
 * it had never stopped.
 */
#ifndef PST_STATE_H
#define PST_STATE_H

#include <penstock/error.h>
#include <stdint.h>

/* Everything that changes the numbers of a run, and where it has come to. */
struct pst_state {
	uint32_t step;	 /* steps done */
	uint64_t digest; /* over the losses so far */
	uint64_t corpus; /* hash of the text */
	uint64_t seed;
	uint32_t steps;	  /* in all */
	uint32_t horizon; /* where the cosine ends */
	uint32_t batch, seq, warmup;
	double lr, lr_min, beta1, beta2, eps, weight_decay, clip, balance_alpha, bias_rate;
};

/* Write @dir/trainer.json. */
int pst_state_write(const char *dir, const struct pst_state *state, struct pst_error *err);
/* -ENOENT when the checkpoint has none (it was not made by a trainer). */
int pst_state_read(const char *dir, struct pst_state *out, struct pst_error *err);

#endif /* PST_STATE_H */
