#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# train.sh - training speed: processes beside threads of one process, and PyTorch beside ours
#
# O is the build folder. The ways take turns, so that what else the machine does meets all of them;
# shown are medians of ROUNDS (5) rounds. PYTHON names the python3 that has torch and transformers.
# MODEL, BATCH, SEQ and STEPS change what is trained.
set -eu -o pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

O=${O:-build} ROUNDS=${ROUNDS:-5} PYTHON=${PYTHON:-python3}
MODEL=${MODEL:-tiny} BATCH=${BATCH:-8} SEQ=${SEQ:-256} STEPS=${STEPS:-20}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
text=selftests/train/text.txt

# ours NAME OPTION...: one round, its tokens/s at the end of $tmp/NAME
ours()
{
	local name=$1
	shift
	"$O/penstock" train --preset "$MODEL" --data "$text" --batch "$BATCH" --seq "$SEQ" \
		--steps "$STEPS" --sample 0 --json "$tmp/json" "$@" >/dev/null
	sed -n 's/.*"tokens_per_second": \([0-9.]*\).*/\1/p' "$tmp/json" >>"$tmp/$name"
}

# The steps are few: Python's start is not timed, warm-up steps are not counted.
torch()
{
	"$PYTHON" selftests/bench/torch_train.py "$tmp/out"/step-*/config.json --batch "$BATCH" \
		--seq "$SEQ" --steps "$STEPS" "$@" >"$tmp/json" 2>"$tmp/why" || return
	sed -n 's/.*"tokens_per_second": \([0-9.]*\).*/\1/p' "$tmp/json" >>"$tmp/torch"
}

median()
{
	sort -g "$tmp/$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

row()
{
	awk -v name="$1" -v v="$2" -v of="$3" 'BEGIN { printf "%-34s %12.0f %12.2f\n", name, v, v / of }'
}

# its config.json is what PyTorch reads
ours first --embedded --out "$tmp/out"
have_torch=no
if torch --experts eager grouped_mm; then
	have_torch=yes
	rm "$tmp/torch"
	# what was fastest is what is measured
	best=$(sed -n 's/.*"attention": "\([a-z_]*\)".*"experts": "\([a-z_]*\)".*"adamw": "\([a-z_]*\)".*/--attention \1 --experts \2 --adamw \3/p' "$tmp/json")
fi
for _ in $(seq "$ROUNDS"); do
	ours embedded --embedded
	ours processes
	# shellcheck disable=SC2086 # words
	[ $have_torch = no ] || torch ${best:-}
done
embedded=$(median embedded)
echo "Training $MODEL, $BATCH x $SEQ bytes a step, $STEPS steps, medians of $ROUNDS rounds"
printf '%-34s %12s %12s\n' '' 'tokens/s' 'of embedded'
row 'embedded (threads)' "$embedded" "$embedded"
row 'processes (1 server, 2 workers)' "$(median processes)" "$embedded"
if [ $have_torch = yes ]; then
	row 'PyTorch eager, same model, fp32' "$(median torch)" "$embedded"
else
	echo "PyTorch: skipped, $(tail -n 1 "$tmp/why") (PYTHON=... names another python3)"
fi
