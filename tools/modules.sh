#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# modules.sh [-i] [-t] [-w] BUILD [KDIR] - build penstock.ko against a kernel's headers; make modules calls it
#
#	-i     install it, too: into $DESTDIR/lib/modules
#	-t     the module that tests need, too
#	-w     as strictly as can be: all warnings of the compiler and of sparse, and each is an error
#	KDIR   the headers, or a kernel that was built; those of the running kernel
#
# The module is BUILD/modules/RELEASE/penstock.ko, and its folder's name is printed. Kernels build
# in the folder that the sources are in, so this one gets links to them. Exits with 4 when something
# is missing, and says what.
set -eu -o pipefail
export LC_ALL=C
unset MAKEFLAGS MAKELEVEL MFLAGS
top=$(cd "$(dirname "$0")/.." && pwd)

install='' strict='' test=''
while getopts itw option; do
	case $option in
	i) install=yes ;;
	t) test=m ;;
	w) strict=yes ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
build=$1 kdir=${2:-}

missing()
{
	echo "modules: $1; to mend it: $2" >&2
	exit 4
}

if [ -z "$kdir" ]; then
	running=$(uname -r)
	for kdir in "/lib/modules/$running/build" "/usr/src/linux-headers-$running"; do
		[ ! -e "$kdir/Makefile" ] || break
	done
	[ -e "$kdir/Makefile" ] ||
		missing "there are no headers of the running kernel, $running" \
			"apt-get install linux-headers-$running, or make modules KDIR=FOLDER for another kernel"
fi
[ -e "$kdir/Makefile" ] || missing "$kdir is no kernel's headers" \
	"apt-get install --no-install-recommends linux-headers-$(basename "$kdir" | sed 's/^linux-headers-//')"
release=$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' "$kdir/include/generated/utsrelease.h" 2>/dev/null) ||
	missing "$kdir has not been configured" "make -C $kdir modules_prepare"

here=$build/modules/$release${strict:+-strict}
mkdir -p "$here"
here=$(cd "$here" && pwd)
exec 9>"$here/.lock"
flock 9
# What the lists name, and headers.
while read -r file; do
	mkdir -p "$here/$(dirname "$file")"
	ln -sf "$top/$file" "$here/$file"
done < <(cd "$top" && ls Kbuild Makefile runtime/sources.mk runtime/mem/kmod/*.[ch] \
	uapi/penstock/*.h selftests/control/importer.[ch])

arguments=(-C "$kdir" "M=$here" "PENSTOCK_TEST=$test")
[ -z "$strict" ] || arguments+=(W=1 KCFLAGS=-Werror)
[ -z "$strict" ] || ! command -v sparse >/dev/null || arguments+=(C=2 "CF=-Wsparse-error")
# The compiler that the kernel was built with, where it is here.
compiler=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ "]*\).*/\1/p' "$kdir/.config" 2>/dev/null || true)
[ -z "$compiler" ] || ! command -v "$compiler" >/dev/null || arguments+=("CC=$compiler")
log=$here/log
make -s --no-print-directory "${arguments[@]}" modules >"$log" 2>&1 9>&- || {
	cat "$log" >&2
	exit 1
}
grep -v 'BTF generation\|Clock skew' "$log" >&2 || true
# Headers come without the key that the kernel's own modules are signed with, and without what
# make would have depmod look at.
if [ -n "$install" ]; then
	make -s --no-print-directory "${arguments[@]}" INSTALL_MOD_PATH="${DESTDIR:-}" CONFIG_MODULE_SIG_ALL= \
		modules_install 2>&1 9>&- | sed '/System.map.*depmod/d' >&2
	[ -n "${DESTDIR:-}" ] || PATH=$PATH:/usr/sbin:/sbin depmod -a "$release"
fi
echo "$here"
