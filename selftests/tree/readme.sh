#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# README.md is true: every command in its blocks of sh is run, its program in C is built and run.
#
# They run in a copy of the tree made of links, where build/run is a checkpoint of the smallest
# model and build/penstock trains for as few steps as will do. What takes long is known by name:
#	make run      its recipe is looked at, and the penstock that it would run is run, shortly
#	make check    is what runs this
#	make quick, make bench	make help names them
. selftests/lib/ktap.sh

unset CC CFLAGS CPPFLAGS LDFLAGS LDLIBS SAN V MODEL STEPS WORKERS SERVERS DATA OUT RUN
src=$PWD
top=$tmp/top
few="--batch 1 --seq 64 --sample 20"
mkdir -p "$top/build"
for f in "$src"/* "$src"/.[a-z]*; do
	case ${f##*/} in
	build | build-* | .git) ;;
	*) ln -s "$f" "$top/${f##*/}" ;;
	esac
done
for f in "$O"/*; do
	case ${f##*/} in
	run | manpages* | penstock) ;;
	*) ln -s "$f" "$top/build/${f##*/}" ;;
	esac
done
echo "$src/selftests/train/text.txt" >"$top/build/manpages.list"
cat >"$top/build/penstock" <<END
#!/bin/sh
[ "\$1" = train ] && exec "$O/penstock" "\$@" --steps 3 $few
exec "$O/penstock" "\$@"
END
chmod +x "$top/build/penstock"

# blocks FILE LANGUAGE: what stands in its blocks, a blank line behind each
blocks()
{
	awk -v open="\`\`\`$2" '
		$0 == open { inside = 1; next }
		/^```/ && inside { inside = 0; print "" }
		inside' "$1"
}

# A line per command: comments taken off, continued lines joined. From one in the background to the kill
# that ends it is one command.
commands()
{
	blocks "$1" sh | sed -e ':a' -e '/\\$/{N;s/\\\n[ 	]*//;ba' -e '}' -e 's/[ 	]*#.*//' -e '/^[ 	]*$/d' |
		sed -e ':b' -e '/ &$/{N;s/\n/ /;bb' -e '}' -e '/ & /{' -e ':c' -e '/; kill /!{N;s/\n/; /;bc' -e '}' -e '}'
}

# The train line of what make would do.
recipe()
{
	make -n -C "$top" O=build "$@" | sed -e ':a' -e '/\\$/{N;s/[ 	]*\\\n[ 	]*/ /;ba' -e '}' |
		grep '^build/penstock train ' | tr -s ' ' | sed 's/ $//'
}

# What it left in the background ends with it, and what fails on the way is heard.
in_top()
{
	(cd "$top" && bash -ec "trap 'kill \$(jobs -p) 2>/dev/null || :' EXIT; $1")
}

make_run()
{
	local line words
	eval "words=(${1#make })"
	line=$(recipe "${words[@]}") && [ -n "$line" ] || { echo "no penstock train in: $1"; return 1; }
	in_top "$line"
}

pkg-config()
{
	PKG_CONFIG_PATH=$tmp/root/usr/lib/pkgconfig command pkg-config \
		--define-variable=prefix="$tmp/root/usr" "$@"
}
export -f pkg-config
export tmp LD_LIBRARY_PATH=$tmp/root/usr/lib

helped()
{
	make -s help | grep -q "^$1 "
}

run_command()
{
	case $1 in
	"make run" | "make run "*) make_run "$1" ;;
	"make check" | "make quick" | "make bench") helped "$1" ;;
	*) in_top "$1" ;;
	esac
}

check "the library is installed for it" make -s O="$O" DESTDIR="$tmp/root" prefix=/usr install
check "there is a checkpoint for it" in_top "$O/penstock train --preset nano --steps 2 $few \
	--data selftests/train/text.txt --embedded --out build/run"

commands README.md >"$tmp/commands"
while read -r line; do
	check "$line" run_command "$line"
done <"$tmp/commands"
check "there are commands" test "$(wc -l <"$tmp/commands")" -ge 10
check "make run and make check are among them" sh -c \
	"grep -qx 'make run' '$tmp/commands' && grep -qx 'make check' '$tmp/commands'"

program()
{
	blocks README.md c >"$tmp/program.c"
	# shellcheck disable=SC2046 # words
	[ -s "$tmp/program.c" ] && gcc -Wall -Wextra -Werror -o "$tmp/program" "$tmp/program.c" \
		$(pkg-config --cflags --libs penstock) && "$tmp/program" "$src/selftests/train/text.txt"
}
check "its program in C builds and runs" program

# The variables of make run reach penstock.
wired()
{
	local want=$1 line
	shift
	line=$(recipe run "$@")
	[ "$line" = "build/penstock train $want" ] || { echo "$line"; return 1; }
}
check "make run has its variables" wired \
	"--preset nano --data a b --steps 7 --workers 3 --servers 2 --out c --embedded" \
	MODEL=nano DATA="a b" STEPS=7 WORKERS=3 SERVERS=2 OUT=c RUN=--embedded
check "make run takes a config" wired \
	"--config m/config.json --data a --steps 7 --workers 3 --servers 2 --out build/run" \
	MODEL=m/config.json DATA=a STEPS=7 WORKERS=3 SERVERS=2
check "make run reads manual pages by itself" wired \
	"--preset nano --data @build/manpages.list --steps 7 --workers 2 --servers 1 --out build/run" \
	MODEL=nano STEPS=7

# Every option and variable that it mentions is one.
mentioned()
{
	"$O/penstock" train --help >"$tmp/help"
	for command in generate inspect; do "$O/penstock" "$command" --help; done >>"$tmp/help"
	for program in penstock-ps penstock-worker "penstock-perf pull" penstockd "penstockctl" "penstockctl top"; do
		$O/$program --help
	done >>"$tmp/help"
	grep -oE -- '(^|[ `"(])--[a-z][a-z-]+' README.md | grep -oE -- '--[a-z-]+' | sort -u |
		while read -r option; do
			case $option in
			--cflags | --libs | --help) ;;
			*) grep -q -- "^  $option\b" "$tmp/help" || echo "$option: no such option" ;;
			esac
		done
	make -s help >"$tmp/help"
	grep -oE '`[A-Z]+=?`' README.md | tr -d '`=' | sort -u | while read -r variable; do
		grep -qE "\b$variable=" "$tmp/help" || echo "$variable: make help does not have it"
	done
}
check "its options and variables exist" none mentioned

