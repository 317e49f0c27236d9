# SPDX-License-Identifier: Apache-2.0
#
# Targets:
#	make              build everything into $(O)
#	make run          install what is missing, build, train a model and let it write
#	make quick        build, and run the tests that take a minute together
#	make check        install what is missing, build in every way we have, run every test
#	make vm-check     the tests that need RDMA, two NUMA nodes or an NVMe drive, in a virtual machine
#	make bench        install what is missing, build, measure against limits and peers
#	make soak         kill peers under load for SECONDS=600 over FABRIC=tcp (or shm, verbs)
#	make install      into $(DESTDIR)$(prefix); make uninstall takes it out
#	make modules      build penstock.ko, the optional /dev/penstock: for the running kernel, or for
#	                  that of KDIR=/usr/src/linux-headers-VERSION
#	make modules_install  into $(DESTDIR)/lib/modules, with the rule of who may use it
#	make vm-debug-kernel  test the module in a kernel with KASAN and lockdep, which is built first
#	make clean        remove $(O)
#	make tests        build the test programs; one is $(O)/selftests/AREA/NAME
#	make format-check hold the sources against .clang-format
#
# Variables:
#	O=build           where everything that is built goes, also outside the tree
#	NVCC=nvcc         compiles the CUDA kernels; NVCC= builds without them
#	CC=gcc            the compiler; CFLAGS, CPPFLAGS, LDFLAGS, LDLIBS are added to ours
#	SAN=              sanitizers: address,undefined or thread
#	V=1               show the commands
#	MODEL=tiny STEPS=5000 WORKERS=2 SERVERS=1 DATA=PATHS OUT=$(O)/run
#	                  what make run trains: a preset or a config.json, for how long,
#	                  by whom, on which text (manual pages), into which folder;
#	                  RUN= adds any option of penstock train
#	prefix=/usr/local where make install puts things; DESTDIR= goes before it

