#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What holds for every file: a licence, a place in a list, nothing left half done.
. selftests/lib/ktap.sh

# files TOP: what is part of the tree at TOP, by git where it knows
files()
{
	if [ -e "$1/.git" ] && git -C "$1" rev-parse >/dev/null 2>&1; then
		git -C "$1" ls-files --cached --others --exclude-standard | sort -u |
			while read -r f; do [ ! -f "$1/$f" ] || echo "$f"; done
	else
		(cd "$1" && find . -name .git -prune -o -name 'build*' -prune -o -type f -print) |
			sed 's|^\./||' | sort
	fi
}

# Data and licence texts have no place for a comment; .reuse/dep5 speaks for them.
without_licence()
{
	files "$1" | grep -vE '^(LICENSES|\.reuse|selftests/goldens/.*/|selftests/fuzz/corpus)|^\.gitignore$' |
		while read -r f; do
			awk 'NR <= 5 && /SPDX-License-Identifier: / { found = 1 } END { exit !found }' "$1/$f" ||
				echo "$f: no SPDX line"
		done
}

# licences TOP: identifiers used by files of which LICENSES has no text
without_text()
{
	files "$1" | while read -r f; do
		head -n 5 "$1/$f" | sed -n 's/.*SPDX-License-Identifier: \([-A-Za-z0-9.() ]*\).*/\1/p'
	done | tr -s ' ()' '\n' | grep -vE '^(AND|OR|WITH|-*)$' | sort -u | while read -r id; do
		[ -f "$1/LICENSES/$id.txt" ] || echo "no LICENSES/$id.txt"
	done
}

# The words are cut in two so that this file is none of those that it finds.
half_done()
{
	files "$1" | grep -E '\.([chS]|sh|mk|py|md|[1-9])$|Makefile$' | while read -r f; do
		(cd "$1" && grep -HnE '\b(TO''DO|FIX''ME|XX''X)\b|^#[ 	]*if 0\b' "$f")
	done
	return 0
}

# A machine's own paths have no business here.
machine_paths()
{
	files "$1" | grep -vE '^(LICENSES|selftests/goldens/.*/|selftests/fuzz/corpus)' | while read -r f; do
		(cd "$1" && grep -HnIE '(^|[^A-Za-z0-9_.])/(wo''rk|ro''ot|ho''me)/[a-z]' "$f")
	done
	return 0
}

# lists TOP: every list of every sources.mk, a line "FILE LIST ENTRY BLOCK" per entry
lists()
{
	(cd "$1" && awk '
		/[:+]= *\\$/ { list = $1; block++; next }
		/# EOL/ { list = ""; next }
		$1 ~ /-(y|programs|benches)$/ && $2 == "+=" { for (i = 3; i <= NF; i++) print FILENAME, $1, $i, ++block }
		list != "" { sub(/ *\\$/, ""); sub(/^[ \t]+/, ""); print FILENAME, list, $0, block }' ./*/sources.mk) |
		sed 's|^\./||'
}

unsorted()
{
	lists "$1" | awk '
		$4 == block && $3 <= before { print $1 ": " $2 ": " $3 " comes before " before }
		{ block = $4; before = $3 }'
}

# Sources in no list, and listed files that are not there.
unlisted()
{
	{
		lists "$1" | awk '$2 ~ /^selftests-(programs|vm|module|benches)$/ { print "selftests/" $3 ".c"; next }
			$2 ~ /^selftests-.*scripts$/ { print "selftests/" $3; next }
			$2 == "selftests-fuzz" { print "selftests/fuzz/" $3 ".c"; next }
			$2 ~ /-programs$|-static$|^selftests-(slow|slowest|tsan|unwatched)$/ { next }
			{ print $3 }' | sort -u
	} >"$tmp/listed"
	files "$1" | grep -E '^(kernels|rdma|runtime|tools|daemon|selftests)/.*\.c$|^selftests/.*/.*\.sh$' |
		grep -vE '^selftests/(lib/ktap|fuzz/fuzz|train/runs)\.sh$' | sort >"$tmp/there"
	comm -13 "$tmp/listed" "$tmp/there" | sed 's/$/: in no sources.mk/'
	comm -23 "$tmp/listed" "$tmp/there" | while read -r f; do
		[ -e "$1/$f" ] || echo "$f: listed and not there"
	done
}

# Names in the lists that choose among tests must be names of tests.
unknown()
{
	lists "$1" | awk '
		$2 == "selftests-programs" || $2 == "selftests-scripts" { known[$3] = 1 }
		$2 ~ /^selftests-(slow|slowest|tsan|unwatched)$/ { asked[$3] = $2 }
		END { for (name in asked) if (!(name in known)) print asked[name] ": no test " name }'
}

# Scripts that are run are executable.
not_executable()
{
	files "$1" | while read -r f; do
		[ "$(head -c 2 "$1/$f" | tr -d '\0')" != '#!' ] || [ -x "$1/$f" ] || echo "$f: not executable"
	done
	return 0
}

# found WHAT TEXT: the finder WHAT says TEXT about the tree at $tmp/top
found()
{
	local out
	out=$("$1" "$tmp/top")
	case $out in
	*"$2"*) ;;
	*) printf '%s said: %s\n' "$1" "$out"; return 1 ;;
	esac
}

check "every file has an SPDX line" none without_licence .
check "every licence has its text" none without_text .
check "nothing is half done" none half_done .
check "no path of one machine" none machine_paths .
check "every list is sorted" none unsorted .
check "every source is listed, everything listed is there" none unlisted .
check "lists of tests name tests" none unknown .
check "scripts are executable" none not_executable .

# The same finders over a tree where all of it is wrong.
mkdir -p "$tmp/top/rdma" "$tmp/top/selftests/rdma" "$tmp/top/LICENSES"
printf '// TO''DO later\n' >"$tmp/top/rdma/a.c"
printf '/* SPDX-License-Identifier: Odd-1.0 */\n#if 0\n#endif\n' >"$tmp/top/rdma/b.c"
printf '#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\ncd /ho''me/me\n' >"$tmp/top/selftests/rdma/s.sh"
printf 'rdma-y := \\\n\trdma/z.c \\\n\trdma/b.c \\\n\t# EOL\n' >"$tmp/top/rdma/sources.mk"
printf 'selftests-tsan := \\\n\trdma/none \\\n\t# EOL\n' >"$tmp/top/selftests/sources.mk"
check "a missing SPDX line is found" found without_licence "rdma/a.c: no SPDX line"
check "a missing licence text is found" found without_text "no LICENSES/Odd-1.0.txt"
check "a word for later is found" found half_done "rdma/a.c:1:"
check "code that is switched off is found" found half_done "rdma/b.c:2:"
check "a path of one machine is found" found machine_paths "s.sh:3:"
check "an unsorted list is found" found unsorted "rdma/b.c comes before rdma/z.c"
check "an unlisted source is found" found unlisted "rdma/a.c: in no sources.mk"
check "a listed file that is not there is found" found unlisted "rdma/z.c: listed and not there"
check "a list with an unknown test is found" found unknown "selftests-tsan: no test rdma/none"
check "a script that cannot run is found" found not_executable "s.sh: not executable"
finish
