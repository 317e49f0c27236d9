#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# manpages.sh FOLDER - English manual pages as training text: writes FOLDER/manpages.list
#
# One path per line: first the pages of programs that a Debian machine with a compiler has, then
# those of manpages and manpages-dev together, each part sorted by file name. The order depends on
# nothing but the packages' versions, so that every machine trains on the same text and holds out
# the same end of it. Pages that the installation left out, as Docker's images do, are unpacked
# from the package into FOLDER/manpages.
set -eu -o pipefail
export LC_ALL=C

out=${1:?usage: manpages.sh FOLDER}
mkdir -p "$out"
out=$(cd "$out" && pwd)
first="binutils-common coreutils dpkg gzip make tar xz-utils"
last="manpages manpages-dev"
english='^/usr/share/man/man[0-9][a-z]*/[^/]+$'

fail()
{
	echo "manpages.sh: $1" >&2
	exit 1
}

# The pages that package $1 should have brought; a translation lies in a folder of its language.
promised()
{
	dpkg -L "$1" 2>/dev/null | grep -E "$english" || true
}

on_disk()
{
	local path
	while read -r path; do
		[ -e "$path" ] || [ -L "$path" ] || return 1
	done <<<"$(promised "$1")"
}

update()
{
	if [ "$(id -u)" -eq 0 ]; then
		apt-get -qq update
	else
		sudo -n apt-get -qq update
	fi
}

download()
{
	apt-get -qq download "$1=$2" || apt-get -qq download "$1"
}

# Unpacks package $1 into folder $2, unless that is done for the version that is installed.
fetch()
{
	local package=$1 folder=$2 version
	version=$(dpkg-query -W -f '${Version}' "$package")
	[ "$(cat "$folder/version" 2>/dev/null)" != "$version" ] || return 0
	rm -rf "$folder"
	mkdir -p "$folder/deb"
	(cd "$folder/deb" && { download "$package" "$version" || { update && download "$package" "$version"; }; }) \
		>"$folder/log" 2>&1 || {
		sed -n 's/^E: //p' "$folder/log" | sort -u >&2
		fail "no manual pages of $package on this disk or from apt-get; mend that (apt-get update)"
	}
	dpkg-deb -x "$folder"/deb/*.deb "$folder"
	rm -rf "$folder/deb"
	echo "$version" >"$folder/version"
}

# Regular files only: a link is a second name of a page that is there already.
files_of()
{
	if on_disk "$1"; then
		promised "$1" | while read -r path; do
			[ -L "$path" ] || echo "$path"
		done
	else
		fetch "$1" "$out/manpages/$1"
		(cd "$out/manpages/$1" && find usr/share/man -type f) | sed 's|^|/|' | grep -E "$english" |
			sed "s|^|$out/manpages/$1|"
	fi
}

by_file_name()
{
	sed 's|.*/\([^/]*\)$|\1 &|' | sort -k 1,1 -k 2 | cut -d ' ' -f 2-
}

command -v dpkg-query >/dev/null 2>&1 ||
	fail "this is no Debian: name the files to train on yourself"
for package in $first $last; do
	dpkg-query -W "$package" >/dev/null 2>&1 || fail "no package $package; to install: tools/deps.sh run"
done

{
	for package in $first; do files_of "$package"; done | by_file_name
	for package in $last; do files_of "$package"; done | by_file_name
} >"$out/manpages.list.new"
[ -s "$out/manpages.list.new" ] || fail "no manual pages found"
mv "$out/manpages.list.new" "$out/manpages.list"
