# SPDX-License-Identifier: Apache-2.0
# Programs: each is built from the sources in its own list.
tools-programs := \
	examples/train \
	penstock \
	penstock-perf \
	penstockctl \
	# EOL

# linked with libpenstock.a: what measures the leaves uses more of them than penstock.h shows
tools-static := \
	penstock-perf \
	# EOL

examples/train-y := \
	tools/examples/train.c \
	# EOL
# an example includes <penstock.h>, as every user of the installed library does
$(O)/tools/examples/train.o: cppflags += -Iruntime

penstock-y := \
	tools/generate.c \
	tools/inspect.c \
	tools/options.c \
	tools/peers.c \
	tools/penstock.c \
	tools/train.c \
	tools/view.c \
	# EOL

penstock-perf-y := \
	tools/options.c \
	tools/perf/bandwidth.c \
	tools/perf/client.c \
	tools/perf/clock.c \
	tools/perf/compare.c \
	tools/perf/crew.c \
	tools/perf/doctor.c \
	tools/perf/doctor_host.c \
	tools/perf/doctor_memory.c \
	tools/perf/doctor_path.c \
	tools/perf/doctor_pci.c \
	tools/perf/doctor_rdma.c \
	tools/perf/doctor_read.c \
	tools/perf/doorbell.c \
	tools/perf/doorbell_image.c \
	tools/perf/flood.c \
	tools/perf/gpu.c \
	tools/perf/h2d.c \
	tools/perf/histogram.c \
	tools/perf/incast.c \
	tools/perf/json.c \
	tools/perf/latency.c \
	tools/perf/memory.c \
	tools/perf/perf.c \
	tools/perf/plan.c \
	tools/perf/pull.c \
	tools/perf/push.c \
	tools/perf/register.c \
	tools/perf/report.c \
	tools/perf/route.c \
	tools/perf/self.c \
	tools/perf/serve.c \
	tools/perf/tokens.c \
	# EOL

# the kernel of doorbell, where there is nvcc (kernels/sources.mk)
ifneq ($(nvcc),)
perf-doorbell := $(CUDA_O)/kernels/cuda/doorbell.fatbin
$(O)/tools/perf/doorbell_image.o: cppflags += -DPERF_DOORBELL_FATBIN='"$(perf-doorbell)"'
$(O)/tools/perf/doorbell_image.o: $(perf-doorbell)
endif
# without nvcc it is gone
$(O)/tools/perf/doorbell_image.o: $(O)/nvcc

penstockctl-y := \
	tools/ctl/call.c \
	tools/ctl/cell.c \
	tools/ctl/devices.c \
	tools/ctl/events.c \
	tools/ctl/experts.c \
	tools/ctl/info.c \
	tools/ctl/kernels.c \
	tools/ctl/main.c \
	tools/ctl/pools.c \
	tools/ctl/power.c \
	tools/ctl/print.c \
	tools/ctl/screen.c \
	tools/ctl/tables.c \
	tools/ctl/text.c \
	tools/ctl/top.c \
	tools/ctl/top_rows.c \
	tools/ctl/top_view.c \
	tools/ctl/words.c \
	tools/ctl/workers.c \
	tools/options.c \
	# EOL
