#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# nvcc.sh NVCC SOURCE FATBIN [OPTION...] - code for all targets, without a spill
#
# A warning fails, and so does a kernel that ptxas gives a stack frame or spills of, or whose wgmma
# it makes wait for each other (C7508, C7511: several times slower). FATBIN.d is for make.
set -u
nvcc=$1 source=$2 to=$3
shift 3
log=$to.log.$$
trap 'rm -f "$log" "$to.$$" "$to.d.$$"' EXIT

"$nvcc" -fatbin -std=c++17 -O3 -I. -Werror all-warnings -Xptxas -v \
	-gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
	-gencode=arch=compute_100f,code=sm_100f \
	"$@" -MMD -MP -MF "$to.d.$$" -MT "$to" -o "$to.$$" "$source" >"$log" 2>&1 || {
	grep -v '^ptxas info\|bytes stack frame' "$log" >&2
	exit 1
}
awk -v source="$source" '
/Compiling entry function/ { split($0, part, "\047"); kernel = part[2] " for " part[4] }
/Function properties for/ { inside = $NF }
/bytes stack frame/ && ($1 || $5 || $9) {
	print source ": " kernel ": " $0 " (a kernel must have none: fewer registers)"
	bad = 1
}
/C7508|C7511/ { print source ": " kernel ": " $0; bad = 1 }
/Compiling entry function/ { kernels++ }
END {
	if (!kernels) {
		print source ": ptxas named no kernel, so nothing was looked at"
		bad = 1
	}
	exit bad
}' "$log" >&2 || exit 1
mv "$to.d.$$" "$to.d" && mv "$to.$$" "$to"
