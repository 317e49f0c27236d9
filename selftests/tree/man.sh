#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Manual pages are well formed, and say of options, defaults, commands, functions and environment
# variables what the programs say: all of it, and nothing else.
. selftests/lib/ktap.sh

pages=$(ls doc/man/*.[1-9] 2>/dev/null)
for page in $pages; do
	if command -v mandoc >/dev/null 2>&1; then
		check "$page is well formed" none mandoc -T lint -W warning "$page"
	else
		skip "$page is well formed" "no mandoc" "tools/deps.sh check"
	fi
done
check "there are manual pages" test -n "$pages"

# Options that a page explains, and those that --help does; and the default of each, where it has
# one: a line "--NAME DEFAULT".
in_page()
{
	awk '
		/^\.It / || /^\.El/ { name = "" }
		/^\.It Fl -/ { name = "--" substr($3, 2); print name; next }
		name && /^The default is / {
			value = $4
			sub(/^\\/, "", value)
			sub(/[.:,]$/, "", value)
			print name " " value
		}' "$1" | sort
}

in_help()
{
	awk '
		match($0, /^  --[a-z0-9-]+/) { name = substr($0, 3, RLENGTH - 2); print name }
		name && match($0, /\(default [^),:]+/) {
			value = substr($0, RSTART + 9, RLENGTH - 9)
			sub(/ .*/, "", value) # a newline
			print name " " value
		}
		name && (match($0, /[0-9]+ [a-z ]+ \(default\)/) || match($0, /[a-z0-9]+ \(default\)/)) {
			split(substr($0, RSTART, RLENGTH), word)
			print name " " word[1]
		}' | sort
}

# agrees PAGE PROGRAM [COMMAND]: page and program name the same options with the same defaults.
# --help itself need not stand in its own list.
agrees()
{
	local page=$1
	shift
	"$O/$1" "${@:2}" --help >"$tmp/help" || return 1
	in_help <"$tmp/help" | grep -v '^--help$' >"$tmp/of-help"
	in_page "$page" | grep -v '^--help$' >"$tmp/of-page"
	[ -s "$tmp/of-help" ] && diff "$tmp/of-page" "$tmp/of-help"
}

# The commands of penstock have pages, and penstock(1) lists them.
commands()
{
	"$O/penstock" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | sort >"$tmp/of-help"
	sed -n 's/^\.It Cm //p' doc/man/penstock.1 | sort >"$tmp/of-page"
	while read -r command; do
		[ -f "doc/man/penstock-$command.1" ] || echo "penstock $command has no page"
	done <"$tmp/of-help"
	diff "$tmp/of-page" "$tmp/of-help"
}

functions()
{
	sed -n 's/^PST_API .*[ *]\(pst_[a-z0-9_]*\)(.*/\1/p' runtime/penstock.h | sort >"$tmp/of-header"
	grep -o 'Fn pst_[a-z_]*' doc/man/libpenstock.3 | sed 's/Fn //' >"$tmp/named"
	grep '^\.It Fn' doc/man/libpenstock.3 | grep -o 'pst_[a-z_]*' >>"$tmp/named"
	sort -u "$tmp/named" >"$tmp/of-page"
	[ -s "$tmp/of-header" ] && diff "$tmp/of-page" "$tmp/of-header"
}

# PATH is everybody's.
environment()
{
	grep -rhoE 'getenv\("[A-Z_]+"\)' --include='*.c' kernels rdma runtime daemon tools |
		sed 's/.*("\(.*\)")/\1/' | grep '^PENSTOCK_' | sort -u >"$tmp/of-source"
	sed -n 's/^\.It Ev //p' doc/man/penstock.7 | sort >"$tmp/of-page"
	[ -s "$tmp/of-source" ] && diff "$tmp/of-page" "$tmp/of-source"
}

# The fields of penstock train --json, and those that the page explains.
fields()
{
	"$O/penstock" train --preset nano --data selftests/train/text.txt --steps 2 --batch 1 --seq 16 \
		--embedded --out "$tmp/run" --json "$tmp/json" >"$tmp/out" || return 1
	sed -n 's/^  "\([a-z_]*\)":.*/\1/p' "$tmp/json" | sort >"$tmp/of-run"
	sed -n '/^\.Sh JSON/,/^\.El/s/^\.It Cm //p' doc/man/penstock-train.1 | tr -d ' ' | tr ',' '\n' |
		sort >"$tmp/of-page"
	[ -s "$tmp/of-run" ] && diff "$tmp/of-page" "$tmp/of-run"
}

# The page's example is a program.
example()
{
	sed -n '/^\.Bd /,/^\.Ed/p' doc/man/libpenstock.3 | sed '1d; $d; s/\\e/\\/g' >"$tmp/example.c"
	gcc -Wall -Wextra -Werror -Iruntime -Iuapi -o "$tmp/example" "$tmp/example.c" -L"$O" -lpenstock &&
		LD_LIBRARY_PATH=$O "$tmp/example" selftests/train/text.txt | grep -q 'bits per byte'
}

for command in train generate inspect; do
	check "penstock-$command(1) has the options of --help" \
		agrees "doc/man/penstock-$command.1" penstock "$command"
done
for program in penstock-ps penstock-worker penstockd; do
	check "$program(8) has the options of --help" agrees "doc/man/$program.8" "$program"
done
sed '/^\.Sh DOCTOR/,/^\.Sh JSON/d' doc/man/penstock-perf.1 >"$tmp/perf-test"
sed -n '/^\.Sh DOCTOR/,/^\.Sh JSON/p' doc/man/penstock-perf.1 >"$tmp/perf-doctor"
check "penstock-perf(1) has the options of a test's --help" agrees "$tmp/perf-test" penstock-perf pull
check "penstock-perf(1) has the options of doctor --help" agrees "$tmp/perf-doctor" penstock-perf doctor
check "penstock(1) has the commands of --help" commands
check "libpenstock(3) has the functions of penstock.h" functions
check "penstock(7) has the environment variables" environment
check "penstock-train(1) has the fields of the JSON" fields
check "the example of libpenstock(3) builds and runs" example

# The same checks see what is wrong.
differs()
{
	! agrees "$tmp/page" penstock inspect >"$tmp/diff" && grep -q "$1" "$tmp/diff"
}
sed '/^\.It Fl -json/d' doc/man/penstock-inspect.1 >"$tmp/page"
check "an option that is in no page is found" differs '^> --json'
sed 's/^\.It Fl -json/.It Fl -other\n&/' doc/man/penstock-inspect.1 >"$tmp/page"
check "an option that is only in a page is found" differs '^< --other'
sed 's/^Do not read the numbers/The default is 3.\n&/' doc/man/penstock-inspect.1 >"$tmp/page"
check "a wrong default is found" differs '^< --headers-only 3'
finish
