#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What doc/tour.md names is there: files, folders, functions, constants, structs, tests.
#
# In the tour all of these stand in backquotes; `function()` (`file.c`) says also where it is.
. selftests/lib/ktap.sh

tour=doc/tour.md

# A line per name in backquotes, but for those in blocks of code.
names()
{
	sed '/^```/,/^```/d' "$1" | tr '\n' ' ' | grep -oE '`[^`]+`' | tr -d '`' | sort -u
}

# paths FILE: what is named as a path and is none
paths()
{
	names "$1" | grep -E '^[A-Za-z_.-]+/[A-Za-z0-9_./-]*$|^[A-Za-z_-]+\.(c|h|mk|md|sh)$' | while read -r path; do
		case $path in
		*/) [ -d "$path" ] || echo "$path: no such folder" ;;
		*.*) [ -f "$path" ] || [ -f "selftests/$path" ] || echo "$path: no such file" ;;
		*) [ -e "$path" ] || [ -f "selftests/$path.c" ] || echo "$path: neither a file nor a test" ;;
		esac
	done
}

# defined NAME FILE...: a definition, or a macro, or a member of a table of functions
defined()
{
	local name=$1
	shift
	grep -qE "^[a-z].*[ *]$name\(|^$name\(\)|^#define $name\b|^	(int|void) \(\*$name\)\(" "$@"
}

sources()
{
	find uapi kernels rdma runtime daemon tools selftests \( -name '*.[ch]' -o -name '*.sh' \) \
		! -path 'selftests/tree/*' | sort
}

functions()
{
	names "$1" | sed -n 's/^\([A-Za-z0-9_]*\)()$/\1/p' | while read -r name; do
		# shellcheck disable=SC2046 # a word per file
		defined "$name" $(sources) || echo "$name(): no such function"
	done
}

# Function and file together, in the same breath.
places()
{
	sed '/^```/,/^```/d' "$1" | tr '\n' ' ' | tr -s ' ' | grep -oE '`[A-Za-z0-9_]+\(\)` \(`[^`]+`\)' |
		tr -d '`()' | while read -r name file; do
		{ [ -f "$file" ] && defined "$name" "$file"; } || echo "$name(): not in $file"
	done
}

# Constants, structs, and ops of the table.
words()
{
	names "$1" | grep -E '^PST_[A-Z0-9_]+$|^SHM_[A-Z0-9_]+$|^struct [a-z_]+$' | while read -r word; do
		# shellcheck disable=SC2046 # a word per file
		grep -qw -- "$word" $(sources) || echo "$word: in no source"
	done
}

# The folders of the tree that hold sources, and those that the tour has a room for.
rooms()
{
	find uapi kernels rdma runtime daemon tools selftests -name '*.[ch]' ! -path 'selftests/*/*' \
		-exec dirname {} + | sort -u | sed 's|$|/|' >"$tmp/there"
	names "$tour" | grep '/$' | sort -u >"$tmp/named"
	comm -23 "$tmp/there" "$tmp/named" | sed 's/$/: not in the tour/'
}

# The message that the tour takes apart, against the header.
layout()
{
	{
		echo '#include <penstock/wire.h>'
		echo '#include <stddef.h>'
		sed -n '/^```/,/^```/s/^ *\([0-9]*\)  \([a-z]*\) .*/\1 \2/p' "$1" |
			while read -r offset field; do
				case $field in
				size | type | flags | seq) field=hdr.$field ;;
				expert) field="item[($offset - 72) / 16]" ;;
				esac
				echo "_Static_assert(offsetof(struct pst_msg_experts, $field) == $offset, \"$field\");"
			done
	} >"$tmp/layout.c"
	[ "$(wc -l <"$tmp/layout.c")" -gt 12 ] && gcc -Iuapi -fsyntax-only "$tmp/layout.c"
}

check "the paths in the tour are there" none paths "$tour"
check "the functions in the tour are there" none functions "$tour"
check "and they are in the files that it says" none places "$tour"
check "constants and structs in the tour are there" none words "$tour"
check "the tour has every folder with sources" none rooms
check "the message in the tour has its layout" layout "$tour"
check "README.md names what is there" none paths README.md
check "the tour names enough to be worth checking" test "$(names "$tour" | wc -l)" -gt 100

# found WHAT TEXT: the finder WHAT says TEXT about the text in $tmp/text
found()
{
	local out
	out=$("$1" "$tmp/text")
	case $out in
	*"$2"*) ;;
	*) printf '%s said: %s\n' "$1" "$out"; return 1 ;;
	esac
}

cat >"$tmp/text" <<'END'
See `runtime/none.c`, `attic/`, `pst_none()`, `PST_MSG_NONE`, `struct pst_none`, `moe/none`, and
`pst_moe_create()`
(`runtime/moe/crew.c`).
END
check "a file that is not there is found" found paths "runtime/none.c: no such file"
check "a folder that is not there is found" found paths "attic/: no such folder"
check "a test that is not there is found" found paths "moe/none: neither"
check "a function that is not there is found" found functions "pst_none(): no such function"
check "a function in another file is found" found places "pst_moe_create(): not in runtime/moe/crew.c"
check "a constant that is not there is found" found words "PST_MSG_NONE: in no source"
sed 's/^    40  dy/    44  dy/' "$tour" >"$tmp/moved"
check "a wrong layout is found" refused "dy" layout "$tmp/moved"
check "a struct that is not there is found" found words "struct pst_none: in no source"
finish
