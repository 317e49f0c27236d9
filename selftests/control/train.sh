#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Training under penstockd, with workers and a server that it started: the same bits as in one
# process; again when a worker is drained, when one is killed, and when the daemon itself is killed
# and another one takes its place, in the middle of it; and while a kernel is swapped 100 times.
# shellcheck source=selftests/lib/ktap.sh
. selftests/lib/ktap.sh
tmp=${tmp:?} O=${O:-build}
export PENSTOCK_SOCKET=$tmp/s
shape=(--preset nano --data selftests/train/text.txt --batch 2 --seq 128 --json -)
steps=300
ctl=("$O/penstockctl")

start_daemon()
{
	"$O/penstockd" --config "$tmp/conf" --socket "$tmp/s" 2>>"$tmp/log" &
	daemon=$!
	for _ in $(seq 200); do
		"${ctl[@]}" info >"$tmp/out" 2>&1 && return
		sleep 0.05
	done
	cat "$tmp/out" "$tmp/log"
	return 1
}

# value KEY: of the run's JSON
value()
{
	sed -n 's/.*"'"$1"'": "\{0,1\}\([^",]*\).*/\1/p' "$tmp/run" | head -n 1
}

# field WORKER NAME: of its JSON
field()
{
	"${ctl[@]}" --json workers | sed -n '/"id": '"$1"',/,/}/s/.*"'"$2"'": "\{0,1\}\([^",]*\).*/\1/p'
}

in_one_process()
{
	"$O/penstock" train "${shape[@]}" --steps $steps --embedded >"$tmp/run" 2>"$tmp/err" || { cat "$tmp/err"; return 1; }
	want=$(value loss_digest)
	[ -n "$want" ]
}

begin()
{
	local before rows
	before=$(field 1 rows)
	"$O/penstock" train "${shape[@]}" --steps $steps "--daemon=$tmp/s" >"$tmp/run" 2>"$tmp/err" &
	run=$!
	# under way: workers compute
	for _ in $(seq 400); do
		rows=$(field 1 rows)
		[ "${rows:-0}" -le $((${before:-0} + 2000)) ] || return 0
		kill -0 $run 2>/dev/null || break
		sleep 0.02
	done
	cat "$tmp/err"
	echo "it did not begin"
	return 1
}

same()
{
	wait "$run" || { cat "$tmp/err"; return 1; }
	[ "$(value loss_digest)" = "$want" ] && return
	echo "digest $(value loss_digest), not $want"
	return 1
}

undisturbed()
{
	begin && same
}

# In the middle of the run, which goes on with the other.
drained()
{
	begin && "${ctl[@]}" worker drain 2 && kill -0 $run && same && [ "$(field 2 state)" = stopped ]
}

another_one()
{
	"${ctl[@]}" worker start >"$tmp/out" && grep -q "worker 3" "$tmp/out"
}

killed()
{
	begin && kill -KILL "$(field 1 pid)" && same
}

# Workers, the server and the pool are the same processes and bytes after it.
daemon_killed()
{
	local pids read
	pids="$(field 1 pid) $(field 3 pid)"
	"${ctl[@]}" pool create kept 4M >"$tmp/out" || return
	begin && kill -KILL $daemon && { wait $daemon 2>/dev/null; true; } && start_daemon &&
		kill -0 $run && same || return
	[ "$(field 1 pid) $(field 3 pid)" = "$pids" ] || { echo "other workers than $pids"; return 1; }
	"${ctl[@]}" pools | grep -q kept || { "${ctl[@]}" pools; return 1; }
	read=$("${ctl[@]}" --json servers | sed -n 's/.*"read_bytes": \([0-9]*\).*/\1/p')
	[ "$read" = 0 ] || { echo "read from disk: $read"; return 1; }
	undisturbed
}

# Two images of what serves, which PENSTOCK_KERNELS=ref makes the same bits, take turns.
swapped()
{
	local name told images=$O/selftests/control/images ids=()
	for name in good twin; do
		"$O/penstock-trial" --manifest "$images/$name.so" >"$tmp/$name.json" &&
			"${ctl[@]}" kernel load --slower "$images/$name.so" "$tmp/$name.json" >"$tmp/out" || return
		ids+=("$(grep -o 'kernel [0-9]*' "$tmp/out" | head -n 1 | cut -d' ' -f2)")
	done
	begin || return
	for turn in $(seq 100); do
		"${ctl[@]}" kernel bind "${ids[turn % 2]}" >"$tmp/out" || { cat "$tmp/out"; return 1; }
	done
	kill -0 $run || { echo "the run ended before the last swap"; return 1; }
	same || return
	told=$("${ctl[@]}" --json events | grep -c '"kernel-bound"')
	[ "$told" -eq 100 ] || { echo "$told events of swaps"; return 1; }
	[ "$(value worker_restarts)" = 0 ]
}

ended()
{
	kill $daemon
	wait $daemon || return
	! pgrep -f "$tmp/" >"$tmp/left" || { cat "$tmp/left"; return 1; }
}

printf '[daemon]\nmetrics = none\n[worker one]\n[worker two]\n[server three]\n' >"$tmp/conf"
check "a daemon with two workers and a server" start_daemon
check "in one process" in_one_process
check "under the daemon: the same bits" undisturbed
check "a worker is drained meanwhile: the same bits" drained
check "another one is started" another_one
check "a worker is killed: the same bits" killed
check "the daemon is killed: workers go on, and nothing is read again" daemon_killed
check "it ends, and nothing is left" ended

export PENSTOCK_KERNELS=ref
steps=150
printf '[kernels]\nunsigned = yes\n' >>"$tmp/conf"
check "a daemon whose workers compute by the reference" start_daemon
check "in one process, by the reference" in_one_process
check "a kernel is swapped 100 times meanwhile: the same bits" swapped
check "it ends, too, and nothing is left" ended
finish
