/* SPDX-License-Identifier: Apache-2.0 */
/* compute_priv.h - inside of compute_cpu*.c. */
#ifndef PST_DEVICE_COMPUTE_PRIV_H
#define PST_DEVICE_COMPUTE_PRIV_H

#include "runtime/device/compute.h"

static inline struct pst_device *pst_cpu(struct pst_compute *c)
{
	return ((struct pst_compute_cpu *)c)->dev;
}

/*
 * Run @fn for rows [first, first + count) of @rows, in blocks of PST_COMPUTE_ROWS: what is
 * independent by row is cut by rows, sums over rows by columns, so that every sum keeps the order
 * that its op gives it.
 */
typedef void pst_rows_fn(void *ctx, size_t first, size_t count);
void pst_cpu_rows(struct pst_compute *c, size_t rows, pst_rows_fn *fn, void *ctx);

/* compute_cpu_gate.c */
void pst_cpu_gate(struct pst_compute *c, const struct pst_gate *g);
void pst_cpu_balance(struct pst_compute *c, const struct pst_gate *g, float *loss, float alpha);
void pst_cpu_gate_bwd(struct pst_compute *c, const struct pst_gate *g, const float *dweight);
void pst_cpu_loss(struct pst_compute *c, const struct pst_xent *x);
void pst_cpu_loss_bwd(struct pst_compute *c, const struct pst_xent *x, float scale);

/* compute_cpu_mla.c */
void pst_cpu_rotate(struct pst_compute *c, const struct pst_mla *a);
void pst_cpu_attend(struct pst_compute *c, const struct pst_mla *a);
void pst_cpu_attend_bwd(struct pst_compute *c, const struct pst_mla *a,
			const struct pst_mla_grad *g);
void pst_cpu_attend_cache(struct pst_compute *c, const struct pst_mla *a,
			  const struct pst_mla_cache *cache);

#endif /* PST_DEVICE_COMPUTE_PRIV_H */