# What a resume goes on to lies behind what make run has done.
resumes_further()
{
	local done further
	done=$(sed -n 's/^STEPS ?= //p' Makefile)
	further=$(grep -e '--resume' "$tmp/commands" | grep -oE -- '--steps [0-9]+' | cut -d ' ' -f 2)
	[ "$further" -gt "$done" ]
}
check "the resume goes further than make run" resumes_further

# What the transcript shows is what penstock prints, but for numbers.
printed()
{
	in_top "build/penstock train --preset nano --data @build/manpages.list --out build/printed" >"$tmp/said"
	blocks README.md text | grep -E '^(Model|Text|Parts|  engine|  server|  worker|step|  from|Held-out)' |
		while read -r first rest; do
			grep -q "^ *$first " "$tmp/said" || grep -qx "$first" "$tmp/said" ||
				echo "penstock does not say: $first $rest"
		done
	blocks README.md text | grep -q 'Held-out text' || echo "no transcript"
}
check "its transcript has the lines that penstock prints" none printed

printf '```sh\nmake run NO\\\n  SUCH=1 # but\n\n```\nand `false`\n```c\nint x;\n```\n' >"$tmp/text"
printf '```sh\na &\nb &\nc d\nkill %%1\ne\n```\n' >"$tmp/jobs"
joins()
{
	[ "$(commands "$tmp/jobs")" = "a & b & c d; kill %1
e" ] && [ "$(commands "$tmp/text")" = "make run NOSUCH=1" ] && [ "$(blocks "$tmp/text" c)" = "int x;" ]
}
check "commands are found, joined and stripped" joins
check "a command that fails is seen" refused "nowhere" run_command "build/penstock inspect nowhere"
finish
