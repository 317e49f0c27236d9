# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# runs.sh - training runs that are watched and disturbed; source it behind ktap.sh
#
# Set before: $engine, what a run is started by (empty: nothing), $peers, its options on where the
# others are, $data, $shape, $steps, and $every, steps between checkpoints.
#	in_one_process	what the digest is to be
#	listen NAME COMMAND...	a server or worker; ${pid[NAME]}, when it listens
#	start OPTION...	a run in the background; with --resume it goes on from $tmp/out
#	under_way	wait for its first checkpoint
#	same [RESTARTS]	it ends well, with the digest of one process and so many restarts at most
#	ended TEXT	it fails, in time, with one line that says TEXT
declare -A pid
export HOME=$tmp
unset PENSTOCK_KEY

# Little work, for a machine that is emulated; plain C is the fastest there.
small()
{
	head -c 4000 selftests/train/text.txt >"$tmp/text"
	data=$tmp/text shape="--batch 1 --seq 32" steps=6 every=1
	export PENSTOCK_KERNELS=ref
}

make_key()
{
	mkdir -p "$HOME/.config/penstock" &&
		(umask 077; head -c 32 /dev/urandom | base64 >"$HOME/.config/penstock/key")
}

number()
{
	sed -n "s/^  \"$1\": \"*\([0-9a-f]*\).*/\1/p" "$2"
}

in_one_process()
{
	# shellcheck disable=SC2086 # words
	"$O/penstock" train --preset nano --data "$data" $shape --steps "$steps" --embedded \
		--json - >"$tmp/one" && [ -n "$(number loss_digest "$tmp/one")" ]
}

listen()
{
	local name=$1
	shift
	"$@" >"$tmp/said-$name" 2>&1 &
	pid[$name]=$!
	for _ in {1..1500}; do
		grep -q '^listening at ' "$tmp/said-$name" && return
		kill -0 "${pid[$name]}" 2>/dev/null || break
		sleep 0.02
	done
	cat "$tmp/said-$name"
	return 1
}

start()
{
	local what=(--preset nano)
	[ "${1:-}" = --resume ] && what=() || rm -rf "$tmp/out"
	# shellcheck disable=SC2086 # words
	"${engine[@]}" timeout -k 1 100 "$O/penstock" train "${what[@]}" --data "$data" $shape \
		--steps "$steps" --save-every "$every" --sample 0 --json - --out "$tmp/out" \
		"${peers[@]}" "$@" >"$tmp/run" 2>"$tmp/run.err" &
	run=$!
}

under_way()
{
	while [ ! -e "$tmp/out/step-$(printf %08d "$every")" ]; do
		kill -0 "$run" 2>/dev/null || return
		sleep 0.01
	done
}

same()
{
	wait "$run" || { cat "$tmp/run.err"; return 1; }
	echo "$(number loss_digest "$tmp/run"), one process: $(number loss_digest "$tmp/one");" \
		"$(number worker_restarts "$tmp/run") restarts"
	[ "$(number loss_digest "$tmp/run")" = "$(number loss_digest "$tmp/one")" ] &&
		[ "$(number worker_restarts "$tmp/run")" -le "${1:-99}" ]
}

ended()
{
	local rc
	wait "$run"
	rc=$?
	cat "$tmp/run.err"
	[ "$rc" -eq 1 ] && [ "$(wc -l <"$tmp/run.err")" -eq 1 ] && grep -q -- "$1" "$tmp/run.err"
}
