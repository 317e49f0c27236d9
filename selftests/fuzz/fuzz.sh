#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh NAME - one fuzzer over its seeds and FUZZ_RUNS inputs more, the same in every run
#
# What it finds lies in $O/fuzz-found; FUZZ_RUNS=-1 FUZZ_SECONDS=3600 hunts for an hour.
set -u
name=${1:?usage: fuzz.sh NAME}
fuzzer=$O/selftests/fuzz/$name
seeds=selftests/fuzz/corpus/$name
found=$O/fuzz-found/$name

echo "KTAP version 1"
echo 1..1
mkdir -p "$found/new"
set -- "$found/new"
[ ! -d "$seeds" ] || set -- "$@" "$seeds"
rm -f "$found"/new/*
if "$fuzzer" -seed=1 -runs="${FUZZ_RUNS:-50000}" -max_total_time="${FUZZ_SECONDS:-15}" \
	-timeout=10 -print_final_stats=1 -artifact_prefix="$found/" "$@" >"$found/log" 2>&1; then
	sed -n 's/^stat::/#/p' "$found/log"
	echo "ok 1 $name"
else
	sed 's/^/# /' "$found/log"
	echo "# to see it again: $fuzzer $(ls -t "$found"/*-* 2>/dev/null | head -1)"
	echo "not ok 1 $name"
	exit 1
fi
