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
	moe/death \
	moe/engine \
	moe/hostile \
	rdma/shm \
	rdma/shm_death \
	rdma/shm_hostile \
	rdma/shm_setup \
	rdma/shm_sleep \
	store/ckptdir \
	store/files \
	store/protocol \
	store/server \
	store/shard \
	store/torn \
	tools/bad_checkpoint \
	tools/bad_config \
	tools/bad_options \
	tools/generate \
	tools/json \
	tools/limits \
	train/crash \
	train/digest \
	train/golden \
	train/kill \
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

# and as scripts
selftests-bench-scripts := \
	bench/train.sh \
	# EOL

# linked into every test
selftests-lib := \
	selftests/lib/test.c \
	# EOL

# left out of make quick: what takes more than a few seconds
selftests-slow := \
	rdma/shm_sleep \
	tools/bad_checkpoint \
	tools/generate \
	tools/limits \
	train/crash \
	train/digest \
	train/kill \
	tree/readme.sh \
	# EOL

# run once more under the thread sanitizer: programs with threads
selftests-tsan := \
	device/device \
	device/mlp \
	io/loader \
	mem/cache \
	model/model \
	moe/death \
	moe/engine \
	moe/hostile \
	rdma/shm \
	rdma/shm_death \
	rdma/shm_sleep \
	store/files \
	store/protocol \
	store/server \
	store/torn \
	train/digest \
	train/golden \
	# EOL

# selftests/fuzz/NAME.c with LLVMFuzzerTestOneInput(), seeds in selftests/fuzz/corpus/NAME/
selftests-fuzz := \
	checkpoint \
	config \
	safetensors \
	shm \
	wire \
	# EOL

# KTAP scripts selftests/AREA/NAME.sh; O is the build folder, the top of the tree is where they run
selftests-scripts := \
	tree/arrows.sh \
	tree/build.sh \
	tree/files.sh \
	tree/headers.sh \
	tree/install.sh \
	tree/man.sh \
	tree/readme.sh \
	tree/runner.sh \
	tree/tour.sh \
	# EOL

# AREA/NAME-y: what a program is linked with besides; here the routed experts in the test's process
model/golden-y := \
	selftests/model/moe_local.c \
	# EOL
model/model-y := \
	selftests/model/moe_local.c \
	# EOL

# what runs the programs of this build, which are built before it
selftests-user-programs := \
	tools/bad_checkpoint \
	tools/bad_config \
	tools/bad_options \
	tools/generate \
	tools/json \
	tools/limits \
	train/crash \
	train/digest \
	train/kill \
	# EOL
selftests-user-y := \
	selftests/tools/program.c \
	# EOL
$(foreach t,$(selftests-user-programs),$(eval $(t)-y := $(selftests-user-y)))
$(selftests-user-programs:%=$(O)/selftests/%): | $(O)/penstock $(O)/penstock-ps $(O)/penstock-worker
