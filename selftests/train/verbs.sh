#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Training over RDMA, in a guest (selftests/vm/run): the server on one end of two cables, the
# engine and two workers on the other. The same bits as in one process; again when a worker is
# killed, a cable is pulled in the middle of a step, packets are lost and reordered.
#
# verbs.sh PART...: only these of the parts plain, killed, lossy, here, rail
. selftests/lib/ktap.sh
# shellcheck source=selftests/train/runs.sh
. selftests/train/runs.sh

if [ ! -e /sys/class/infiniband/rxe3 ]; then
	skip "training over RDMA" "no rxe3" "selftests/vm/run -- selftests/train/verbs.sh"
	finish
fi
near="dev=rxe0,rxe2&timeout=8000" far="dev=rxe1,rxe3&timeout=8000"
engine=()
peers=(--fabric "verbs?$near" --server-at "verbs://10.0.0.2,10.0.1.2:7471"
	--worker-at "verbs://10.0.0.1,10.0.1.1:7472" "verbs://10.0.0.1,10.0.1.1:7473")
small

worker()
{
	listen "worker$1" "$O/penstock-worker" --threads 1 --listen "verbs://10.0.0.1,10.0.1.1:$1?$near"
}

servers()
{
	make_key && listen server "$O/penstock-ps" --threads 1 \
		--listen "verbs://10.0.0.2,10.0.1.2:7471?$far" && worker 7472 && worker 7473
}

plain()
{
	start
	same 0
}

killed()
{
	start
	under_way
	kill -KILL "${pid[worker7472]}"
	same && worker 7472
}

# The others go on over the second rail: nobody is lost, and the first comes back. It does so before
# they end: who ends while a port is set down says goodbye through it, after which rxe has no more
# connections on that device.
rail()
{
	start
	under_way
	ip link set va down
	every=3 under_way
	ip link set va up && selftests/vm/guest.sh routes
	same 0
}

lossy()
{
	local rc link
	for link in va vb vc vd; do
		tc qdisc add dev "$link" root netem delay 200us loss 1% reorder 25% 50% || return
	done
	start
	same 0
	rc=$?
	for link in va vb vc vd; do tc qdisc del dev "$link" root; done
	return "$rc"
}

# All of it is started here, on the first device that there is.
here()
{
	local peers=(--fabric verbs?dev=rxe0)
	start
	same 0
}

declare -A title=(
	[plain]="over RDMA: the same bits"
	[killed]="a worker is killed: the same bits"
	[rail]="a rail goes down: the same bits, and nobody is lost"
	[lossy]="1 % of packets lost, others reordered: the same bits"
	[here]="started here, on a device that was looked for: the same bits"
)
[ $# -gt 0 ] || set -- rail plain killed lossy here
check "in one process" in_one_process
check "a server and two workers listen, each on two devices" servers
for part; do
	check "${title[$part]}" "$part"
done
kill "${pid[@]}" 2>/dev/null
finish