O ?= build
# One name for one folder, however it was called: what an object depends on is noted by its name.
override O := $(patsubst $(CURDIR)/%,%,$(abspath $(O)))
ifeq ($(origin CC),default)
CC := gcc
endif
SAN ?=
prefix ?= /usr/local
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
sharedir ?= $(prefix)/share/penstock
unitdir ?= $(prefix)/lib/systemd/system
sysusersdir ?= $(prefix)/lib/sysusers.d
version := 0.1.0
MODEL ?= tiny
STEPS ?= 5000
WORKERS ?= 2
SERVERS ?= 1
DATA ?=
OUT ?= $(O)/run
RUN ?=
SECONDS ?= 600
FABRIC ?= tcp
# As many jobs as there are CPUs, unless make was told.
JOBS ?= $(shell nproc)
ifeq ($(MAKELEVEL)$(filter clean,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(JOBS)
endif
# V=1 shows the commands.
ifeq ($(V),)
Q := @
MAKEFLAGS += --no-print-directory
endif

include kernels/sources.mk
include rdma/sources.mk
include runtime/sources.mk
include daemon/sources.mk
include tools/sources.mk
include selftests/sources.mk

cppflags := -I. -Iuapi -D_GNU_SOURCE $(CPPFLAGS)
CFLAGS ?= -O2 -g
cflags := $(CFLAGS) -std=gnu11 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -pthread \
	  -ffp-contract=off -fno-math-errno
ldflags := $(LDFLAGS) -pthread
ldlibs := -ljansson -luring -lcrypto -lisal -lz -llzma -lm $(LDLIBS)
so-flags := -Wl,-z,defs
ifneq ($(SAN),)
cflags += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
ldflags += -fsanitize=$(SAN)
so-flags := # the sanitizer's symbols come with the program
endif

# An object per source; ref kernels are built for float and for double.
ref-o := $(foreach f,$(kernels-ref:.c=),$(O)/$(f).f32.o $(O)/$(f).f64.o)
lib-o := $(kernels-y:%.c=$(O)/%.o) $(ref-o) $(rdma-y:%.c=$(O)/%.o) $(runtime-y:%.c=$(O)/%.o)
lib := $(O)/libpenstock.a
so := $(O)/libpenstock.so
programs := $(daemon-programs) $(tools-programs)
programs-o := $(foreach p,$(programs),$($(p)-y:%.c=$(O)/%.o))
tests := $(selftests-programs:%=$(O)/selftests/%)
vm-tests := $(selftests-vm:%=$(O)/selftests/%) $(selftests-module:%=$(O)/selftests/%)
benches := $(selftests-benches:%=$(O)/selftests/%)
harness-o := $(selftests-lib:%.c=$(O)/%.o)
fuzzers := $(selftests-fuzz:%=$(O)/selftests/fuzz/%)
standins-o := $(patsubst %.c,$(O)/%.o,$(sort $(selftests-cuda-y) $(selftests-nvml-y) $(selftests-nvml-old-y)))
helpers-o := $(sort $(foreach t,$(selftests-programs) $(selftests-vm) $(selftests-module) $(selftests-benches) $(selftests-fuzz:%=fuzz/%),$($(t)-y:%.c=$(O)/%.o)))
images := $(selftests-images:%.c=$(O)/%.so)
all-o := $(lib-o) $(helpers-o) $(programs-o) $(harness-o) $(tests:%=%.o) $(vm-tests:%=%.o) $(benches:%=%.o) $(fuzzers:%=%.o) \
	$(standins-o) $(images:.so=.o)

.DEFAULT_GOAL := all
all: $(programs:%=$(O)/%) $(lib) $(so)
tests: $(tests)
vm-tests: $(vm-tests) vm-modules
# For the kernel that guests have, where its headers are; the test of it says so where not.
vm-modules:
	@selftests/vm/image $(O)/vm && tools/modules.sh -t $(O) \
		/usr/src/linux-headers-$$(sed 's/^linux-image-//' $(O)/vm/package) >/dev/null || [ $$? -eq 4 ]
tsan-tests: $(selftests-tsan:%=$(O)/selftests/%)
benches: $(benches)
fuzzers: $(fuzzers)

# What everything is built with: when it changes, everything is built again.
flags := $(CC) $(shell $(CC) -dumpfullversion -dumpversion 2>/dev/null) \
	 $(cppflags) $(cflags) $(ldflags) $(ldlibs)
ifneq ($(strip $(file <$(O)/flags)),$(strip $(flags)))
$(O)/flags: FORCE
endif
$(O)/flags:
	@mkdir -p $(@D)
	@printf '%s\n' '$(flags)' >$@
# The same for what the library is made of, so that a source taken out is really out.
# Named from the build folder on, which may be written in more ways than one.
ifneq ($(strip $(file <$(O)/objects)),$(strip $(lib-o:$(O)/%=%)))
$(O)/objects: FORCE
endif
$(O)/objects: $(O)/flags
	@printf '%s\n' '$(lib-o:$(O)/%=%)' >$@
FORCE:

# Asked once per build folder: is all there to build, and which parts will be off, and why.
$(O)/features: tools/features.sh
	@mkdir -p $(@D)
	@tools/features.sh '$(CC)' '$(nvcc)' >$@.new
	@cat $@.new
	@mv $@.new $@
$(fatbins) $(emulated-o): | $(O)/features

said = $(if $(Q),@echo '  $(1)	$(@:$(O)/%=%)')
compile = $(Q)$(CC) $(cppflags) $(cflags) -MMD -MP -c -o $@ $<
$(O)/%.f32.o: %.c $(O)/flags | $(O)/features
	@mkdir -p $(@D)
	$(call said,CC)
	$(compile) -DPST_REAL_FLOAT
$(O)/%.f64.o: %.c $(O)/flags | $(O)/features
	@mkdir -p $(@D)
	$(call said,CC)
	$(compile) -DPST_REAL_DOUBLE
$(O)/%_avx2.o: %_avx2.c $(O)/flags | $(O)/features
	@mkdir -p $(@D)
	$(call said,CC)
	$(compile) -mavx2 -mfma
$(O)/%.o: %.c $(O)/flags | $(O)/features
	@mkdir -p $(@D)
	$(call said,CC)
	$(compile)

$(lib): $(lib-o) $(O)/objects
	$(call said,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(lib-o)
# With a version script nothing leaves the library that is not marked PST_API.
$(so).0: $(lib-o) $(O)/objects runtime/penstock.map
	$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) $(so-flags) -shared -Wl,-soname,libpenstock.so.0 \
		-Wl,--version-script=runtime/penstock.map -o $@ $(lib-o) $(ldlibs)
$(so): $(so).0
	@ln -sf libpenstock.so.0 $@

# Programs see the shared library only, where it was built and where it will be installed.
define program
$(O)/$(1): $($(1)-y:%.c=$(O)/%.o) $(so)
	@mkdir -p $$(@D)
	$$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) -o $$@ $$(filter %.o,$$^) -L$(O) -Wl,--as-needed -lpenstock $(ldlibs) \
		'-Wl,-rpath,$$$$ORIGIN$(if $(findstring /,$(1)),/..):$$$$ORIGIN/../lib'
endef
# But for those of the list, which stand on the leaves below the library's face.
define static-program
$(O)/$(1): $($(1)-y:%.c=$(O)/%.o) $(lib)
	@mkdir -p $$(@D)
	$$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) -o $$@ $$(filter %.o,$$^) $(lib) $$(ldlibs)
