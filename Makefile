# SPDX-License-Identifier: Apache-2.0
#
# make            build everything into $(O) (default build/)
# make run        install what is missing, build, train a model and let it write
# make check      install what is missing, build, run every test
# make help       the other targets

O ?= build
CC ?= gcc
SAN ?=

srcdir := $(CURDIR)
include kernels/sources.mk
include rdma/sources.mk
include runtime/sources.mk
include tools/sources.mk
include selftests/sources.mk

CPPFLAGS += -I. -Iuapi -D_GNU_SOURCE
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -pthread \
	  -ffp-contract=off -fno-math-errno
ifneq ($(SAN),)
CFLAGS += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
endif
LDLIBS += -ljansson -lnuma -luring -lz -llzma -lm -pthread

# An object per source; ref kernels are built for float and for double.
ref-o := $(foreach f,$(kernels-ref:.c=),$(O)/$(f).f32.o $(O)/$(f).f64.o)
kernels-o := $(kernels-y:%.c=$(O)/%.o) $(ref-o)
rdma-o := $(rdma-y:%.c=$(O)/%.o)
runtime-o := $(runtime-y:%.c=$(O)/%.o)
lib-o := $(kernels-o) $(rdma-o) $(runtime-o)
lib := $(O)/libpenstock.a
programs := $(tools-programs:%=$(O)/%)
tests := $(selftests-programs:%=$(O)/selftests/%)

all: $(programs)
tests: $(tests)

$(lib): $(lib-o)
	@rm -f $@
	$(AR) rcs $@ $^

$(O)/%.f32.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DPST_REAL_FLOAT -MMD -MP -c -o $@ $<
$(O)/%.f64.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DPST_REAL_DOUBLE -MMD -MP -c -o $@ $<
$(O)/%_avx2.o: %_avx2.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -mavx2 -mfma -MMD -MP -c -o $@ $<
$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# A test is one source beside the harness; it sees the library's inside.
$(O)/selftests/%: $(O)/selftests/%.o $(O)/selftests/lib/test.o $(lib)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

clean:
	rm -rf $(O)

-include $(shell find $(O) -name '*.d' 2>/dev/null)
.PHONY: all tests clean
.SECONDARY:
