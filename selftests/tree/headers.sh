#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every header stands alone: those that are installed as C and as C++, the others as C. Those of the
# module are the kernel's to build.
. selftests/lib/ktap.sh

CC=${CC:-gcc}
if command -v g++ >/dev/null 2>&1; then
	cxx=g++
elif command -v clang++ >/dev/null 2>&1; then
	cxx=clang++
else
	cxx=
fi
public=$(ls runtime/penstock.h uapi/penstock/*.h 2>/dev/null)
private=$(find kernels rdma runtime selftests/lib -name '*.h' ! -path runtime/penstock.h ! -path '*/kmod/*' | sort)
warnings="-Wall -Wextra -Werror"

# The macros that a header's includer must give: ref kernels are built for a number type, and
# intrinsics for a CPU that has them.
flags_of()
{
	case $1 in
	kernels/ref/*) echo "-DPST_REAL_FLOAT" ;;
	*avx2*) echo "-mavx2 -mfma" ;;
	esac
}

# A header is included from a file, so that it is not the main file with its own warnings.
as_c()
{
	printf '#include "%s"\nint main(void) { return 0; }\n' "$1" >"$tmp/alone.c"
	# shellcheck disable=SC2046,SC2086 # words
	$CC $2 $warnings -I. -Iuapi $(flags_of "$1") -fsyntax-only "$tmp/alone.c"
}

as_cxx()
{
	printf '#include "%s"\nint main() { return 0; }\n' "$1" >"$tmp/alone.cc"
	# shellcheck disable=SC2086 # words
	$cxx -std=c++11 $warnings -I. -Iuapi -fsyntax-only "$tmp/alone.cc"
}

for header in $public; do
	check "$header as C11" as_c "$header" "-std=c11 -Wpedantic"
	if [ -n "$cxx" ]; then
		check "$header as C++11" as_cxx "$header"
	else
		skip "$header as C++11" "no C++ compiler" "tools/deps.sh check"
	fi
done
for header in $private; do
	check "$header alone" as_c "$header" "-std=gnu11 -D_GNU_SOURCE"
done

echo 'size_t needs_stddef;' >"$tmp/bad.h"
check "a header that needs another is found" refused "size_t" as_c "$tmp/bad.h" -std=c11
finish
