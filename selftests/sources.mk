# SPDX-License-Identifier: Apache-2.0
# Programs: selftests/AREA/NAME.c becomes $(O)/selftests/AREA/NAME.
selftests-programs := \
	control/children \
	control/command \
	control/config \
	control/devices \
	control/door \
	control/events \
	control/gpu_door \
	control/gpus \
	control/keep \
	control/kernels \
	control/layout \
	control/leash \
	control/metrics \
	control/nth \
	control/pools \
	control/session \
	control/start \
	control/swap \
	control/workers \
	device/device \
	device/mlp \
	gpu/device \
	gpu/device_fails \
	gpu/device_nth \
	gpu/driver \
	gpu/engine \
	gpu/engine_model \
	gpu/launch \
	gpu/mlp \
	gpu/quant \
	io/checkpoint \
	io/file \
	io/loader \
	io/safetensors \
	kernels/agree \
	kernels/attn \
	kernels/gemm \
	kernels/grad \
	kernels/ops \
	kernels/quant \
	mem/admit \
	mem/cache \
	mem/pool \
	mem/tlsf \
	model/config \
	model/golden \
	model/model \
	model/params \
	moe/bind \
	moe/death \
	moe/drain \
	moe/engine \
	moe/experts \
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
	store/server_stat \
	store/shard \
	store/torn \
	tools/bad_checkpoint \
	tools/bad_config \
	tools/bad_options \
	tools/ctl \
	tools/ctl_top \
	tools/doctor \
	tools/generate \
	tools/json \
	tools/limits \
	tools/perf \
	tools/perf_compare \
	tools/perf_gpu \
	tools/perf_histogram \
	tools/perf_server \
	train/crash \
	train/daemon \
	train/digest \
	train/golden \
	train/gpu \
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

# programs that a script of such a machine runs, when it has loaded the module for them
selftests-module := \
	control/command \
	control/module \
	control/module_devices \
	control/module_limits \
	# EOL

# what loads the module (Kbuild): imports its pools, as devices do
selftests-kmod := \
	selftests/control/importer.c \
	# EOL

# what is run by hand: make vm-debug-kernel
selftests-by-hand := \
	selftests/vm/debug-kernel.sh \
	# EOL

# and scripts
selftests-vm-scripts := \
	control/module.sh \
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
	control/gpus \
	control/keep \
	control/kernels \
	control/leash \
	control/nth \
	control/pools \
	control/train.sh \
	gpu/bench \
	gpu/check \
	gpu/device_nth \
	gpu/kernels \
	gpu/kernels_nvcc.sh \
	moe/death \
	moe/drain \
	rdma/kills \
	rdma/shm_sleep \
	rdma/tcp \
	tools/bad_checkpoint \
	tools/completion.sh \
	tools/generate \
	tools/limits \
	tools/perf \
	tools/perf_gpu \
	tools/perf_server \
	train/crash \
	train/daemon \
	train/digest \
	train/gpu \
	train/hosts \
	train/kill \
	train/netns.sh \
	tree/build.sh \
	tree/kmod.sh \
	tree/readme.sh \
	tree/runner.sh \
	vm/run.sh \
	# EOL

# and of these, what takes a minute
selftests-slowest := \
	gpu/kernels \
	rdma/tcp \
	train/kill \
	tree/kmod.sh \
	vm/run.sh \
	# EOL

# run once more under the thread sanitizer: programs with threads
selftests-tsan := \
	control/gpus \
	control/keep \
	control/leash \
	control/pools \
	control/swap \
	device/device \
	device/mlp \
	gpu/device \
	gpu/device_fails \
	gpu/driver \
	gpu/launch \
	gpu/mlp \
	io/loader \
	mem/cache \
	model/model \
	moe/bind \
	moe/death \
	moe/drain \
	moe/engine \
	moe/experts \
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
	store/server_stat \
	store/torn \
	tools/ctl \
	tools/ctl_top \
	train/digest \
	train/golden \
	# EOL

