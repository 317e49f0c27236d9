/* SPDX-License-Identifier: Apache-2.0 */
/* What is built in where PENSTOCK_KERNELS=ref, bit for bit. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

PST_KERNEL_IMAGE(swiglu, "good", pst_ref_f32_swiglu);
