# SPDX-License-Identifier: Apache-2.0
kernels-y := \
	kernels/agree.c \
	kernels/buffer.c \
	kernels/registry.c \
	kernels/speed.c \
	kernels/table.c \
	kernels/trial.c \
	# EOL

ifneq ($(filter x86_64-%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
kernels-y += \
	kernels/cpu/adamw_avx2.c \
	kernels/cpu/attn_avx2.c \
	kernels/cpu/bf16_avx2.c \
	kernels/cpu/gate_avx2.c \
	kernels/cpu/gemm_avx2.c \
	kernels/cpu/gemm_stream_avx2.c \
	kernels/cpu/rmsnorm_avx2.c \
	kernels/cpu/rope_avx2.c \
	kernels/cpu/rows_avx2.c \
	kernels/cpu/sumsq_avx2.c \
	kernels/cpu/swiglu_avx2.c \
	kernels/cpu/xent_avx2.c \
	# EOL
endif

# built twice, for float and for double
kernels-ref := \
	kernels/ref/adamw.c \
	kernels/ref/attn.c \
	kernels/ref/bf16.c \
	kernels/ref/embed.c \
	kernels/ref/gate.c \
	kernels/ref/gemm.c \
	kernels/ref/rmsnorm.c \
	kernels/ref/rope.c \
	kernels/ref/rows.c \
	kernels/ref/sumsq.c \
	kernels/ref/swiglu.c \
	kernels/ref/xent.c \
	# EOL
