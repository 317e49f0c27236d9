# SPDX-License-Identifier: Apache-2.0
# Programs: each is built from the sources in its own list.
tools-programs := \
	examples/train \
	penstock \
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
	tools/penstock.c \
	tools/train.c \
	tools/view.c \
	# EOL
