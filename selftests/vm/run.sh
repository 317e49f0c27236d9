#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # the guest's shell fills them in
#
# A guest is believed only when it tells a status: what comes out of selftests/vm/run, and when not.
. selftests/lib/ktap.sh
vm=selftests/vm/run
O=${O:-$PWD/build}
export O

# Where no guest can be had, there is nothing to test.
if ! why=$(selftests/vm/image "$O/vm" 2>&1); then
	skip "all of it" "$(tail -n 1 <<<"$why")" "make vm-check"
	finish
fi

# run NAME OPTION... -- COMMAND...: leaves NAME.out, NAME.err and NAME.status in $tmp
run()
{
	local name=$1
	shift
	"$vm" "$@" >"$tmp/$name.out" 2>"$tmp/$name.err" </dev/null
	echo $? >"$tmp/$name.status"
}

# ended NAME STATUS
ended()
{
	[ "$(cat "$tmp/$1.status")" = "$2" ] && return
	cat "$tmp/$1.out" "$tmp/$1.err"
	echo "exit status $(cat "$tmp/$1.status")"
	return 1
}

# ends NAME STATUS OPTION... -- COMMAND...
ends()
{
	run "$1" "${@:3}"
	ended "$1" "$2"
}

# said FILE TEXT
said()
{
	grep -qF -e "$2" "$tmp/$1" && return
	cat "$tmp/${1%.*}".{out,err}
	echo "not said in $1: $2"
	return 1
}

many_lines()
{
	seq -f "line %.0f of many" 2000 | cmp - <(tail -n +9 "$tmp/place.out")
}

# As it was called, with a file that stays the guest's and one that does not.
surroundings()
{
	printf '%s\n' "$PWD" "$O" 17 'a  b' '$HOME' '' "no input" writes |
		diff - <(head -n 8 "$tmp/place.out") &&
		[ ! -e "$tmp/mine" ] && grep -qx kept "$tmp/out/file"
}

# Stopped from outside, it leaves no process and no file.
stopped()
{
	local pid
	mkdir "$tmp/stopped"
	TMPDIR=$tmp/stopped "$vm" -- sh -c 'echo up; sleep 1000' >"$tmp/stopped.out" 2>&1 &
	pid=$!
	for _ in $(seq 600); do
		[ ! -s "$tmp/stopped.out" ] || break
		sleep 0.1
	done
	said stopped.out up || return 1
	kill "$pid"
	wait "$pid"
	[ "$?" -eq 143 ] || { echo "exit status of another"; return 1; }
	! grep -aF "$tmp/stopped/nvme" /proc/[0-9]*/cmdline 2>/dev/null || return 1
	none find "$tmp/stopped" -mindepth 1
}

# A user with no rights, in a copy of what he needs.
plain_user()
{
	local tree=$tmp/tree
	mkdir -p "$tree/build"
	cp -a --parents selftests/vm tools/deps.sh "$tree"
	cp -a "$O/vm" "$tree/build"
	chmod 755 "$tmp"
	chmod -R u+rwX,go+rX "$tree"
	chown -R 65534:65534 "$tree"
	(
		cd "$tree" || exit 1
		O=$tree/build TMPDIR=/tmp setpriv --reuid 65534 --regid 65534 --clear-groups \
			selftests/vm/run -- sh -c 'id -u; cat /sys/class/infiniband/rxe0/ports/1/state; exit 7'
	) >"$tmp/user.out" 2>"$tmp/user.err"
	echo $? >"$tmp/user.status"
	ended user 7 && [ "$(cat "$tmp/user.out")" = $'0\n4: ACTIVE' ]
}

# A dpkg that knows no package, and nobody who may install one.
no_packages()
{
	mkdir -p "$tmp/bin"
	printf '#!/bin/sh\nexit 1\n' >"$tmp/bin/dpkg-query"
	chmod +x "$tmp/bin/dpkg-query"
	PATH=$tmp/bin:$PATH PENSTOCK_NO_INSTALL=1 ends none 4 -- true
}

# Two that only wait, beside the others: on a loaded machine a guest needs a minute to boot. What a
# command says goes through a pipe of init's, which needs a moment too.
run hang -t 100 -- sh -c 'echo before; exec sleep 1000' &
run stands -t 100 -- sh -c 'echo 0 >/proc/sys/kernel/panic; echo before; sleep 3; echo c >/proc/sysrq-trigger' &

TEST_NUMBER=17 check "arguments, folder, environment, status 255" ends place 255 -v -o "$tmp/out" -- sh -c '
	printf "%s\n" "$PWD" "$O" "$TEST_NUMBER" "$@"
	read -r line || echo no input
	touch "$0" && echo writes; echo kept >"$VM_OUT/file"
	seq -f "line %.0f of many" 1000
	echo "<1>not ok 7 of the kernel" >/dev/kmsg
	seq -f "line %.0f of many" 1001 2000; exit 255' "$tmp/mine" 'a  b' '$HOME' ''
check "are those of the caller" surroundings
check "much output arrives whole, and what the kernel says is not among it" many_lines
check "but in its log" said place.err "not ok 7 of the kernel"
check "a signal is status 139" ends signal 139 -- sh -c 'kill -SEGV $$'
check "a command that is not there" ends absent 127 -- no-such-command
check "is said" said absent.out "no-such-command: No such file or directory"
if [ "$(id -u)" -eq 0 ]; then
	check "a plain user, status 7" plain_user
fi
check "stopped from outside" stopped
check "a panic fails" ends panic 125 -- sh -c 'echo before; sleep 3; echo c >/proc/sysrq-trigger; sleep 100'
check "with what was said before the panic" said panic.out before
check "with the panicked kernel's log" said panic.err "Kernel panic"
check "and says so" said panic.err "the guest failed: its kernel panicked"
wait
check "a hang fails" ended hang 125
check "at its time" said hang.err "the guest failed: it was not done after 100 s"
check "with what hangs" said hang.err "sleep 1000"
check "with what was said before the hang" said hang.out before
check "a kernel that stands still fails" ended stands 125
check "with the standing kernel's log" said stands.err "Kernel panic"
check "with what was said before it stood" said stands.out before
check "more memory than there is" ends memory 125 -m 900000000 -- true
check "is QEMU's word" said memory.err "the guest failed: QEMU ended with 1"
check "without packages it is skipped" no_packages
check "with what to install" said none.err "as root: apt-get install -y"
PENSTOCK_NO_INSTALL=1 O=$tmp/empty check "without a kernel it is skipped" ends empty 4 -- true
check "with what to fetch" said empty.err "apt-get download linux-image-"
check "in one line" test "$(cat "$tmp/none.err" "$tmp/empty.err" | wc -l)" -eq 2
check "an unknown option" ends usage 2 -x -- true
check "no command" ends usage 2
check "a number that is none" ends usage 2 -t soon -- true
finish
