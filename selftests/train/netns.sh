#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Training over tcp between four network namespaces, as between four hosts: an engine, a server and
# two workers on a bridge. The same bits as in one process; again when a worker is killed, packets
# are lost and reordered, a cable is pulled for a moment or for good. Nothing hangs.
#
# In a guest of selftests/vm/run, which is slow, only what loses packets: the kernel there can do that.

# Namespaces of users are enough; root without them, for systems that forbid those.
own=(unshare --net --mount --fork --kill-child)
[ "$(id -u)" -eq 0 ] || own+=(--user --map-root-user)
if [ -z "${NETNS_INSIDE:-}" ]; then
	NETNS_WHY=$("${own[@]}" true 2>&1) && NETNS_INSIDE=yes exec "${own[@]}" "$0"
fi
# shellcheck source=selftests/lib/ktap.sh
. selftests/lib/ktap.sh
if [ -z "${NETNS_INSIDE:-}" ]; then
	skip "training across namespaces" "$NETNS_WHY" \
		"sysctl -w kernel.unprivileged_userns_clone=1, or make check as root"
	finish
fi

part=all
[ ! -e /sys/class/infiniband/rxe3 ] || part=loss
tmp=${tmp:?}
# shellcheck source=selftests/train/runs.sh
. selftests/train/runs.sh
engine=(ip netns exec engine)
peers=(--fabric "tcp?timeout=4000" --server-at 10.7.2.2 --worker-at 10.7.3.2 10.7.4.2)
data=selftests/train/text.txt shape="--batch 2 --seq 128" steps=150 every=10
[ "$part" = all ] || { small; steps=3; } # where an emulator computes

# One cable to each host: v-NAME is this end, eth0 that one. They meet in a bridge, or where the
# kernel has none, in a router.
hosts=(engine server worker1 worker2)
network()
{
	local number=0 host bridge=yes bits=16
	mount -t tmpfs none /run && ip link set lo up || return
	ip link add br0 type bridge 2>/dev/null && ip link set br0 up || bridge='' bits=24
	[ -n "$bridge" ] || echo 1 >/proc/sys/net/ipv4/ip_forward || return
	for host in "${hosts[@]}"; do
		number=$((number + 1))
		ip netns add "$host" && ip -n "$host" link set lo up &&
			ip link add "v-$host" type veth peer name eth0 netns "$host" &&
			ip link set "v-$host" ${bridge:+master br0} up &&
			ip -n "$host" addr add 10.7.$number.2/$bits dev eth0 &&
			ip -n "$host" link set eth0 up || return
		[ -n "$bridge" ] || { ip addr add 10.7.$number.1/24 dev "v-$host" &&
			ip -n "$host" route add default via 10.7.$number.1; } || return
	done
}

# serve HOST PROGRAM: there, at the usual port
serve()
{
	listen "$1" ip netns exec "$1" "$O/$2" --threads 1 --listen tcp://0.0.0.0
}

servers()
{
	make_key && serve server penstock-ps && serve worker1 penstock-worker &&
		serve worker2 penstock-worker
}

undisturbed()
{
	start
	same 0
}

killed()
{
	start
	under_way
	kill -KILL "${pid[worker1]}"
	same 0 && serve worker1 penstock-worker
}

# It is back at its address while the run waits for one: with the other one cut off.
back()
{
	start
	under_way
	kill -KILL "${pid[worker1]}" "${pid[worker2]}"
	sleep 0.2
	serve worker1 penstock-worker && same && [ "$(number worker_restarts "$tmp/run")" = 1 ] &&
		serve worker2 penstock-worker
}

cable()
{
	ip link set "v-$1" "$2"
}

# Shorter than the time after which a silent peer is given up: nobody is given up.
cut_for_a_moment()
{
	start
	under_way
	cable "$1" down
	sleep 0.3
	cable "$1" up
	same 0
}

worker_cut_off()
{
	start --fabric "tcp?timeout=700"
	under_way
	cable worker1 down
	same 0
	local rc=$?
	cable worker1 up
	return "$rc"
}

server_cut_off()
{
	start --fabric "tcp?timeout=700" --connect-timeout 2000
	under_way
	cable server down
	ended "10[.]7[.]2[.]2.*--resume"
	local rc=$?
	cable server up
	return "$rc"
}

resumed()
{
	start --resume "$tmp/out"
	same
}

lossy()
{
	local host
	for host in "${hosts[@]}"; do
		tc qdisc add dev "v-$host" root netem delay 1ms loss 1% reorder 25% 50% &&
			tc -n "$host" qdisc add dev eth0 root netem delay 1ms loss 1% reorder 25% 50% || return
	done
	start
	same 0
}

if ! network >"$tmp/why" 2>&1; then
	skip "training across namespaces" "$(tail -1 "$tmp/why")" \
		"selftests/vm/run -- selftests/train/netns.sh"
	finish
fi
check "a server and two workers listen, each in its namespace" servers
check "in one process" in_one_process
if [ "$part" = all ]; then
	check "across namespaces: the same bits" undisturbed
	check "a worker is killed: the same bits" killed
	check "both are killed, and one comes back: the same bits" back
	check "a worker's cable is pulled for a moment: the same bits" cut_for_a_moment worker1
	check "the server's cable is pulled for a moment: the same bits" cut_for_a_moment server
	check "a worker's cable is cut: the other goes on, with the same bits" worker_cut_off
	check "the server's cable is cut: the run ends and says how to go on" server_cut_off
	check "and goes on with the same bits" resumed
fi
if tc qdisc add dev lo root netem loss 1% 2>"$tmp/why"; then
	check "1 % of packets lost, others reordered: the same bits" lossy
else
	skip "1 % of packets lost, others reordered" "no sch_netem: $(tail -1 "$tmp/why")" \
		"selftests/vm/run -- selftests/train/netns.sh"
fi
kill "${pid[@]}" 2>/dev/null
finish
