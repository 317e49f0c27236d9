/* SPDX-License-Identifier: Apache-2.0 */
/* The op in which workers spend their time, bit for bit as it is built in as ref. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

PST_KERNEL_IMAGE(gemm, "gemm", pst_ref_f32_gemm);
