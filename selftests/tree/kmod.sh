#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The module builds without a warning against the headers of every kernel that are here, with all
# warnings of the compiler and those of sparse, and checkpatch has nothing to say.
. selftests/lib/ktap.sh

series="6.1 6.12"
# wanted SERIES: the newest of its headers that are here
wanted()
{
	compgen -G "/usr/src/linux-headers-$1.*-amd64" | sed '/-cloud-amd64$/d; /-rt-amd64$/d' | sort -V | tail -n 1
}

builds()
{
	tools/modules.sh -t -w "$tmp" "$1" >"$tmp/folder" && [ -s "$(cat "$tmp/folder")/penstock.ko" ]
}

# A tree of its own with one fault, which must be found.
refuses()
{
	local text=$1 edit=$2 headers=$3
	rm -rf "$tmp/top"
	mkdir "$tmp/top"
	cp -a --parents Kbuild Makefile tools/modules.sh runtime/sources.mk runtime/mem/kmod \
		uapi/penstock selftests/control/importer.[ch] "$tmp/top"
	sed -i "$edit" "$tmp/top/runtime/mem/kmod/quota.c"
	refused "$text" "$tmp/top/tools/modules.sh" -w "$tmp/bad" "$headers"
}

for s in $series; do
	headers=$(wanted "$s")
	if [ -z "$headers" ]; then
		skip "builds for $s" "no headers of it" "apt-get install --no-install-recommends linux-headers-$s-amd64"
		continue
	fi
	if command -v sparse >/dev/null; then
		check "builds for $s, with sparse" builds "$headers"
	else
		check "builds for $s" builds "$headers"
		skip "sparse for $s" "no sparse" "tools/deps.sh check"
	fi
done
headers=$(wanted 6.1)
if [ -n "$headers" ]; then
	check "a warning is an error" refuses "unused variable" 's/^static u64 limit(void)$/static int odd;\n&/; s/	u64 may = limit();/	int unused;\n&/' "$headers"
	! command -v sparse >/dev/null ||
		check "what sparse finds is an error" refuses "different address spaces" \
			's/^static u64 limit(void)$/int pst_odd(int *p);\nint pst_odd(int *p)\n{\n	return get_user(*p, p);\n}\n\n&/; s|^#include <linux/slab.h>|&\n#include <linux/uaccess.h>|' "$headers"
fi
check "what is no kernel is said" refused "is no kernel's headers; to mend it: apt-get install" \
	tools/modules.sh "$tmp" /usr/src/linux-headers-0.0-none

# Debian has checkpatch in its source package only.
checkpatch=${CHECKPATCH:-$(compgen -G '/usr/src/linux-*/scripts/checkpatch.pl' | tail -n 1)}
archive=$(compgen -G '/usr/src/linux-source-6.*.tar.xz' | sort -V | tail -n 1)
if [ -z "$checkpatch" ] && [ -n "$archive" ]; then
	name=$(basename "$archive" .tar.xz)
	checkpatch=$O/$name/scripts/checkpatch.pl
	# As the archive begins with what it does, this reads it whole.
	[ -e "$checkpatch" ] || tar -C "$O" -xJf "$archive" "$name/scripts/checkpatch.pl" \
		"$name/scripts/spelling.txt" "$name/scripts/const_structs.checkpatch"
fi
says()
{
	perl "$checkpatch" --no-tree --strict --terse -f "$1" | sed '/^total: 0 errors, 0 warnings, 0 checks,/d'
}

if [ -z "$checkpatch" ]; then
	skip "checkpatch" "no checkpatch.pl" "apt-get install linux-source-6.1, or CHECKPATCH=FILE"
else
	for file in runtime/mem/kmod/*.[ch] selftests/control/importer.[ch]; do
		check "checkpatch: $file" none says "$file"
	done
	printf '// SPDX-License-Identifier: GPL-2.0-only\nint a(void)\n{\n        return(0) ;\n}\n' >"$tmp/odd.c"
	check "checkpatch finds what is wrong" refused "ERROR" says "$tmp/odd.c"
fi
finish
