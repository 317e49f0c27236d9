#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh [build|run|check|bench|vm|debug]... - install the Debian packages that are missing
#
# Says which, and what each is for, then calls apt-get, by sudo when not root. When all is there it
# does and prints nothing. With PENSTOCK_NO_INSTALL=1 it only says what is missing, and fails.
set -u

# group, package, what it is for
packages()
{
	cat <<-END
		build gcc compiles Penstock
		build make builds it
		build pkg-config tells other programs how to link with it
		build libc6-dev the C library's headers
		build libinih-dev reads penstockd.conf
		build libisal-dev counts checksums of messages
		build libjansson-dev reads config.json and safetensors headers
		build liblzma-dev reads .xz text
		build libmicrohttpd-dev tells penstockd's figures to Prometheus
		build librdmacm-dev the headers of RDMA, for the verbs fabric
		build liburing-dev reads files by io_uring
		build libssl-dev proves that both ends of a link have the same key
		build zlib1g-dev reads .gz text
		run gzip its manual pages are training text
		run manpages its manual pages are training text
		run manpages-dev its manual pages are training text
		run xz-utils its manual pages are training text
		check clang the second compiler, and the one with the fuzzer
		check fish completes commands of penstockctl
		check g++ public headers serve C++ too, and CUDA kernels are tested as C++
		check git which files are part of the tree
		check libclang-rt-dev the sanitizers of clang
		check mandoc checks manual pages
		check zsh completes commands of penstockctl
		bench fio the peer of our loader
		bench iperf3 the peer of our tcp fabric
		bench libdpdk-dev the peer of our pool
		bench libopenblas0-serial the peer of our kernels
		bench perftest the peer of our verbs fabric
		bench ucx-utils the peer of our shm and tcp fabrics
		vm binutils takes from modules what guests need not
		vm ibverbs-providers drives RDMA devices
		vm iproute2 sets up links and RDMA devices
		vm libc6-dev the C library's headers, and what static programs need of it
		vm kmod loads the module into guests
		vm librdmacm1 connects RDMA devices
		vm linux-headers-amd64 is what the module for guests is built against
		vm qemu-system-x86 is the machine that guests run on
		vm xz-utils unpacks their kernel
		debug bc counts in the kernel's build
		debug bison builds the kernel's configuration
		debug cpio packs what the kernel starts from
		debug flex builds the kernel's configuration
		debug libelf-dev checks the kernel's objects
		debug linux-source-6.1 is the kernel that is built to look closely
	END
}

installed()
{
	[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | cut -c 1-2)" = ii ]
}

missing='' said=''
for group in "${@:-build}"; do
	known=
	while read -r of package purpose; do
		[ "$of" = "$group" ] || continue
		known=yes
		command -v dpkg-query >/dev/null 2>&1 && installed "$package" && continue
		missing="$missing $package"
		said="$said  $package: $purpose
"
	done <<-END
		$(packages)
	END
	[ -n "$known" ] || { echo "deps.sh: no group '$group' (build, run, check, bench, vm, debug)" >&2; exit 2; }
done
[ -n "$missing" ] || exit 0

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
	echo "deps.sh: this is no Debian, so what is missing here is yours to install:$missing"
	exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
	sudo="sudo -n"
	[ ! -t 0 ] || sudo=sudo
	command -v sudo >/dev/null 2>&1 && $sudo true 2>/dev/null || sudo=none
fi
if [ -n "${PENSTOCK_NO_INSTALL:-}" ] || [ "$sudo" = none ]; then
	echo "penstock: packages are missing and I may not install them; as root: apt-get install -y$missing" >&2
	exit 1
fi

# apt-get in quiet: it is heard only when it fails.
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
apt()
{
	# shellcheck disable=SC2086 # words are meant
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" \
		</dev/null >"$log" 2>&1
}

install_missing()
{
	# shellcheck disable=SC2086 # a word per package
	apt install --no-install-recommends $missing
}

printf 'installing what is missing:\n%s' "$said"
install_missing || { apt update && install_missing; } || {
	cat "$log" >&2
	echo "penstock: apt-get could not install them; see above, then: apt-get install -y$missing" >&2
	exit 1
}