# selftests/fuzz/NAME.c with LLVMFuzzerTestOneInput(), seeds in selftests/fuzz/corpus/NAME/
selftests-fuzz := \
	checkpoint \
	conf \
	config \
	door \
	handshake \
	leash \
	manifest \
	safetensors \
	shm \
	tcp \
	url \
	wire \
	# EOL

# what address and undefined do not watch in make check: an emulation with guards of its own, what runs
# under the thread sanitizer, too, and what starts the programs of train/kill a hundred times more
selftests-unwatched := \
	gpu/bench \
	gpu/check \
	gpu/kernels \
	train/crash \
	train/digest \
	train/hosts \
	# EOL

# KTAP scripts selftests/AREA/NAME.sh; O is the build folder, the top of the tree is where they run
selftests-scripts := \
	control/train.sh \
	gpu/kernels_nvcc.sh \
	tools/completion.sh \
	train/netns.sh \
	tree/arrows.sh \
	tree/build.sh \
	tree/causes.sh \
	tree/files.sh \
	tree/headers.sh \
	tree/install.sh \
	tree/kmod.sh \
	tree/man.sh \
	tree/readme.sh \
	tree/runner.sh \
	tree/tour.sh \
	vm/run.sh \
	# EOL

# the module's door in a few words
control/module-y := \
	selftests/control/mapped.c \
	# EOL
control/module_devices-y := \
	selftests/control/mapped.c \
	# EOL
control/module_limits-y := \
	selftests/control/mapped.c \
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

standins := $(addprefix $(O)/selftests/gpu/,libcuda.so.1 libnvidia-ml.so.1 old/libnvidia-ml.so.1)

# devices over made-up machines, without the daemon's door
selftests-devices-y := \
	daemon/devices/device_cpu.c \
	daemon/devices/device_cpu_power.c \
	daemon/devices/device_gpu.c \
	daemon/devices/device_gpu_thread.c \
	daemon/devices/device_nvml.c \
	daemon/devices/device_read.c \
	daemon/devices/device_xid.c \
	daemon/devices/devices.c \
	daemon/devices/nvml.c \
	daemon/events.c \
	daemon/keep/keep.c \
	daemon/keep/keep_index.c \
	daemon/keep/keep_keeper.c \
	daemon/keep/keep_systemd.c \
	daemon/log.c \
	daemon/loop.c \
	daemon/notify.c \
	# EOL
control/devices-y := $(selftests-devices-y)
control/gpu_door-y := selftests/gpu/standin.c
control/gpus-y := $(selftests-devices-y) selftests/gpu/standin.c
$(O)/selftests/control/devices: | $(O)/penstock-keeper
gpu/device-y := selftests/gpu/standin.c
gpu/device_fails-y := selftests/gpu/standin.c
gpu/device_nth-y := selftests/gpu/standin.c
gpu/driver-y := selftests/gpu/standin.c
gpu/engine-y := selftests/gpu/standin.c
gpu/engine_model-y := selftests/gpu/standin.c selftests/model/moe_local.c
gpu/launch-y := selftests/gpu/standin.c
gpu/mlp-y := selftests/gpu/standin.c
gpu/quant-y := selftests/gpu/standin.c
$(addprefix $(O)/selftests/gpu/,device device_fails device_nth driver engine engine_model launch mlp quant): | $(standins)
$(O)/selftests/control/gpu_door: | $(standins)
$(O)/selftests/control/gpus: | $(O)/penstock-keeper $(standins)

# the CUDA kernels on the CPU, where the compiler knows C++
gpu/kernels-y := \
	selftests/gpu/kernels_attn.c \
	selftests/gpu/kernels_emulation.c \
	selftests/gpu/kernels_engine.c \
	selftests/gpu/kernels_experts.c \
	selftests/gpu/kernels_gemm.c \
	selftests/gpu/kernels_ops.c \
	selftests/gpu/kernels_quant.c \
	selftests/gpu/kernels_quant_glue.c \
	selftests/gpu/libcuda_attn.c \
	# EOL
