# SPDX-License-Identifier: Apache-2.0
#
# The CUDA kernels as C++ for this CPU, under selftests/gpu/emulate.h: how gpu/kernels is built.
# Nothing of C++'s library is used, so the C compiler links. But for the doorbell, which waits for a
# host beside it.
emulated-cuda := $(filter-out kernels/cuda/doorbell.cu,$(kernels-cuda))
emulated-o := $(emulated-cuda:%.cu=$(O)/%.emulated.o) \
	      $(addprefix $(O)/selftests/gpu/,emulate.o emulate_faults.o emulate_table.o)

# what clang checks of calls through pointers in C++ alone, by that library
ifneq ($(findstring undefined,$(SAN)),)
emulate-san := $(if $(findstring clang,$(shell $(CC) --version 2>/dev/null)),-fno-sanitize=function)
endif
emulate = $(Q)$(CC) $(cppflags) $(filter-out -std=%,$(cflags)) -x c++ -std=gnu++17 -fno-exceptions \
	  -fno-rtti -Wno-unknown-pragmas $(emulate-san) -MMD -MP -c -o $@
$(O)/%.emulated.o: %.cu selftests/gpu/emulate.h $(O)/flags
	@mkdir -p $(@D)
	@echo '  CC	$*.emulated.o'
	$(emulate) -include selftests/gpu/emulate.h $<
$(O)/selftests/gpu/%.o: selftests/gpu/%.cc $(O)/flags
	@mkdir -p $(@D)
	@echo '  CC	selftests/gpu/$*.o'
	$(emulate) $<
$(O)/selftests/gpu/kernels: $(emulated-o)

# libcuda.so.1 of the stand-in that launches them, for gpu-check and gpu-bench without a GPU.
emulated-cuda-o := $(selftests-cuda-emulated-y:%.c=$(O)/%.o) \
		   $(filter-out %/emulate_faults.o,$(emulated-o)) $(O)/kernels/cuda/cuda.o
$(O)/selftests/gpu/emulated/libcuda.so.1: $(emulated-cuda-o)
	@mkdir -p $(@D)
	@echo '  LD	selftests/gpu/emulated/libcuda.so.1'
	$(Q)$(CC) $(cflags) $(ldflags) -shared -Wl,-soname,$(@F) -o $@ $^ -lm

$(O)/selftests/gpu/bench: | $(O)/selftests/bench/gpu-bench
$(O)/selftests/gpu/check: | $(O)/selftests/gpu/gpu-check
$(addprefix $(O)/selftests/gpu/,bench check): | $(O)/selftests/gpu/emulated/libcuda.so.1

-include $(emulated-o:.o=.d) $(O)/selftests/gpu/libcuda_emulated.d
