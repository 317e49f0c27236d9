#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check.sh GPU-CHECK [NAME...] - run it, and its small sizes under memcheck and racecheck
#
# SMALL, a regular expression, says which are small. The status is that of gpu-check, or 1 if a tool
# has found something.
set -u
program=$1
shift
small=${SMALL-stays_within_its_buffers|small|\.uneven\.}
"$program" "$@" || exit

tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -z "$tool" ]; then
	echo "# memcheck and racecheck: left out, compute-sanitizer is not here (it comes with the" \
		"CUDA toolkit: put it into PATH)"
	exit 0
fi
failed=0
for check in memcheck racecheck; do
	n=0
	for name in $("$program" -l "$@" | grep -E "$small"); do
		n=$((n + 1))
		"$tool" --tool "$check" --error-exitcode 1 "$program" --here "$name" >"$program.log" 2>&1 &&
			continue
		sed 's/^/# /' "$program.log"
		echo "not ok $check $name"
		failed=$((failed + 1))
	done
	echo "# $check: $n tests"
	[ "$n" -gt 0 ] || failed=$((failed + 1))
done
[ "$failed" -eq 0 ]
