/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/train/trainer.h"

#include <math.h>

/* Linear warm-up, then half a cosine down to lr_min at the horizon (arXiv:1608.03983). */
double pst_schedule_lr(const struct pst_state *s, uint32_t step)
{
	double done;

	if (step < s->warmup)
		return s->lr * (step + 1) / s->warmup;
	if (step >= s->horizon)
		return s->lr_min;
	done = (double)(step - s->warmup) / (s->horizon - s->warmup);
	return s->lr_min + (s->lr - s->lr_min) * 0.5 * (1 + cos(M_PI * done));
}
