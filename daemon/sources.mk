# SPDX-License-Identifier: Apache-2.0
# Programs: each is built from the sources in its own list.
daemon-programs := \
	penstock-keeper \
	penstock-pool \
	penstock-ps \
	penstock-trial \
	penstock-worker \
	penstockd \
	# EOL

# linked with libpenstock.a: what owns pools and tries kernels uses more than penstock.h shows
daemon-static := \
	penstock-pool \
	penstock-trial \
	penstockd \
	# EOL

penstockd-y := \
	daemon/children/child.c \
	daemon/children/child_heard.c \
	daemon/children/child_keep.c \
	daemon/children/child_orders.c \
	daemon/children/child_tell.c \
	daemon/children/children.c \
	daemon/children/experts.c \
	daemon/children/leash.c \
	daemon/children/tables.c \
	daemon/config.c \
	daemon/config_value.c \
	daemon/control/command.c \
	daemon/control/device.c \
	daemon/control/door.c \
	daemon/control/events.c \
	daemon/control/expert.c \
	daemon/control/info.c \
	daemon/control/kernel.c \
	daemon/control/listen.c \
	daemon/control/pool.c \
	daemon/control/server.c \
	daemon/control/session.c \
	daemon/control/table.c \
	daemon/control/why.c \
	daemon/control/worker.c \
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
	daemon/jobs.c \
	daemon/keep/keep.c \
	daemon/keep/keep_index.c \
	daemon/keep/keep_keeper.c \
	daemon/keep/keep_systemd.c \
	daemon/kernels/kernel_bind.c \
	daemon/kernels/kernel_check.c \
	daemon/kernels/kernel_keep.c \
	daemon/kernels/kernel_load.c \
	daemon/kernels/kernels.c \
	daemon/kernels/manifest.c \
	daemon/kernels/trial.c \
	daemon/log.c \
	daemon/loop.c \
	daemon/metrics/families.c \
	daemon/metrics/http.c \
	daemon/metrics/text.c \
	daemon/notify.c \
	daemon/parts.c \
	daemon/penstockd.c \
	daemon/pools/pool_ask.c \
	daemon/pools/pool_memory.c \
	daemon/pools/pool_module.c \
	daemon/pools/pools.c \
	daemon/pools/pools_kept.c \
	daemon/pools/pools_look.c \
	daemon/pools/pools_make.c \
	daemon/spawn.c \
	# EOL
$(O)/penstockd: private ldlibs += -linih -lmicrohttpd

penstock-keeper-y := \
	daemon/keep/penstock-keeper.c \
	# EOL

penstock-pool-y := \
	daemon/pools/penstock-pool.c \
	daemon/pools/pool_memory.c \
	daemon/pools/pool_module.c \
	# EOL

penstock-ps-y := \
	daemon/children/leash.c \
	daemon/children/leashed.c \
	daemon/penstock-ps.c \
	daemon/serve.c \
	# EOL

penstock-trial-y := \
	daemon/kernels/manifest.c \
	daemon/kernels/penstock-trial.c \
	# EOL

penstock-worker-y := \
	daemon/children/leash.c \
	daemon/children/leashed.c \
	daemon/penstock-worker.c \
	daemon/serve.c \
	# EOL
