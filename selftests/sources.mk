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
	moe/far \
	moe/hostile \
	rdma/cause \
	rdma/causes \
	rdma/crc32c \
	rdma/fabric \
	rdma/fabric_death \
	rdma/handshake \
	rdma/kills \
	rdma/secret \
	rdma/settings \
	rdma/shm \
	rdma/shm_hostile \
	rdma/shm_setup \
	rdma/shm_sleep \
	rdma/tcp \
	rdma/tcp_hostile \
	rdma/tcp_setup \
	rdma/url \
	rdma/verbs_none \
	store/ckptdir \
	store/files \
	store/inbox \
	store/protocol \
	store/pull \
	store/push \
	store/server \
	store/shard \
	store/torn \
	tools/bad_checkpoint \
	tools/bad_config \
	tools/bad_options \
	tools/doctor \
	tools/generate \
	tools/json \
	tools/limits \
	tools/perf \
	tools/perf_compare \
	tools/perf_histogram \
	tools/perf_server \
	train/crash \
	train/digest \
	train/golden \
	train/hosts \
	train/kill \
	train/where \
	# EOL

# programs that need what only a virtual machine has here; selftests/vm/run gives them one
selftests-vm := \
	vm/guest \
	vm/numa \
	vm/nvme \
	# EOL
ifneq ($(rdma-has-verbs),)
selftests-vm += \
	rdma/verbs \
	rdma/verbs_causes \
	rdma/verbs_death \
	rdma/verbs_fabric \
	rdma/verbs_hostile \
	rdma/verbs_kills \
	# EOL
# whose hostile peer is made of the libraries alone
$(O)/selftests/rdma/verbs_hostile: ldlibs += -lrdmacm -libverbs
endif

# and scripts
selftests-vm-scripts := \
	train/netns.sh \
	train/verbs.sh \
	# EOL

# what such a machine begins with
selftests-guest := \
	selftests/vm/guest.sh \
	selftests/vm/init.c \
	selftests/vm/tsc.c \
	# EOL

# benchmarks, built as the tests are and run by make bench
selftests-benches := \
	bench/gemm \
	bench/limits \
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
	bench/fabric.sh \
	bench/train.sh \
	bench/verbs.sh \
	# EOL

# linked into every test
selftests-lib := \
	selftests/lib/test.c \
	# EOL

# left out of make quick: what takes more than a few seconds
selftests-slow := \
	rdma/kills \
	rdma/shm_sleep \
	rdma/tcp \
	tools/bad_checkpoint \
	tools/generate \
	tools/limits \
	tools/perf \
	tools/perf_server \
	train/crash \
	train/digest \
	train/hosts \
	train/kill \
	train/netns.sh \
	tree/readme.sh \
	vm/run.sh \
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
	moe/far \
	moe/hostile \
	rdma/fabric \
	rdma/fabric_death \
	rdma/kills \
	rdma/shm \
	rdma/shm_sleep \
	rdma/tcp \
	rdma/tcp_hostile \
	rdma/tcp_setup \
	store/files \
	store/inbox \
	store/protocol \
	store/pull \
	store/push \
	store/server \
	store/torn \
	train/digest \
	train/golden \
	# EOL

# selftests/fuzz/NAME.c with LLVMFuzzerTestOneInput(), seeds in selftests/fuzz/corpus/NAME/
selftests-fuzz := \
	checkpoint \
	config \
	handshake \
	safetensors \
	shm \
	tcp \
	url \
	wire \
	# EOL

# KTAP scripts selftests/AREA/NAME.sh; O is the build folder, the top of the tree is where they run
selftests-scripts := \
	train/netns.sh \
	tree/arrows.sh \
	tree/build.sh \
	tree/causes.sh \
	tree/files.sh \
	tree/headers.sh \
	tree/install.sh \
	tree/man.sh \
	tree/readme.sh \
	tree/runner.sh \
	tree/tour.sh \
	vm/run.sh \
	# EOL

# AREA/NAME-y: what a program is linked with besides; here the routed experts in the test's process
model/golden-y := \
	selftests/model/moe_local.c \
	# EOL
model/model-y := \
	selftests/model/moe_local.c \
	# EOL

# parts of programs that are tested or used alone
bench/limits-y := \
	tools/perf/clock.c \
	tools/perf/histogram.c \
	# EOL
bench/shm-y := \
	tools/perf/clock.c \
	tools/perf/histogram.c \
	# EOL
tools/perf_histogram-y := \
	tools/perf/histogram.c \
	# EOL

# the checks of penstock-perf doctor, over made-up machines
tools/doctor-y := \
	tools/options.c \
	tools/perf/doctor.c \
	tools/perf/doctor_host.c \
	tools/perf/doctor_memory.c \
	tools/perf/doctor_path.c \
	tools/perf/doctor_pci.c \
	tools/perf/doctor_rdma.c \
	tools/perf/doctor_read.c \
	# EOL

# what runs the programs of this build, which are built before it
selftests-user-programs := \
	tools/bad_checkpoint \
	tools/bad_config \
	tools/bad_options \
	tools/generate \
	tools/json \
	tools/limits \
	tools/perf \
	tools/perf_compare \
	tools/perf_server \
	train/crash \
	train/digest \
	train/hosts \
	train/kill \
	# EOL
selftests-user-y := \
	selftests/tools/program.c \
	# EOL
$(foreach t,$(selftests-user-programs),$(eval $(t)-y := $(selftests-user-y)))
$(selftests-user-programs:%=$(O)/selftests/%): | $(O)/penstock $(O)/penstock-perf $(O)/penstock-ps $(O)/penstock-worker
