#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Who may include whom: uapi, then kernels and rdma that do not know each other, then the floors of
# runtime, then daemon and tools, that see nothing of runtime but penstock.h; penstockd also what it
# makes pools and tries kernels with. What measures the leaves, tools/perf, stands on them alone.
. selftests/lib/ktap.sh

# A folder of ours, and the folders that its files may include from besides itself. The top floors
# carry out what penstock.h promises, so they include it.
cat >"$tmp/floors" <<'EOT'
kernels
rdma
runtime/control rdma runtime/penstock.h
runtime/mem kernels rdma
runtime/io kernels rdma runtime/mem
runtime/device kernels rdma runtime/mem
runtime/store kernels rdma runtime/mem runtime/io runtime/device
runtime/moe kernels rdma runtime/mem runtime/io runtime/device runtime/store
runtime/launch kernels rdma runtime/mem runtime/io runtime/device runtime/store runtime/moe runtime/penstock.h
runtime/model kernels rdma runtime/mem runtime/io runtime/device runtime/store runtime/moe
runtime/train kernels rdma runtime/mem runtime/io runtime/device runtime/store runtime/moe runtime/model runtime/launch runtime/penstock.h runtime/host.h runtime/describe.h
runtime/serve kernels rdma runtime/mem runtime/io runtime/device runtime/store runtime/moe runtime/model runtime/launch runtime/penstock.h runtime/host.h runtime/describe.h
runtime kernels rdma runtime
daemon kernels/agree.h kernels/op.h kernels/table.h rdma/crc32c.h rdma/fail.h runtime/device/image.h runtime/mem/admit.h runtime/mem/place.h runtime/mem/pool.h runtime/penstock.h
tools runtime/penstock.h
tools/perf kernels rdma tools/options.h
EOT

# wrong TOP: every include of ours in the tree at TOP that goes another way, one per line
wrong()
{
	(cd "$1" && find uapi kernels rdma runtime daemon tools -name '*.[ch]' \
		-exec grep -HnE '^[ 	]*#[ 	]*include[ 	]*["<]' {} + 2>/dev/null) | awk -v top="$1" -v tabled="$tmp/floors" '
	function inside(path, folder) { return path == folder || index(path, folder "/") == 1 }
	function exists(path) { return (getline line <(top "/" path)) >= 0 }
	FILENAME == tabled {
		floor[++floors] = $1
		for (i = 2; i <= NF; i++)
			below[$1, i - 1] = $i
		next
	}
	{
		file = $0
		sub(/:.*/, "", file)
		ours = match($0, /"[^"]*"/)
		if (!ours)
			match($0, /<[^>]*>/)
		what = substr($0, RSTART + 1, RLENGTH - 2)
		if (inside(file, "uapi")) {
			if (ours || what !~ /^(linux|penstock)\//)
				print file ": " what
			next
		}
		if (!ours || what ~ /^penstock\//)
			next
		beside = file
		sub(/[^\/]*$/, "", beside)
		if (exists(beside what))
			what = beside what
		# the innermost folder of the table that the file is in
		home = ""
		for (i = 1; i <= floors; i++)
			if (inside(file, floor[i]) && length(floor[i]) > length(home))
				home = floor[i]
		if (home == "runtime" && file !~ /^runtime\/[^\/]*$/)
			home = ""
		good = home != "" && inside(what, home) && what !~ /\.\.\//
		for (i = 1; (home, i) in below; i++)
			good = good || inside(what, below[home, i]) && what !~ /\.\.\//
		if (!good)
			print file ": " what
	}' "$tmp/floors" -
}

# plant FILE INCLUDE: a tree with one file that has one include
plant()
{
	rm -rf "$tmp/top"
	mkdir -p "$tmp/top/kernels/ref" "$tmp/top/rdma" "$tmp/top/uapi/penstock" "$tmp/top/runtime/mem" \
		"$tmp/top/runtime/moe" "$tmp/top/daemon" "$tmp/top/tools" "$tmp/top/$(dirname "$1")"
	touch "$tmp/top/kernels/op.h" "$tmp/top/kernels/ref/ref.h" "$tmp/top/rdma/fail.h" \
		"$tmp/top/runtime/penstock.h" "$tmp/top/runtime/mem/pool.h" \
		"$tmp/top/runtime/moe/engine.h" "$tmp/top/tools/args.h"
	printf '#include <stdio.h>\n#include %s\n' "$2" >"$tmp/top/$1"
	wrong "$tmp/top"
}

refuses()
{
	local out
	out=$(plant "$1" "$2")
	case $out in
	*"$1: "*) ;;
	*) echo "$1 may include $2"; return 1 ;;
	esac
}

check "all includes of this tree go down" none wrong .
while read -r file include; do
	check "$file may not include $include" refuses "$file" "$include"
done <<'END'
kernels/ref/a.c "rdma/fail.h"
kernels/ref/a.c "runtime/mem/pool.h"
rdma/a.c "kernels/op.h"
rdma/a.h "runtime/mem/pool.h"
runtime/mem/a.c "runtime/moe/engine.h"
runtime/mem/a.c "../moe/engine.h"
runtime/mem/a.c "runtime/penstock.h"
runtime/train/a.c "runtime/serve/b.h"
runtime/attic/a.c "runtime/mem/pool.h"
daemon/a.c "runtime/moe/engine.h"
daemon/a.c "tools/args.h"
runtime/control/a.c "runtime/mem/pool.h"
tools/a.c "kernels/op.h"
tools/examples/a.c "rdma/fail.h"
tools/perf/a.c "runtime/penstock.h"
tools/perf/a.c "runtime/mem/pool.h"
tools/perf/a.c "tools/args.h"
uapi/penstock/a.h <stdint.h>
END
while read -r file include; do
	check "$file may include $include" none plant "$file" "$include"
done <<'END'
kernels/ref/a.c "ref.h"
kernels/ref/a.c "kernels/op.h"
rdma/a.c <penstock/error.h>
runtime/moe/a.c "runtime/mem/pool.h"
runtime/a.c "runtime/moe/engine.h"
tools/examples/a.c "runtime/penstock.h"
tools/a.c "tools/args.h"
tools/a.c "args.h"
tools/perf/a.c "rdma/fail.h"
tools/perf/a.c "kernels/op.h"
END
finish
