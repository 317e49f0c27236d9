# SPDX-License-Identifier: Apache-2.0
# Programs: selftests/AREA/NAME.c becomes $(O)/selftests/AREA/NAME.
selftests-programs := \
	device/device \
	device/mlp \
	io/checkpoint \
	io/file \
	io/loader \
	io/safetensors \
	kernels/agree \
	kernels/attn \
	kernels/gemm \
	kernels/grad \
	kernels/ops \
	mem/admit \
	mem/cache \
	mem/pool \
	mem/tlsf \
	model/config \
	model/golden \
	model/model \
	model/params \
	rdma/shm \
	rdma/shm_death \
	rdma/shm_hostile \
	rdma/shm_setup \
	rdma/shm_sleep \
	# EOL

# benchmarks, built as the tests are and run by make bench
selftests-benches := \
	bench/gemm \
	bench/loader \
	bench/pool \
	bench/shm \
	# EOL

# what bench/pool compares itself with, where it can be built
ifneq ($(shell pkg-config --exists libdpdk 2>/dev/null && echo yes),)
selftests-benches += bench/mempool_dpdk
$(O)/selftests/bench/mempool_dpdk.o: cflags += $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk))
$(O)/selftests/bench/mempool_dpdk: ldlibs += $(shell pkg-config --libs libdpdk)
endif

# linked into every test
selftests-lib := \
	selftests/lib/test.c \
	# EOL

# left out of make quick: what takes more than a few seconds
selftests-slow := \
	rdma/shm_sleep \
	# EOL

# run once more under the thread sanitizer: programs with threads
selftests-tsan := \
	device/device \
	device/mlp \
	io/loader \
	mem/cache \
	model/model \
	rdma/shm \
	rdma/shm_death \
	rdma/shm_sleep \
	# EOL

# selftests/fuzz/NAME.c with LLVMFuzzerTestOneInput(), seeds in selftests/fuzz/corpus/NAME/
selftests-fuzz := \
	checkpoint \
	config \
	safetensors \
	shm \
	# EOL

# KTAP scripts selftests/AREA/NAME.sh; O is the build folder, the top of the tree is where they run
selftests-scripts := \
	tree/arrows.sh \
	tree/build.sh \
	tree/files.sh \
	tree/headers.sh \
	tree/install.sh \
	tree/man.sh \
	tree/runner.sh \
	# EOL

# AREA/NAME-y: what a program is linked with besides; here the routed experts in the test's process
model/golden-y := \
	selftests/model/moe_local.c \
	# EOL
model/model-y := \
	selftests/model/moe_local.c \
	# EOL
