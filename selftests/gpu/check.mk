# SPDX-License-Identifier: Apache-2.0
#
# gpu-check: the tests of gpu/kernels on a GPU. No C++, and of the tree the kernels alone.
gpu-kernels-o := $(kernels-y:%.c=$(O)/%.o) \
		 $(foreach f,$(kernels-ref:.c=),$(O)/$(f).f32.o $(O)/$(f).f64.o)
gpu-check-o := $(patsubst %.c,$(O)/%.o,$(selftests-lib) selftests/gpu/kernels.c \
	       $(filter-out selftests/gpu/kernels_emulation.c,$(gpu/kernels-y)) \
	       $(selftests-gpu-check-y))

# what a test allocates and maps, the GPU has to reach
gpu-wrapped := test_main malloc calloc free posix_memalign aligned_alloc mmap munmap mprotect
$(O)/selftests/gpu/gpu-check: $(gpu-check-o) $(gpu-kernels-o)
	@echo '  LD	selftests/gpu/gpu-check'
	$(Q)$(CC) $(cflags) $(ldflags) $(gpu-wrapped:%=-Wl,--wrap=%) -o $@ $^ -lm

-include $(gpu-check-o:.o=.d)

# gpu-bench: how fast they are there.
gpu-bench-o := $(selftests-gpu-bench-y:%.c=$(O)/%.o)
$(O)/selftests/bench/gpu-bench: $(gpu-bench-o) $(gpu-kernels-o)
	@echo '  LD	selftests/bench/gpu-bench'
	$(Q)$(CC) $(cflags) $(ldflags) -o $@ $^ -lm

-include $(gpu-bench-o:.o=.d)