# libcuda.so.1 of the stand-in whose launches run them; needs what gpu/kernels needs
selftests-cuda-emulated-y := \
	selftests/gpu/libcuda.c \
	selftests/gpu/libcuda_emulated.c \
	selftests/gpu/libcuda_graph.c \
	selftests/gpu/libcuda_memory.c \
	selftests/gpu/libcuda_module.c \
	selftests/gpu/libcuda_stream.c \
	selftests/gpu/standin.c \
	# EOL
gpu/bench-y := selftests/gpu/standin.c
gpu/check-y := selftests/gpu/standin.c
ifneq ($(shell echo 'int x;' | $(CC) -x c++ -fsyntax-only - 2>/dev/null && echo yes),)
selftests-programs += gpu/bench gpu/check gpu/kernels
include selftests/gpu/kernels.mk
endif

# make -C kernels gpu-check: beside the tests of gpu/kernels
selftests-gpu-check-y := \
	selftests/gpu/check_call.c \
	selftests/gpu/check_gpu.c \
	selftests/gpu/check_launch.c \
	selftests/gpu/check_main.c \
	selftests/gpu/check_memory.c \
	# EOL
selftests-gpu-scripts := \
	gpu/check.sh \
	# EOL
# make -C kernels gpu-bench
selftests-gpu-bench-y := \
	selftests/bench/gpu.c \
	selftests/bench/gpu_clocks.c \
	selftests/bench/gpu_cublas.c \
	selftests/bench/gpu_dense.c \
	selftests/bench/gpu_experts.c \
	selftests/bench/gpu_peers.c \
	selftests/bench/gpu_rows.c \
	selftests/bench/gpu_time.c \
	selftests/gpu/check_gpu.c \
	# EOL
include selftests/gpu/check.mk

# NVIDIA's driver without one, for LD_LIBRARY_PATH; in old/ one that lacks what is optional
selftests-cuda-y := \
	selftests/gpu/libcuda.c \
	selftests/gpu/libcuda_attn.c \
	selftests/gpu/libcuda_engine.c \
	selftests/gpu/libcuda_experts.c \
	selftests/gpu/libcuda_graph.c \
	selftests/gpu/libcuda_memory.c \
	selftests/gpu/libcuda_module.c \
	selftests/gpu/libcuda_op.c \
	selftests/gpu/libcuda_quant.c \
	selftests/gpu/libcuda_stream.c \
	selftests/gpu/standin.c \
	# EOL
selftests-nvml-y := \
	selftests/gpu/libnvidia-ml.c \
	selftests/gpu/standin.c \
	# EOL
selftests-nvml-old-y := \
	selftests/gpu/libnvidia-ml_old.c \
	selftests/gpu/standin.c \
	# EOL

# what outlives the daemon, without one
control/keep-y := \
	daemon/keep/keep.c \
	daemon/keep/keep_index.c \
	daemon/keep/keep_keeper.c \
	daemon/keep/keep_systemd.c \
	daemon/log.c \
	daemon/loop.c \
	daemon/notify.c \
	# EOL
$(O)/selftests/control/keep: | $(O)/penstock-keeper

# kernel images, good ones and bad ones
selftests-images := \
	selftests/control/images/abi.c \
	selftests/control/images/bare.c \
	selftests/control/images/beyond.c \
	selftests/control/images/crash.c \
	selftests/control/images/exits.c \
	selftests/control/images/gemm.c \
	selftests/control/images/good.c \
	selftests/control/images/hang.c \
	selftests/control/images/late_crash.c \
	selftests/control/images/late_hang.c \
	selftests/control/images/late_wrong.c \
	selftests/control/images/slow.c \
	selftests/control/images/stray_read.c \
	selftests/control/images/stray_write.c \
	selftests/control/images/twin.c \
	selftests/control/images/ulp.c \
	selftests/control/images/unbound.c \
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
	tools/perf_gpu \
	tools/perf_server \
	train/crash \
	train/daemon \
	train/digest \
	train/gpu \
	train/hosts \
	train/kill \
	# EOL
selftests-user-y := \
	selftests/tools/program.c \
	# EOL
