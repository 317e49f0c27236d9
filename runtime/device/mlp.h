/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mlp.h - SwiGLU feed-forward networks, many at once, on a device:
 *
 *	y = down( silu(gate(x)) * up(x) )
 *
 * An expert, the shared expert and a leading dense layer are all this. A job is
 * one network with its rows; the jobs of one call run side by side, cut into
 * blocks of rows (forward) and of weights (backward) by shape alone. What
 * forward may leave in @kept saves backward two of its eight products; without
 * it backward computes gate(x) and up(x) again, with the same bits.
 */
#ifndef PST_MLP_H
#define PST_MLP_H

#include "runtime/device/device.h"

struct pst_mlp_job {
	size_t rows, hidden, inter;
	const float *gate, *up; /* [inter, hidden] */
	const float *down;	/* [hidden, inter] */
	const float *x;		/* [rows, hidden] */
	float *kept;		/* [rows, 2 * inter] or NULL: gate(x), up(x) */
	bool have_kept;		/* backward: what forward left in @kept is there */
	/* forward */
	float *y; /* [rows, hidden] */
	/* backward: the gradients are overwritten */
	const float *dy;	    /* [rows, hidden] */
	float *dx;		    /* [rows, hidden] */
	float *dgate, *dup, *ddown; /* as the weights */
};

/* Floats of scratch that one call over these jobs needs. */
size_t pst_mlp_scratch(const struct pst_mlp_job *jobs, size_t njobs, bool backward);

void pst_mlp_forward(struct pst_device *dev, const struct pst_mlp_job *jobs, size_t njobs,
		     float *scratch);
void pst_mlp_backward(struct pst_device *dev, const struct pst_mlp_job *jobs, size_t njobs,
		      float *scratch);

#endif /* PST_MLP_H */