endef
$(foreach p,$(programs),$(eval $(call $(if $(filter $(p),$(daemon-static) $(tools-static)),static-)program,$(p))))

# A test is one source beside the harness; it sees the library's inside.
$(O)/selftests/%: $(O)/selftests/%.o $(harness-o) $(lib)
	$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) -o $@ $(filter %.o,$^) $(lib) $(ldlibs)
# What NAME-y lists is linked in besides.
$(foreach t,$(sort $(selftests-programs) $(selftests-vm) $(selftests-module) $(selftests-benches)),$(if $($(t)-y),$(eval \
	$(O)/selftests/$(t): $($(t)-y:%.c=$(O)/%.o))))
# Kernels in images, that may use ref.
$(images): %.so: %.o $(patsubst %.c,$(O)/%.f32.o,$(filter %/gemm.c %/rows.c %/swiglu.c,$(kernels-ref)))
	$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) -shared -o $@ $(filter %.o,$^) -lm
# Stand-ins for NVIDIA's driver.
$(O)/selftests/gpu/libcuda.so.1: $(selftests-cuda-y:%.c=$(O)/%.o) $(lib)
$(O)/selftests/gpu/libnvidia-ml.so.1: $(selftests-nvml-y:%.c=$(O)/%.o)
$(O)/selftests/gpu/old/libnvidia-ml.so.1: $(selftests-nvml-old-y:%.c=$(O)/%.o)
$(standins):
	@mkdir -p $(@D)
	$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) $(so-flags) -shared -Wl,-soname,$(@F) \
		-Wl,--exclude-libs,ALL -Wl,--as-needed -o $@ $(filter %.o %.a,$^) $(ldlibs)
$(foreach f,$(selftests-fuzz),$(if $(fuzz/$(f)-y),$(eval \
	$(O)/selftests/fuzz/$(f): $(fuzz/$(f)-y:%.c=$(O)/%.o))))
$(fuzzers): $(O)/selftests/fuzz/%: $(O)/selftests/fuzz/%.o $(lib)
	$(call said,LD)
	$(Q)$(CC) $(cflags) $(ldflags) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(lib) $(ldlibs)

# Tests that fit in a minute, and all of them in every build that we have.
quick: all tests
	@selftests/run -O $(O) -j $$((2 * $(JOBS))) $(filter-out $(selftests-slow),$(selftests-programs)) \
		$(filter-out $(selftests-slow),$(selftests-scripts))
check:
	@tools/deps.sh build check
	@MAKEFLAGS= O='$(O)' MAKE='$(MAKE)' JOBS='$(JOBS)' selftests/check
vm-check:
	@tools/deps.sh build
	@$(MAKE) all vm-tests
	@O='$(O)' selftests/vm/run -t 600 -- selftests/run -O $(O) -j 1 $(selftests-vm) \
		$(selftests-vm-scripts)

# What only the kernel can do; nothing else needs it.
KDIR ?=
modules:
	@tools/modules.sh $(O) $(KDIR)
modules_install:
	@DESTDIR='$(DESTDIR)' tools/modules.sh -i $(O) $(KDIR)
	install -D -m 644 daemon/units/60-penstock.rules \
		$(DESTDIR)$(prefix)/lib/udev/rules.d/60-penstock.rules
vm-debug-kernel:
	@O='$(O)' JOBS='$(JOBS)' selftests/vm/debug-kernel.sh

# Peers under load are killed at random moments, for as long as is wanted.
soak: all tests
	@SECONDS=$(SECONDS) KILLS=1000 TEST_TIMEOUT=$$(($(SECONDS) + 300)) $(if $(filter verbs,$(FABRIC)), \
		selftests/vm/run -t $$(($(SECONDS) + 400)) -- env SECONDS=$(SECONDS) KILLS=1000) \
		$(O)/selftests/rdma/kills .$(FABRIC).

# A recipe of two steps: what was missing when make began is there when it looks again.
run:
	@tools/deps.sh build run
	@$(MAKE) all
	@$(if $(DATA),,tools/manpages.sh $(O))
	$(O)/penstock train $(if $(filter %.json,$(MODEL)),--config,--preset) $(MODEL) \
		--data $(or $(DATA),@$(O)/manpages.list) --steps $(STEPS) --workers $(WORKERS) \
		--servers $(SERVERS) --out $(OUT) $(RUN)

