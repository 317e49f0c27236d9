#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What make install puts down can be run and built upon, and make uninstall takes all of it away.
. selftests/lib/ktap.sh

root=$tmp/root
pc=$root/usr/lib/pkgconfig
at()
{
	make -s O="$O" DESTDIR="$root" prefix=/usr "$1"
}

programs=$(make -s O="$O" list-installed)

all_there()
{
	local f
	# shellcheck disable=SC2086 # a word per program
	for f in $(printf 'bin/%s ' $programs) lib/libpenstock.so.0 lib/libpenstock.so lib/libpenstock.a \
		lib/pkgconfig/penstock.pc include/penstock.h include/penstock/error.h \
		share/man/man1/penstock.1; do
		[ -e "$root/usr/$f" ] || echo "no /usr/$f"
	done
}

# A page per program, or people cannot know what is there.
documented()
{
	local p
	for p in $programs; do
		ls doc/man/"$p".[18] >/dev/null 2>&1 || echo "$p has no page in doc/man"
	done
}

finds_library()
{
	local p
	for p in $programs; do
		case $(env -u LD_LIBRARY_PATH ldd "$root/usr/bin/$p") in
		*"libpenstock.so.0 => $root/"*) ;;
		*libpenstock*) echo "$p does not find the library beside it" ;;
		*) echo "$p" >>"$tmp/alone" ;; # has it inside, or needs nothing of it
		esac
	done
}

# flags WHAT: of the installed package, wherever it lies
flags()
{
	PKG_CONFIG_PATH=$pc pkg-config --define-variable=prefix="$root/usr" "$@" penstock
}

cat >"$tmp/user.c" <<'END'
#include <penstock.h>
#include <stdio.h>

int main(void)
{
	return printf("%p\n", (void *)&FUNCTION) < 0;
}
END
function=$(nm -D --defined-only "$O/libpenstock.so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3; exit }')

# shellcheck disable=SC2046 # words
shared()
{
	gcc -DFUNCTION="$function" $(flags --cflags) -o "$tmp/user" "$tmp/user.c" $(flags --libs) &&
		LD_LIBRARY_PATH=$root/usr/lib "$tmp/user"
}

# shellcheck disable=SC2046 # words
static()
{
	gcc -DFUNCTION="$function" $(flags --cflags) -o "$tmp/user-static" "$tmp/user.c" \
		"$root/usr/lib/libpenstock.a" $(flags --static --libs | sed 's/-lpenstock//') && "$tmp/user-static"
}

# The example needs no other program, installed or not.
# shellcheck disable=SC2046 # words
example()
{
	gcc -Wall -Wextra -Werror $(flags --cflags) -o "$tmp/train" tools/examples/train.c $(flags --libs) &&
		PENSTOCK_BIN=/nowhere LD_LIBRARY_PATH=$root/usr/lib "$tmp/train" nano "$tmp/out" \
			selftests/train/text.txt | grep 'saved: ' &&
		[ -f "$tmp/out/step-00000050/model.safetensors" ] &&
		LD_LIBRARY_PATH=$root/usr/lib refused "no built-in shape" "$tmp/train" none "$tmp/out" README.md
}

# What others have put beside it stays.
foreign=$root/usr/bin/train
left()
{
	find "$root" ! -type d ! -path "$foreign"
	[ -f "$foreign" ] || echo "$foreign is gone"
}

check "installs" at install
check "puts everything in its place" none all_there
check "every program has a manual page" none documented
check "installed programs find their library" none finds_library
check "a program builds by pkg-config, and runs" shared
check "a program links the archive, and runs" static
check "the example builds by pkg-config, trains and saves" example
check "nothing names the build folder" none sh -c "grep -l '$O' '$pc'/*.pc; true"
touch "$foreign"
check "uninstalls" at uninstall
check "leaves nothing" none left
finish
