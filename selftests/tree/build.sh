#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The Makefile builds what changed and no more, writes into O only, and says what is missing.
. selftests/lib/ktap.sh

unset V CFLAGS CPPFLAGS LDFLAGS LDLIBS SAN
build=$O
mkdir -p "$tmp/src" "$tmp/o"
tar -cf - --exclude=./build --exclude='./build-*' --exclude=./.git --exclude=./selftests/goldens . |
	tar -xf - -C "$tmp/src"
mkdir -p "$tmp/src/probe"
echo '#define PROBE 1' >"$tmp/src/probe/probe.h"
printf '#include "probe/probe.h"\nint one(void);\nint one(void) { return PROBE; }\n' >"$tmp/src/probe/one.c"
printf 'int two(void);\nint two(void) { return 2; }\n' >"$tmp/src/probe/two.c"
touch "$tmp/before"

# built MAKE-ARGUMENT...: what make compiled or linked
built()
{
	make -C "$tmp/src" O="$tmp/o" CC=gcc SAN= rdma-y="probe/one.c" "$@" >"$tmp/log" 2>&1 || { cat "$tmp/log"; return 1; }
	sed -n 's/^  \(CC\|AR\|LD\)\t//p' "$tmp/log"
}

builds()
{
	local want=$1 out
	shift
	out=$(built "$@") && [ "$(echo "$out" | tr '\n' ' ')" = "$want" ] && return
	printf 'built: %s\n' "$out"
	return 1
}

object=$tmp/o/probe/one.o
check "builds one object alone, outside the tree" builds "probe/one.o " "$object"
check "builds nothing twice" builds " " "$object"
touch "$tmp/src/probe/probe.h"
check "builds again when a header changed" builds "probe/one.o " "$object"
check "builds again for other flags" builds "probe/one.o " "$object" CFLAGS=-O1
check "keeps our flags beside the caller's" grep -q -e '-O1.*-ffp-contract=off' "$tmp/o/flags"
check "builds again for a sanitizer" builds "probe/one.o " "$object" SAN=undefined
check "knows that nothing changed then" builds " " "$object" SAN=undefined

# lib SOURCES: the objects in an archive of these sources alone
lib()
{
	built kernels-y= kernels-ref= runtime-y= rdma-y="$1" "$tmp/o/libpenstock.a" >/dev/null &&
		ar t "$tmp/o/libpenstock.a" | tr '\n' ' '
}

holds()
{
	local out
	out=$(lib "$2")
	[ "$out" = "$1" ] || { echo "$out"; cat "$tmp/log"; return 1; }
}

check "puts listed sources into the library" holds "one.o two.o " "probe/one.c probe/two.c"
check "takes a source that is no longer listed out" holds "two.o " "probe/two.c"
# Tests call make with the folder's whole path, beside others that run what is in it.
check "builds nothing for another spelling of the folder" builds " " kernels-y= kernels-ref= runtime-y= \
	rdma-y="probe/two.c" O=../o ../o/libpenstock.a
check "writes nothing into the source tree" none find "$tmp/src" -newer "$tmp/before" \
	! -path "$tmp/src/probe/probe.h" -type f

# A compiler for which one library is not there.
cat >"$tmp/cc" <<'END'
#!/bin/sh
for word; do
	case $word in
	*.c) grep -q '<jansson.h>' "$word" && { echo "jansson.h: No such file" >&2; exit 1; } ;;
	esac
done
exec gcc "$@"
END
chmod +x "$tmp/cc"
missing()
{
	make -C "$tmp/src" O="$tmp/o2" CC="$tmp/cc" SAN= all
}
check "says which package is missing" refused "apt-get install libjansson-dev" missing
says_once()
{
	missing 2>&1 | tee "$tmp/out" | grep -vE '^make|not there yet' | grep -vc 'cannot build without' >"$tmp/others"
	cat "$tmp/out"
	[ "$(cat "$tmp/others")" -eq 0 ] && [ "$(grep -c 'cannot build without' "$tmp/out")" -eq 1 ]
}
check "says it in one line, and compiles nothing" says_once
check "says it again while it is missing" refused "cannot build without: libjansson-dev" missing
check "says which compiler is missing" refused "cannot build without: nocc" \
	make -C "$tmp/src" O="$tmp/o3" CC=nocc SAN= all

exported()
{
	nm -D --defined-only "$build/libpenstock.so" | awk '$2 ~ /[TDBRVW]/ { sub(/@.*/, "", $3); print $3 }'
}

only_public()
{
	exported | while read -r symbol; do
		grep -qw "$symbol" runtime/penstock.h || [ "$symbol" = PENSTOCK_0.1 ] ||
			echo "$symbol: exported and not in penstock.h"
	done
}

all_public()
{
	exported >"$tmp/exported"
	sed -n 's/^PST_API .*[ *]\(pst_[a-z0-9_]*\)(.*/\1/p' runtime/penstock.h | while read -r symbol; do
		grep -qx "$symbol" "$tmp/exported" || echo "$symbol: in penstock.h and not exported"
	done
}

check "the library exports what penstock.h declares, no more" none only_public
check "and no less" none all_public
check "the library has its name" sh -c \
	"readelf -d '$build/libpenstock.so' | grep -q 'SONAME.*libpenstock.so.0'"
check "help names the targets" sh -c "make -s help | grep -q 'make quick'"
finish