# Limits, peers and ours, one after the other: nothing else should run meanwhile.
bench:
	@tools/deps.sh build bench vm
	@$(MAKE) all $(benches)
	@set -e; export O=$(abspath $(O)); for bench in $(selftests-benches:%=$(O)/selftests/%) \
		$(selftests-bench-scripts:%=selftests/%); do \
		echo "== $$bench"; $$bench || [ $$? -eq 4 ]; \
	done

install: all
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)/penstock
	install $(filter-out $(O)/examples/%,$(programs:%=$(O)/%)) $(DESTDIR)$(bindir)
	install -m 644 $(so).0 $(lib) $(DESTDIR)$(libdir)
	ln -sf libpenstock.so.0 $(DESTDIR)$(libdir)/libpenstock.so
	install -m 644 runtime/penstock.h $(DESTDIR)$(includedir)
	install -m 644 $(wildcard uapi/penstock/*.h) $(DESTDIR)$(includedir)/penstock
	install -D -m 644 -t $(DESTDIR)$(includedir)/penstock/kernels kernels/image.h kernels/op.h
	sed -e 's|@libdir@|$(libdir:$(prefix)/%=$${prefix}/%)|' -e 's|@prefix@|$(prefix)|' \
		-e 's|@includedir@|$(includedir:$(prefix)/%=$${prefix}/%)|' \
		-e 's|@version@|$(version)|' runtime/penstock.pc.in \
		>$(DESTDIR)$(libdir)/pkgconfig/penstock.pc
	set -e; for page in $(man-pages); do \
		install -D -m 644 $$page $(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}; \
	done
	install -D -m 644 tools/completion/penstockctl.bash $(DESTDIR)$(bash-completion)
	install -D -m 644 tools/completion/_penstockctl $(DESTDIR)$(zsh-completion)
	install -D -m 644 tools/completion/penstockctl.fish $(DESTDIR)$(fish-completion)
	install -d $(DESTDIR)$(unitdir) $(DESTDIR)$(sharedir)
	set -e; for unit in $(units); do \
		sed 's|@bindir@|$(bindir)|' daemon/units/$$unit >$(DESTDIR)$(unitdir)/$$unit; \
		chmod 644 $(DESTDIR)$(unitdir)/$$unit; \
	done
	install -D -m 644 daemon/units/penstock.sysusers $(DESTDIR)$(sysusersdir)/penstock.conf
	install -m 644 daemon/dashboards/* $(DESTDIR)$(sharedir)
	[ -n '$(DESTDIR)' ] || [ ! -w /etc/ld.so.cache ] || ldconfig
uninstall:
	rm -f $(patsubst %,$(DESTDIR)$(bindir)/%,$(filter-out examples/%,$(programs))) \
		$(DESTDIR)$(libdir)/libpenstock.* $(DESTDIR)$(libdir)/pkgconfig/penstock.pc \
		$(DESTDIR)$(includedir)/penstock.h $(DESTDIR)$(bash-completion) \
		$(DESTDIR)$(zsh-completion) $(DESTDIR)$(fish-completion)
	rm -rf $(DESTDIR)$(includedir)/penstock $(DESTDIR)$(sharedir)
	rm -f $(units:%=$(DESTDIR)$(unitdir)/%) $(DESTDIR)$(sysusersdir)/penstock.conf
	for page in $(man-pages); do \
		rm -f $(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}; \
	done
man-pages := $(wildcard doc/man/*.[1-9])
units := penstockd.service penstock-ps@.service
bash-completion := $(prefix)/share/bash-completion/completions/penstockctl
zsh-completion := $(prefix)/share/zsh/site-functions/_penstockctl
fish-completion := $(prefix)/share/fish/vendor_completions.d/penstockctl.fish

# clang-format has the last word on how C looks.
format-check:
	@git ls-files '*.[ch]' | xargs clang-format --dry-run -Werror
clean:
	rm -rf $(O)
# What scripts ask of the lists.
list-installed:
	@echo $(filter-out examples/%,$(programs))
list-static:
	@echo $(daemon-static) $(tools-static)
list-%:
	@echo $(selftests-$*)

help:
	@sed -n 's/^#	//p' Makefile

-include $(all-o:.o=.d)
.PHONY: all tests vm-tests vm-modules modules modules_install vm-debug-kernel tsan-tests benches fuzzers run quick check vm-check bench soak install uninstall format-check clean help \
	list-installed FORCE
.SECONDARY:
.DELETE_ON_ERROR:
