#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fabric.sh - shm and tcp by penstock-perf, beside what they stand on and beside iperf3 and UCX
#
# O is the build folder. In each of ROUNDS (5) rounds ours and the others take turns, so that what
# else the machine does meets all of them; where a run is short, TURNS (4) times a round, since two
# virtual CPUs are as near to each other as the host likes at the moment. Shown are medians, and the
# medians of the ratios of runs beside each other.
# Where the goal is to be no slower than a peer (1), runs of the same program differ by more than
# the two do at times (both copy 1 MiB at the speed of the memory). So a ratio beyond 1 is "even" as long
# as a sign test does not tell the two apart: so many of the pairs are lost by chance in 1 of 20 tries.
# The two ends are on CPUs 0 and 1. A peer that is not installed is said and left out.
set -eu -o pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

O=${O:-build} ROUNDS=${ROUNDS:-5} turns=${TURNS:-4}
perf=$O/penstock-perf limits=$O/selftests/bench/limits
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
port=$((20000 + $$ % 20000)) round=0

# ours TEST OPTION...: the figure of its one row, us or MiB/s
ours()
{
	"$perf" "$@" --self --pin --json "$tmp/json" >/dev/null
	case $1 in
	*_lat) sed -n 's/.*"t_typical": \([0-9.]*\).*/\1/p' "$tmp/json" ;;
	*) sed -n 's/.*"BW_average": \([0-9.]*\).*/\1/p' "$tmp/json" ;;
	esac
}

# lines: an 8-byte write, a message and two spinning lines, in turns within one pair of processes: the
# host moves virtual CPUs between one core and two sockets, which is 25 to 190 ns, and does it
# between any two runs.
lines()
{
	"$O/selftests/bench/shm" >"$tmp/shm"
	note line-write awk '$1 == 8 { print $2 / 1e3 }' "$tmp/shm"
	note line-send awk '$1 == 8 { print $3 / 1e3 }' "$tmp/shm"
	note line awk '$1 == 8 { print $4 / 1e3 }' "$tmp/shm"
}

# waits PORT: until somebody listens there
listens()
{
	local hex
	hex=$(printf ':%04X' "$1")
	for _ in $(seq 100); do
		grep -qE "$hex [0-9A-F:]+ 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null && return
		sleep 0.05
	done
	return 1
}

# ucx TRANSPORTS TEST SIZE TIMES: us for a latency, else MiB/s
ucx()
{
	port=$((port + 1))
	UCX_TLS=$1 ucx_perftest -p $port -c 1 >/dev/null 2>&1 &
	listens $port
	UCX_TLS=$1 timeout 120 ucx_perftest localhost -p $port -c 0 -t "$2" -s "$3" -n "$4" -f 2>/dev/null |
		awk -v lat="$2" 'END { print lat ~ /lat$/ ? $2 : $6 }'
	wait $!
}

# iperf SECONDS: MiB/s over one connection
iperf()
{
	port=$((port + 1))
	iperf3 -s -1 -p $port >/dev/null 2>&1 &
	listens $port
	iperf3 -c 127.0.0.1 -p $port -t "$1" -A 0,1 -f m |
		awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Mbits/sec") print $(i - 1) * 1e6 / 8 / 1048576 }'
	wait $!
}

# note NAME COMMAND...: its figure of this round
note()
{
	local name=$1 value
	shift
	value=$("$@") || value=
	[ -n "$value" ] || { echo "fabric.sh: $* gave no figure" >&2; value=nan; }
	echo "$value" >>"$tmp/$name"
}

have_ucx=no have_iperf=no
command -v ucx_perftest >/dev/null && have_ucx=yes
command -v iperf3 >/dev/null && have_iperf=yes
peer()
{
	[ "$have_ucx" = no ] || note "$@"
}

while [ $round -lt "$ROUNDS" ]; do
	round=$((round + 1))
	for _ in $(seq "$turns"); do
		lines
		note shm-write-lat ours write_lat --fabric shm -s 8 -n 50000
		peer ucx-shm-put-lat ucx sm,self ucp_put_lat 8 50000
		note shm-send-lat ours send_lat --fabric shm -s 8 -n 50000
		peer ucx-shm-tag-lat ucx sm,self tag_lat 8 50000
	done
	for _ in $(seq "$turns"); do
		note memcpy "$limits" memcpy 1048576
		note shm-write-bw ours write_bw --fabric shm -s 1M -n 4096
		peer ucx-shm-bw ucx sm,self ucp_put_bw 1048576 4096
	done
	for _ in $(seq "$turns"); do
		note socket "$limits" socket 8
		note tcp-send-lat ours send_lat --fabric tcp -s 8 -n 20000
		peer ucx-tcp-lat ucx tcp tag_lat 8 20000
		note tcp-write-lat ours write_lat --fabric tcp -s 8 -n 20000
	done
	for _ in 1 2; do
		[ $have_iperf = no ] || note iperf iperf 2
		note tcp-write-bw ours write_bw --fabric tcp -s 1M -D 2
		peer ucx-tcp-bw ucx tcp ucp_put_bw 1048576 4000
	done
done

median()
{
	grep -v nan "$1" | sort -g | awk '{ v[NR] = $1 } END { print NR ? NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 : "nan" }'
}

# row WHAT OURS OF FORMAT GOAL: GOAL is "<= 1.3" or ">= 0.9", or - for a figure without one
row()
{
	local ratio
	[ -f "$tmp/$3" ] || return 0
	paste "$tmp/$2" "$tmp/$3" | awk '$1 != "nan" && $2 != "nan" { print $1 / $2 }' >"$tmp/ratio"
	ratio=$(median "$tmp/ratio")
	awk -v what="$1" -v a="$(median "$tmp/$2")" -v b="$(median "$tmp/$3")" -v r="$ratio" -v f="$4" -v goal="$5" '
	function reached(x) { return g[1] == "<=" ? x + 0 <= g[2] + 0 : x + 0 >= g[2] + 0 }
	# the chance that at least @k of @n pairs are lost if neither is better
	function chance(k, n,   i, j, c, sum) {
		for (i = k; i <= n; i++) {
			for (c = j = 1; j <= i; j++)
				c *= (n - i + j) / j
			sum += c / 2 ^ n
		}
		return sum
	}
	BEGIN { split(goal, g, " ") }
	{ n++; lost += !reached($1) }
	END {
		verdict = goal == "-" ? "" : r == "nan" ? "?" : reached(r) ? "met" : "NOT MET"
		if (verdict == "NOT MET" && g[2] == 1 && chance(lost, n) > 0.05)
			verdict = "even (" lost " of " n " lost)"
		printf "%-46s " f " " f " %8.2f   %s %s\n", what, a, b, r, goal, verdict
	}' "$tmp/ratio"
}

echo "Medians of $ROUNDS rounds; the two ends on CPUs 0 and 1"
printf '%-46s %12s %12s %8s   %s\n' '' ours other ratio goal
row 'shm 8 B write / two spinning lines [us]' line-write line '%12.3f' '<= 1.3'
row 'shm 8 B message / two spinning lines [us]' line-send line '%12.3f' -
row 'shm 1 MiB write / memcpy [MiB/s]' shm-write-bw memcpy '%12.0f' '>= 0.9'
row 'tcp 8 B message / blocking sockets [us]' tcp-send-lat socket '%12.2f' '<= 1.15'
row 'tcp 8 B write / blocking sockets [us]' tcp-write-lat socket '%12.2f' '<= 1.15'
row 'tcp 1 MiB write / iperf3 [MiB/s]' tcp-write-bw iperf '%12.0f' '>= 0.9'
row 'shm 8 B write / UCX put [us]' shm-write-lat ucx-shm-put-lat '%12.3f' '<= 1'
row 'shm 8 B message / UCX tag [us]' shm-send-lat ucx-shm-tag-lat '%12.3f' '<= 1'
row 'shm 1 MiB write / UCX put [MiB/s]' shm-write-bw ucx-shm-bw '%12.0f' '>= 1'
row 'tcp 8 B message / UCX tag [us]' tcp-send-lat ucx-tcp-lat '%12.2f' '<= 1'
row 'tcp 1 MiB write / UCX put [MiB/s]' tcp-write-bw ucx-tcp-bw '%12.0f' '>= 1'
[ $have_ucx = yes ] || echo "UCX: skipped, no ucx_perftest (apt-get install -y ucx-utils)"
[ $have_iperf = yes ] || echo "iperf3: skipped, not there (apt-get install -y iperf3)"
