# SPDX-License-Identifier: Apache-2.0
kernels-y := \
	kernels/agree.c \
	kernels/buffer.c \
	kernels/cuda/cuda.c \
	kernels/cuda/driver.c \
	kernels/cuda/image.c \
	kernels/quant.c \
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

# built by nvcc, for all targets at once, into images that the library embeds
kernels-cuda := \
	kernels/cuda/adamw.cu \
	kernels/cuda/attn.cu \
	kernels/cuda/attn_heads.cu \
	kernels/cuda/attn_heads_bwd.cu \
	kernels/cuda/bf16.cu \
	kernels/cuda/doorbell.cu \
	kernels/cuda/experts.cu \
	kernels/cuda/experts_quant.cu \
	kernels/cuda/gate.cu \
	kernels/cuda/gemm.cu \
	kernels/cuda/heads.cu \
	kernels/cuda/mla.cu \
	kernels/cuda/quant.cu \
	kernels/cuda/rmsnorm.cu \
	kernels/cuda/rope.cu \
	kernels/cuda/rows.cu \
	kernels/cuda/sumsq.cu \
	kernels/cuda/swiglu.cu \
	kernels/cuda/xent.cu \
	# EOL

# NVCC=... names it; NVCC= leaves it out. CUDA_O: builds that differ in the C compiler only may
# share one folder of images.
NVCC ?= $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
CUDA_O ?= $(O)
nvcc := $(NVCC)
fatbins :=
ifneq ($(nvcc),)
fatbins := $(kernels-cuda:%.cu=$(CUDA_O)/%.fatbin)
$(O)/kernels/cuda/image.o: cppflags += -DPST_CUDA_FATBINS='"$(CUDA_O)/kernels/cuda"'
$(O)/kernels/cuda/image.o: $(fatbins)
$(fatbins): $(CUDA_O)/%.fatbin: %.cu kernels/cuda/nvcc.sh $(filter /%,$(nvcc))
	@mkdir -p $(@D)
	@echo '  NVCC	$*.fatbin'
	@kernels/cuda/nvcc.sh $(nvcc) $< $@
-include $(fatbins:=.d)
endif
# without nvcc the images are gone
ifneq ($(file <$(O)/nvcc),$(nvcc))
$(O)/nvcc: FORCE
endif
$(O)/nvcc:
	@mkdir -p $(@D)
	@printf '%s' '$(nvcc)' >$@
$(O)/kernels/cuda/image.o: $(O)/nvcc
