#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The module, loaded, tested and unloaded, in a guest: it leaves nothing behind, and the kernel has
# nothing to complain of. VM_FUZZ_SECONDS is how long it is given random orders (3).
. selftests/lib/ktap.sh

release=$(uname -r)
folder=${VM_MODULES:-$O/modules/$release}
if [ ! -e "$folder/penstock.ko" ] || [ ! -e "$folder/penstock_test.ko" ]; then
	skip "the module" "it is not built for $release" \
		"apt-get install --no-install-recommends linux-headers-$release, then make vm-check"
	finish
fi
if [ ! -e /proc/self/fail-nth ] && [ "$(stat -f -c %T /)" != overlayfs ]; then
	skip "the module" "this is no guest" "make vm-check"
	finish
fi

PATH=$PATH:/usr/sbin:/sbin

# tests PROGRAM ARGUMENT...: its results among ours
tests()
{
	local name=$1 status said=0
	shift
	"$O/selftests/$name" "$@" >"$tmp/results" 2>&1
	status=$?
	while IFS= read -r line; do
		case $line in
		"ok "* | "not ok "*)
			number=$((number + 1))
			[ "${line%% *}" = ok ] || { failures=$((failures + 1)); said=1; }
			sed -E "s|^(not ok\|ok) [0-9]+ |\1 $number $name |" <<<"$line"
			;;
		"KTAP "* | 1..*) ;;
		"#"*) echo "$line" ;;
		*) echo "# $line" ;;
		esac
	done <"$tmp/results"
	check "$name ends as it should" test "$status" -eq "$said"
}

loads()
{
	insmod "$folder/penstock.ko" && insmod "$folder/penstock_test.ko" && [ -c /dev/penstock ] &&
		[ "$(stat -c %a /dev/penstock)" = 664 ]
}

unloads()
{
	rmmod penstock_test && rmmod penstock && [ ! -e /dev/penstock ]
}

# What the kernel said since we began and should not have.
complaints()
{
	dmesg | sed -n '/penstock-test begins/,$p' |
		grep -E 'BUG|WARNING|Oops|KASAN|UBSAN|INFO: |possible recursive|circular locking|Call Trace|bad page|Bad page|leaked|refcount|general protection|DMA-API'
	return 0
}

# Taken seriously: a complaint is found.
hears()
{
	echo "<4>penstock-test begins" >/dev/kmsg
	echo "<4>BUG: Bad page state, says a test" >/dev/kmsg
	[ "$(complaints | wc -l)" -eq 1 ]
}

# Of a kernel that lets allocations fail to order: also those that could wait, which all of the
# module's can, and without a word.
faults()
{
	local folder
	mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug || return
	for folder in /sys/kernel/debug/failslab /sys/kernel/debug/fail_page_alloc; do
		echo N >$folder/ignore-gfp-wait && echo 0 >$folder/verbose || return
	done
	echo N >/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem &&
		echo 0 >/sys/kernel/debug/fail_page_alloc/min-order
}

[ ! -e /proc/self/fail-nth ] || check "allocations can be made to fail" faults
check "complaints are heard" hears
echo "<4>penstock-test begins" >/dev/kmsg
dmesg -C
echo "<4>penstock-test begins" >/dev/kmsg
check "it loads" loads
tests control/module
tests control/module_devices
tests control/module_limits
[ ! -x "$O/selftests/control/command" ] || tests control/command door.module.
check "it unloads" unloads
check "and loads again" loads
check "and unloads" unloads
check "the kernel did not complain" none complaints
finish
