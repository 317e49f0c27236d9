#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The runner counts what programs say, and believes none that breaks its own plan.
. selftests/lib/ktap.sh

# program NAME: what it does is on stdin
program()
{
	{ echo '#!/bin/sh'; cat; } >"$tmp/$1"
	chmod +x "$tmp/$1"
}

# closes COUNTS OPTION... PROGRAM...: the last line is COUNTS, the exit status agrees with it
closes()
{
	local want=$1 status=0 last expect=0
	shift
	selftests/run -O "$tmp" "$@" >"$tmp/out" 2>&1 || status=$?
	cat "$tmp/out"
	last=$(tail -n 1 "$tmp/out")
	[ "$last" = "$want" ] || { echo "closed with: $last"; return 1; }
	case $want in
	*' 0 failed, '*) ;;
	*) expect=1 ;;
	esac
	[ "$status" -eq "$expect" ] || { echo "exit status $status"; return 1; }
}

says()
{
	grep -qF -e "$1" "$tmp/out" || { cat "$tmp/out"; echo "not said: $1"; return 1; }
}

# again LINE LINE: they end the list of what failed
again()
{
	tail -n 3 "$tmp/out" | head -n 2 | diff - <(printf '%s\n' "$@")
}

program good <<'END'
printf 'KTAP version 1\n1..2\n# hello\nok 1 one\nok 2 two\n'
END
program plan-last <<'END'
printf 'TAP version 13\nok 1 - one\n1..1\n'
END
program one-bad <<'END'
printf '1..3\nok 1 a\n# because\nnot ok 2 b\nok 3 c # SKIP no GPU\n'
exit 1
END
program bad-exit-0 <<'END'
printf '1..1\nnot ok 1 a\n'
END
program none-here <<'END'
echo '1..0 # SKIP no kernel'
exit 4
END
program empty-plan <<'END'
echo '1..0'
END
program silent </dev/null
program too-few <<'END'
printf '1..3\nok 1 a\n'
END
program too-many <<'END'
printf '1..1\nok 1 a\nok 2 b\n'
END
program renumbered <<'END'
printf '1..2\nok 1 a\nok 1 b\n'
END
program two-plans <<'END'
printf '1..1\nok 1 a\n1..1\n'
END
program exits-3 <<'END'
printf '1..1\nok 1 a\n'
exit 3
END
program crashes <<'END'
printf '1..1\nok 1 a\n'
kill -SEGV $$
END
program bails <<'END'
printf '1..1\nok 1 a\nBail out! no disk\n'
END
program nested <<'END'
printf '1..1\n    1..2\n    ok 1 x\n    not ok 2 y\nok 1 a\n'
END
program hangs <<END
echo 1..1
echo \$\$ >$tmp/hung.pid
sleep 1000 &
echo \$! >$tmp/left.pid
trap '' TERM
while :; do sleep 1; done
END
program leaves <<END
sleep 1000 &
echo \$! >$tmp/left2.pid
printf '1..1\nok 1 a\n'
END
program argument <<'END'
[ "$*" = x=1 ] && printf '1..1\nok 1 a\n'
END
program looks <<'END'
printf '1..2\n'
[ -e selftests/run ] && [ -d "$O" ] && [ "${O#/}" != "$O" ] && echo ok 1 place
read -r line || echo ok 2 no input
END

with_input()
{
	echo line | "$@"
}

gone()
{
	local state
	for pid; do
		state=$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) || state=gone
		case $state in
		Z | gone) ;;
		*) echo "$pid is $state"; return 1 ;;
		esac
	done
}

check "counts passes" closes "2 passed, 0 failed, 0 skipped" "$tmp/good"
check "takes a plan at the end" closes "1 passed, 0 failed, 0 skipped" "$tmp/plan-last"
check "counts each kind" closes "1 passed, 1 failed, 1 skipped" "$tmp/one-bad"
check "shows the output of a failure" says "| # because"
check "lists a skip with its reason" says "one-bad, c: no GPU"
check "names what failed" says "one-bad: b"
check "and what it said of it, at the end" again "  $tmp/one-bad: b" "    # because"
check "adds up programs" closes "5 passed, 1 failed, 1 skipped" "$tmp/good" "$tmp/one-bad" "$tmp/good"
check "counts a failure that exits 0" closes "0 passed, 1 failed, 0 skipped" "$tmp/bad-exit-0"
check "takes a program that skips all" closes "0 passed, 0 failed, 1 skipped" "$tmp/none-here"
check "knows why it skipped" says "none-here: no kernel"
check "refuses an empty plan" closes "0 passed, 1 failed, 0 skipped" "$tmp/empty-plan"
check "refuses silence" closes "0 passed, 1 failed, 0 skipped" "$tmp/silent"
check "says that there was no plan" says "no plan"
check "refuses too few results" closes "1 passed, 1 failed, 0 skipped" "$tmp/too-few"
check "says how many were planned" says "planned 3 tests, 1 results"
check "refuses too many results" closes "2 passed, 1 failed, 0 skipped" "$tmp/too-many"
check "refuses wrong numbers" closes "2 passed, 1 failed, 0 skipped" "$tmp/renumbered"
check "refuses two plans" closes "1 passed, 1 failed, 0 skipped" "$tmp/two-plans"
check "refuses an exit status that nothing explains" \
	closes "1 passed, 1 failed, 0 skipped" "$tmp/exits-3"
check "sees a crash" closes "1 passed, 1 failed, 0 skipped" "$tmp/crashes"
check "names the signal" says "killed by signal 11"
check "sees a bail out" closes "1 passed, 1 failed, 0 skipped" "$tmp/bails"
check "counts a subtest by its parent" closes "1 passed, 0 failed, 0 skipped" "$tmp/nested"
check "ends a hang" closes "0 passed, 1 failed, 0 skipped" -t 1 "$tmp/hangs"
check "says that time was over" says "ran out of time after 1 s"
check "leaves nothing of it" gone "$(cat "$tmp/hung.pid")" "$(cat "$tmp/left.pid")"
check "takes a program that leaves a child" closes "1 passed, 0 failed, 0 skipped" "$tmp/leaves"
check "ends that child" gone "$(cat "$tmp/left2.pid")"
check "fails for a program that is not there" closes "0 passed, 1 failed, 0 skipped" "$tmp/nothing"
check "hands over an argument" closes "1 passed, 0 failed, 0 skipped" "$tmp/argument:x=1"
check "gives a place and no input" with_input closes "2 passed, 0 failed, 0 skipped" "$tmp/looks"
check "fails when nothing ran" refused "0 passed, 0 failed, 0 skipped" selftests/run -O "$tmp"
rm -f "$tmp/record"
check "records a phase" selftests/run -O "$tmp" -p one -o "$tmp/record" "$tmp/good"
check "fails a phase" refused "FAILED" selftests/run -O "$tmp" -p two -o "$tmp/record" "$tmp/one-bad"
check "closes for all phases" refused "3 passed, 1 failed, 1 skipped" selftests/run -T "$tmp/record"
check "names the phase" refused "two $tmp/one-bad: b" selftests/run -T "$tmp/record"
finish
