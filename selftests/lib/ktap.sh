# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# ktap.sh - a KTAP program in shell; source it from the top of the tree
#
#	check NAME COMMAND...	ok when the command succeeds; what it printed explains a failure
#	none COMMAND...		succeeds when the command succeeds and prints nothing
#	refused TEXT COMMAND...	succeeds when the command fails and says TEXT
#	skip NAME WHY COMMAND	WHY it cannot run here, and the COMMAND that makes it run
#	finish			the plan, and the exit status
#
# $tmp is a folder for the script alone, removed when it ends.
set -u -o pipefail
export LC_ALL=C

number=0 failures=0
tmp=$(mktemp -d) || exit 1
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
echo "KTAP version 1"

check()
{
	local name=$1
	shift
	number=$((number + 1))
	if "$@" >"$tmp/said" 2>&1 </dev/null; then
		echo "ok $number $name"
	else
		sed 's/^/# /' "$tmp/said"
		echo "not ok $number $name"
		failures=$((failures + 1))
	fi
}

none()
{
	local out
	out=$("$@" 2>&1) && [ -z "$out" ] && return
	printf '%s\n' "$out"
	return 1
}

refused()
{
	local text=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "not refused: $*"
		return 1
	fi
	case $out in
	*"$text"*) return 0 ;;
	esac
	printf '%s\nnot in there: %s\n' "$out" "$text"
	return 1
}

skip()
{
	number=$((number + 1))
	echo "ok $number $1 # SKIP $2 (to run it: $3)"
}

finish()
{
	echo "1..$number"
	[ "$failures" -eq 0 ] && [ "$number" -gt 0 ]
	exit
}
