#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# debug-kernel.sh [build|test] - the module's tests in a kernel that looks closely; make vm-debug-kernel
#
#	build   only build that kernel: half an hour on two cores
#	test    only run the tests in it
#
# It is Debian's source of the kernel that guests have, with debug.config: KASAN, lockdep, checks of
# the memory management and of DMA, and allocations that fail to order. All is in $O/vm-debug, about
# 3 GB of it; JOBS is how many compilers run at once. VM_FUZZ_SECONDS is how long the module is given
# random orders (60).
set -eu -o pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
unset MAKEFLAGS MAKELEVEL MFLAGS
O=${O:-$top/build}
mkdir -p "$O/vm-debug"
O=$(cd "$O" && pwd)
export O
folder=$O/vm-debug source=$O/vm-debug/linux

unpack()
{
	local archive=/usr/src/linux-source-6.1.tar.xz
	[ -e "$archive" ] || { echo "debug-kernel: no $archive; to mend it: tools/deps.sh debug" >&2; exit 4; }
	[ "$source/.unpacked" -nt "$archive" ] && return
	rm -rf "$source"
	mkdir -p "$source"
	echo "debug-kernel: unpacking $archive"
	tar -C "$source" --strip-components=1 -xJf "$archive"
	touch "$source/.unpacked"
}

# What debug.config asks for must be there in the end: a missing dependency is silent otherwise.
configure()
{
	make -s -C "$source" allnoconfig >/dev/null
	"$source/scripts/kconfig/merge_config.sh" -m -O "$source" "$source/.config" "$here/debug.config" >/dev/null
	make -s -C "$source" olddefconfig >/dev/null
	grep '^CONFIG' "$here/debug.config" | grep -vxF -f "$source/.config" >"$folder/refused" || return 0
	echo "debug-kernel: the kernel's configuration refuses:" >&2
	cat "$folder/refused" >&2
	exit 1
}

# A guest's initramfs, with nothing to load.
initramfs()
{
	"$here/image" "$O/vm"
	cp "$O/vm/tsc" "$folder/tsc"
	(cd "$folder" && rm -rf root && mkdir -p root/dev && cp "$O/vm/init" root/init && : >root/modules &&
		cd root && printf '%s\n' dev init modules | cpio --quiet -o -H newc >../initramfs)
}

build()
{
	"$top/tools/deps.sh" vm debug
	unpack
	configure
	echo "debug-kernel: building"
	make -s -C "$source" -j"${JOBS:-$(nproc)}" bzImage modules
	# Not its ELF file, as guests have: that is entered by PVH, before KASAN has its shadow memory.
	cp "$source/arch/x86/boot/bzImage" "$folder/vmlinux"
	initramfs
}

run_tests()
{
	local modules
	modules=$("$top/tools/modules.sh" -t "$O" "$source")
	env VM_MODULES="$modules" VM_FUZZ_SECONDS="${VM_FUZZ_SECONDS:-60}" TEST_TIMEOUT=600 \
		"$here/run" -k "$folder" -m 4096 -t 1800 -- "$here/../control/module.sh"
}

case ${1:-} in
build) build ;;
test) run_tests ;;
'')
	build
	run_tests
	;;
*)
	sed -n 's/^# \(debug-kernel.sh.*\)/usage: \1/p' "$0" >&2
	exit 2
	;;
esac
