#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# verbs.sh - verbs by penstock-perf beside perftest, in one boot of a virtual machine
#
# Between two soft-RoCE devices on a cable, one queue pair, the same depth, the client on CPU 0 and
# the server on CPU 1, both polling. In each of ROUNDS (5) rounds the two run one after the other, and
# change their order from turn to turn, so that what else the host does falls on both. An emulated
# machine is in turns fast and slow, for seconds and by a factor of two or three, whoever runs: trips
# of 8 bytes are taken TURNS (8) times a round, TRIPS (300) each, and what goes through TURNS_BW (3)
# times, MIB (16) each; the round's figure of either tool is that of its best turn. Shown are the
# medians over the rounds of what the tools say (t_typical, BW average), the medians of the rounds'
# ratios, and the lowest and highest of these. O is the build folder.
#
# QEMU gives an emulated CPU's TLB more or fewer entries, 64 at least, by what that CPU did in the
# last tenths of a second, and a trip's time follows it: how a tool sets its connection up would be
# measured too. So while trips are timed, a process on CPU 0 touches 8 MB every 30 ms.
# The machine is emulated: only ratios mean something.
set -eu -o pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

O=${O:-build} ROUNDS=${ROUNDS:-5}
depth=${DEPTH:-16} trips=${TRIPS:-300} turns=${TURNS:-8} turns_bw=${TURNS_BW:-3} mib=${MIB:-16}

if [ "${1:-}" != inside ]; then
	if ! command -v ib_write_lat >/dev/null; then
		echo "perftest: skipped, not there (apt-get install -y perftest)"
		exit 4
	fi
	O=$(cd "$O" && pwd)
	export O
	mkdir -p "$O/vm/bench"
	exec selftests/vm/run -t 2400 -o "$O/vm/bench" -- \
		env ROUNDS="$ROUNDS" DEPTH="$depth" TRIPS="$trips" TURNS="$turns" TURNS_BW="$turns_bw" MIB="$mib" \
		bash selftests/bench/verbs.sh inside
fi

tmp=$VM_OUT key=$VM_OUT/key
rm -f "$tmp"/*
(umask 077 && head -c 32 /dev/urandom | base64 >"$key")

# listens PORT: until somebody listens there by TCP
listens()
{
	local hex
	hex=$(printf ':%04X' "$1")
	for _ in $(seq 200); do
		grep -qE "$hex [0-9A-F:]+ 0A" /proc/net/tcp /proc/net/tcp6 && return
		sleep 0.1
	done
	return 1
}

# theirs TEST SIZE TIMES: us or MiB/s; a read or write of perftest
theirs()
{
	local depth_option=''
	case $1 in *_bw) depth_option="-t $depth" ;; esac
	# shellcheck disable=SC2086 # words
	taskset -c 1 "ib_$1" -d rxe1 -x 0 -F -s "$2" -n "$3" $depth_option >/dev/null 2>&1 &
	listens 18515
	# shellcheck disable=SC2086 # words
	taskset -c 0 "ib_$1" -d rxe0 -x 0 -F -s "$2" -n "$3" $depth_option 127.0.0.1 >"$tmp/theirs.out" 2>"$tmp/theirs.err"
	wait $!
	awk -v size="$2" -v lat="$1" '$1 == size && NF > 4 { print lat ~ /lat$/ ? $5 : $4 }' \
		"$tmp/theirs.out"
}

# ours TEST SIZE TIMES, against the server that runs
ours()
{
	local depth_option=''
	case $1 in *_bw) depth_option="-t $depth" ;; esac
	# shellcheck disable=SC2086 # words
	"$O/penstock-perf" "$1" 'fe80::ff:fe00:2%va' --fabric verbs -d rxe0 --key "$key" --cpu 0 \
		-s "$2" -n "$3" $depth_option --json "$tmp/json" >/dev/null
	case $1 in
	*_lat) sed -n 's/.*"t_typical": \([0-9.]*\).*/\1/p' "$tmp/json" ;;
	*) sed -n 's/.*"BW_average": \([0-9.]*\).*/\1/p' "$tmp/json" ;;
	esac
}

# note FILE COMMAND...: what the command prints, or nan
note()
{
	local file=$tmp/$1 value
	shift
	value=$("$@") || value=
	[ -n "$value" ] || { echo "verbs.sh: $* gave no figure" >&2; cat "$tmp/theirs.err" >&2; value=nan; }
	echo "$value" >>"$file"
}

