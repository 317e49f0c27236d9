/* SPDX-License-Identifier: Apache-2.0 */
/* The same as good.c under another name. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

PST_KERNEL_IMAGE(swiglu, "twin", pst_ref_f32_swiglu);