$(foreach t,$(selftests-user-programs),$(eval $(t)-y := $(selftests-user-y)))
tools/perf_gpu-y += selftests/gpu/standin.c
$(O)/selftests/tools/perf_gpu: | $(standins)
train/gpu-y += selftests/gpu/standin.c
$(O)/selftests/train/gpu: | $(standins)
$(selftests-user-programs:%=$(O)/selftests/%): | $(O)/penstock $(O)/penstock-perf $(O)/penstock-ps $(O)/penstock-worker

# parts of penstockd by themselves
control/config-y := \
	daemon/config.c \
	daemon/config_value.c \
	# EOL
$(O)/selftests/control/config: private ldlibs += -linih
control/events-y := \
	daemon/events.c \
	daemon/log.c \
	daemon/loop.c \
	# EOL

# all of it but main, with a malloc that fails
control/nth-y := $(filter-out daemon/penstockd.c,$(penstockd-y)) selftests/control/table.c
$(O)/selftests/control/nth: private ldlibs += -linih -lmicrohttpd
$(O)/selftests/control/nth: private ldflags += $(foreach f,aligned_alloc calloc malloc realloc strdup,-Wl,--wrap=$f)
$(O)/selftests/control/nth: | $(daemon-programs:%=$(O)/%)
control/session-y := \
	daemon/control/command.c \
	daemon/control/session.c \
	daemon/log.c \
	daemon/loop.c \
	# EOL
fuzz/conf-y := \
	daemon/config.c \
	daemon/config_value.c \
	# EOL
$(O)/selftests/fuzz/conf: private ldlibs += -linih
fuzz/door-y := \
	daemon/control/command.c \
	# EOL
fuzz/leash-y := \
	daemon/children/experts.c \
	daemon/children/leash.c \
	daemon/children/tables.c \
	# EOL
fuzz/manifest-y := \
	daemon/kernels/manifest.c \
	# EOL

# what every command is held to, at either door
# children without the daemon's door, and with doubles of children, of keep.h and of devices.h
control/children-y := \
	daemon/children/child.c \
	daemon/children/child_heard.c \
	daemon/children/child_keep.c \
	daemon/children/child_orders.c \
	daemon/children/child_tell.c \
	daemon/children/children.c \
	daemon/children/experts.c \
	daemon/children/leash.c \
	daemon/children/tables.c \
	daemon/events.c \
	daemon/log.c \
	daemon/loop.c \
	daemon/spawn.c \
	selftests/control/double.c \
	# EOL
control/leash-y := \
	daemon/children/leash.c \
	daemon/children/leashed.c \
	# EOL

control/command-y := \
	selftests/control/table.c \
	# EOL

# what starts a penstockd of this build
selftests-daemon-programs := \
	control/command \
	control/door \
	control/gpu_door \
	control/kernels \
	control/metrics \
	control/pools \
	control/start \
	control/swap \
	control/workers \
	# EOL
selftests-daemon-y := \
	selftests/control/daemon.c \
	# EOL
$(foreach t,$(selftests-daemon-programs),$(eval $(t)-y += $(selftests-daemon-y)))
$(selftests-daemon-programs:%=$(O)/selftests/%): | $(O)/penstock-keeper $(O)/penstock-pool $(O)/penstockd

$(O)/selftests/control/workers: | $(O)/penstock-ps $(O)/penstock-worker

$(O)/selftests/moe/bind: | $(selftests-images:%.c=$(O)/%.so)
$(O)/selftests/control/kernels $(O)/selftests/control/swap: | $(selftests-images:%.c=$(O)/%.so) $(O)/penstock-trial $(O)/penstock-worker

# penstockctl before doors that answer what the test wants
tools/ctl-y := \
	selftests/control/fakedoor.c \
	selftests/control/fakehost.c \
	selftests/tools/program.c \
	# EOL
tools/ctl_top-y := \
	selftests/control/fakedoor.c \
	selftests/control/fakehost.c \
	# EOL
$(O)/selftests/tools/ctl $(O)/selftests/tools/ctl_top: | $(O)/penstockctl