# both TEST SIZE TIMES TURN
both()
{
	[ $(($4 % 2)) -eq 0 ] || note theirs.turns theirs "$1" "$2" "$3"
	note ours.turns ours "$1" "$2" "$3"
	[ $(($4 % 2)) -ne 0 ] || note theirs.turns theirs "$1" "$2" "$3"
}

# best TEST SIZE: the turns become the figure of a round
best()
{
	local who
	for who in ours theirs; do
		case $1 in
		*_lat) sed /nan/d "$tmp/$who.turns" | sort -g ;;
		*) sed /nan/d "$tmp/$who.turns" | sort -gr ;;
		esac | awk 'NR == 1 { v = $1 } END { print NR ? v : "nan" }' >>"$tmp/$who-$1-$2"
		rm "$tmp/$who.turns"
	done
}

# same TEST: what both say of how they ran
same()
{
	awk -F: -v test="$1" '{ gsub(/^ +| +$/, "", $1) }
		$1 ~ /^(Number of qps|TX depth|Mtu)$/ { split($2, v, " "); said = said ", " $1 " " v[1] }
		END { print "perftest " test ": " substr(said, 3) }' "$tmp/theirs.out"
	sed -nE 's/.*"(Number_of_qps|TX_depth|Mtu|Max_inline_data|completions)": ([^,]*),?$/\1 \2/p' \
		"$tmp/json" | paste -sd, | sed "s/,/, /g; s/^/penstock-perf $1: /"
}

median()
{
	grep -v nan "$1" | sort -g | awk '{ v[NR] = $1 } END { print NR ? NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 : "nan" }'
}

# row TEST SIZE GOAL
row()
{
	local ratio range
	paste "$tmp/ours-$1-$2" "$tmp/theirs-$1-$2" | awk '$1 != "nan" && $2 != "nan" { print $1 / $2 }' >"$tmp/ratio"
	ratio=$(median "$tmp/ratio")
	range=$(sort -g "$tmp/ratio" | awk 'NR == 1 { low = $1 } END { printf "%.2f to %.2f", low, $1 }')
	awk -v what="$1" -v size="$2" -v a="$(median "$tmp/ours-$1-$2")" \
		-v b="$(median "$tmp/theirs-$1-$2")" -v r="$ratio" -v range="$range" -v goal="$3" 'BEGIN {
		split(goal, g, " ")
		met = g[1] == "<=" ? r + 0 <= g[2] + 0 : r + 0 >= g[2] + 0
		printf "%-10s %9d %-6s %12.2f %12.2f %8.2f %15s   %s %s\n", what, size, what ~ /lat$/ ? "us" : "MiB/s",
			a, b, r, range, goal, r == "nan" ? "?" : met ? "met" : "NOT MET"
	}'
}

# the server of ours is there all the time, and sleeps when it is not asked for anything
"$O/penstock-perf" write_lat --fabric verbs -d rxe1 --bind 'fe80::ff:fe00:2%vb' --key "$key" --cpu 1 \
	>"$tmp/server" 2>&1 &
server=$!
for _ in $(seq 100); do
	grep -q serves "$tmp/server" && break
	kill -0 $server 2>/dev/null || break
	sleep 0.1
done
grep -q serves "$tmp/server" || { cat "$tmp/server" >&2; exit 1; }

for round in $(seq "$ROUNDS"); do
	# shellcheck disable=SC2016 # perl's
	taskset -c 0 perl -e 'for (;;) { my $s = "a" x 8e6; undef $s; select undef, undef, undef, 0.03 }' &
	toucher=$!
	for test in write_lat read_lat; do
		for turn in $(seq "$turns"); do
			both $test 8 "$trips" $((round + turn))
		done
		best $test 8
		[ "$round" -gt 1 ] || same $test
	done
	kill $toucher
	wait $toucher || true
	for test in write_bw read_bw; do
		for size in 65536 1048576; do
			for turn in $(seq "$turns_bw"); do
				both $test $size $((mib * 1048576 / size)) $((round + turn))
			done
			best $test $size
		done
		[ "$round" -gt 1 ] || same $test
	done
done
kill $server
wait $server || true

echo "Two soft-RoCE devices in one emulated machine, depth $depth, medians of $ROUNDS rounds"
printf '%-10s %9s %-6s %12s %12s %8s %15s   %s\n' test '#bytes' '' ours perftest ratio range goal
row write_lat 8 '<= 1.05'
row read_lat 8 '<= 1.05'
for size in 65536 1048576; do
	row write_bw $size '>= 0.95'
	row read_bw $size '>= 0.95'
done
