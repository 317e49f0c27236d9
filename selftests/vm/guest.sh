#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# guest.sh [routes] - make the guest what its tests expect; its init calls it
#
# Four RDMA devices (soft-RoCE) on two veth pairs, so that there are two rails. All of it is in the
# first network namespace, since rxe works in no other:
#	rxe0  va  10.0.0.1  fe80::ff:fe00:1	<->  rxe1  vb  10.0.0.2  fe80::ff:fe00:2
#	rxe2  vc  10.0.1.1  fe80::ff:fe00:3	<->  rxe3  vd  10.0.1.2  fe80::ff:fe00:4
# Both ends have local addresses, and the kernel would never send from one to the other by wire.
# With IPv6 the zone decides (fe80::ff:fe00:2%va is reached through va). For IPv4 rules send packets
# between the two through their link, when the source address or the device is given (rdma_cm and
# TCP: bind to 10.0.0.1, connect to 10.0.0.2), and look for local addresses after that only.
#
# A device that is set down loses its routes: `guest.sh routes` brings them back when it is up.
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin

routes="
route replace 10.0.0.2 dev va src 10.0.0.1 table 101
route replace 10.0.0.1 dev vb src 10.0.0.2 table 102
route replace 10.0.1.2 dev vc src 10.0.1.1 table 103
route replace 10.0.1.1 dev vd src 10.0.1.2 table 104"

network()
{
	# Link-local addresses are there at once when nobody looks for duplicates of them.
	for where in all default; do
		echo 0 >/proc/sys/net/ipv6/conf/$where/accept_dad
		echo 1 >/proc/sys/net/ipv4/conf/$where/accept_local
		echo 0 >/proc/sys/net/ipv4/conf/$where/rp_filter
	done
	ip -batch - <<-END
		link set lo up
		link add va mtu 9000 address 02:00:00:00:00:01 type veth peer name vb mtu 9000 address 02:00:00:00:00:02
		link add vc mtu 9000 address 02:00:00:00:00:03 type veth peer name vd mtu 9000 address 02:00:00:00:00:04
		addr add 10.0.0.1/32 dev va
		addr add 10.0.0.2/32 dev vb
		addr add 10.0.1.1/32 dev vc
		addr add 10.0.1.2/32 dev vd
		link set va up
		link set vb up
		link set vc up
		link set vd up
		rule add pref 10 oif va to 10.0.0.2 lookup 101
		rule add pref 10 oif vb to 10.0.0.1 lookup 102
		rule add pref 10 oif vc to 10.0.1.2 lookup 103
		rule add pref 10 oif vd to 10.0.1.1 lookup 104
		rule add pref 20 iif va lookup local
		rule add pref 20 iif vb lookup local
		rule add pref 20 iif vc lookup local
		rule add pref 20 iif vd lookup local
		rule add pref 30 iif lo from 10.0.0.1 to 10.0.0.2 lookup 101
		rule add pref 30 iif lo from 10.0.0.2 to 10.0.0.1 lookup 102
		rule add pref 30 iif lo from 10.0.1.1 to 10.0.1.2 lookup 103
		rule add pref 30 iif lo from 10.0.1.2 to 10.0.1.1 lookup 104
		rule add pref 100 lookup local
		rule del pref 0
		$routes
	END
	rdma -b /dev/stdin <<-END
		link add rxe0 type rxe netdev va
		link add rxe1 type rxe netdev vb
		link add rxe2 type rxe netdev vc
		link add rxe3 type rxe netdev vd
	END
}

# Groups below the first may have all controllers.
control_groups()
{
	read -r controllers </sys/fs/cgroup/cgroup.controllers
	# shellcheck disable=SC2086 # one word per controller
	printf '+%s ' $controllers >/sys/fs/cgroup/cgroup.subtree_control
}

if [ "${1:-}" = routes ]; then
	echo "$routes" | ip -batch -
else
	echo guest >/proc/sys/kernel/hostname
	network
	control_groups
fi
