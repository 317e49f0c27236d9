#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# features.sh CC [NVCC] - can we build here, and what will be off, why, and what brings it back
#
# The Makefile runs it once per build folder. A line per part that is off; no line is good news.
# Without a library that the build needs it says which package brings it, and fails.
set -u
cc=${1:-gcc}
nvcc=${2:-}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# builds HEADER LIBRARY: a program with both can be linked.
builds()
{
	printf '#include <stdio.h>\n#include <%s>\nint main(void) { return 0; }\n' "$1" >"$tmp/t.c"
	$cc -D_GNU_SOURCE -o "$tmp/t" "$tmp/t.c" "-l$2" >"$tmp/log" 2>&1
}

off()
{
	echo "off: $1 ($2; to mend it: $3)"
}

missing=
if ! command -v "${cc%% *}" >/dev/null 2>&1; then
	missing=$(basename "${cc%% *}")
elif ! builds stdlib.h c; then
	missing=libc6-dev
else
	while read -r header library package; do
		builds "$header" "$library" || missing="$missing $package"
	done <<-END
		ini.h inih libinih-dev
		isa-l/crc.h isal libisal-dev
		jansson.h jansson libjansson-dev
		liburing.h uring liburing-dev
		lzma.h lzma liblzma-dev
		microhttpd.h microhttpd libmicrohttpd-dev
		openssl/evp.h crypto libssl-dev
		zlib.h z zlib1g-dev
	END
fi
if [ -n "$missing" ]; then
	echo "penstock: cannot build without:" $missing \
		"(to install: apt-get install" $missing", or all at once: tools/deps.sh build)" >&2
	exit 1
fi

if [ "$(uname -m)" = x86_64 ]; then
	grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo ||
		off "AVX2 kernels" "this CPU has no AVX2 and FMA" "another CPU; the ref kernels serve"
else
	off "AVX2 kernels" "this CPU is $(uname -m)" "an x86-64 CPU; the ref kernels serve"
fi
[ -n "$nvcc" ] || off "CUDA kernels" "no nvcc in PATH or /usr/local/cuda/bin" \
	"install the CUDA toolkit, or name it: make NVCC=.../bin/nvcc"
echo 'int x;' | $cc -x c++ -fsyntax-only - 2>/dev/null ||
	off "the test of the CUDA kernels on the CPU" "$cc knows no C++" "apt-get install g++"
huge=$(awk '$1 == "HugePages_Total:" { print $2 }' /proc/meminfo)
[ "${huge:-0}" -gt 0 ] ||
	off "reserved huge pages" "vm.nr_hugepages is 0" "sysctl -w vm.nr_hugepages=512, as root"
limit=$(ulimit -l 2>/dev/null || echo unlimited)
if [ "$limit" != unlimited ] && [ "$limit" -lt 1048576 ] && [ "$(id -u)" -ne 0 ]; then
	off "locking more than $limit KiB of memory" "ulimit -l" \
		"a line '$(id -un) - memlock unlimited' in /etc/security/limits.conf"
fi
builds rdma/rdma_cma.h c ||
	off "the verbs fabric" "no rdma/rdma_cma.h" "apt-get install librdmacm-dev libibverbs-dev"
command -v clang >/dev/null 2>&1 ||
	off "clang, thread sanitizer and fuzz runs of make check" "no clang" "tools/deps.sh check"
command -v qemu-system-x86_64 >/dev/null 2>&1 ||
	off "the virtual machine of make vm-check" "no qemu-system-x86_64" "tools/deps.sh vm"
command -v fio >/dev/null 2>&1 || off "fio beside our loader in make bench" "no fio" "tools/deps.sh bench"
builds stdlib.h :libopenblas.so.0 ||
	off "OpenBLAS beside our kernels in make bench" "no libopenblas.so.0" "tools/deps.sh bench"
python3 -c 'import importlib.util as u; raise SystemExit(not u.find_spec("torch"))' 2>/dev/null ||
	off "PyTorch beside our training in make bench" "no torch for python3" "pip install torch"
exit 0
