/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cause.h - why something on a fabric failed, in words that help.
 *
 * One table, one row per cause: its errno, what happened, what is likely behind
 * it, and what mends it. Sentences are made from a row and from what the caller
 * knows: rail, peer, request. A row is HERE when a test of ours makes it happen, HARDWARE
 * when only a device that we do not have can.
 *
 * Codes of struct ibv_wc are in the InfiniBand specification, volume 1, section 11.6.2.
 */
#ifndef PST_RDMA_CAUSE_H
#define PST_RDMA_CAUSE_H

#include "rdma/fabric.h"

/* X(NAME, errno, HERE | HARDWARE, what happened, what is likely, what mends it) */
#define PST_CAUSES(X)                                                                              \
	X(NONE, 0, HERE, "nothing failed", "", "")                                                 \
	X(PEER_CLOSED, ECONNRESET, HERE, "the peer closed the link", "it ended, or was killed",    \
	  "look at its log")                                                                       \
	X(PEER_SILENT, ETIMEDOUT, HERE, "the peer was silent for longer than timeout= allows",     \
	  "its host, its NIC or the way to it is down, or it was stopped",                         \
	  "penstock-perf doctor HOST")                                                             \
	X(PEER_BROKE, EPROTO, HERE, "the peer broke the protocol of the link",                     \
	  "it is another release, or no penstock at all",                                          \
	  "install the same release on both sides")                                                \
	X(NO_KEY, ENOENT, HERE, "the peer never granted this key on this link",                    \
	  "it is the key of another link, or of one that was closed",                              \
	  "ask the peer for a new one")                                                            \
	X(RANGE, ERANGE, HERE, "the range is not inside of the region that the peer granted",      \
	  "an offset or a length is wrong", "compare them with the region's length")               \
	X(READ_ONLY, EACCES, HERE, "the peer granted this region for reading only",                \
	  "a write went to a snapshot or to rows", "ask the peer for a key that allows writing")   \
	X(NO_MEMORY, ENOMEM, HERE, "out of memory",                                                \
	  "this process, or its cgroup, may have no more",                                         \
	  "free -m; ulimit -v; cat /proc/PID/cgroup")                                              \
	X(NO_NAME, EHOSTUNREACH, HERE, "the host has no address",                                  \
	  "its name is misspelt, or no name server knows it", "getent ahosts HOST")                \
	X(NO_ROUTE, EHOSTUNREACH, HERE, "there is no way to the host",                             \
	  "a route or an interface is missing or down", "ip route get ADDRESS")                    \
	X(NOBODY_THERE, ECONNREFUSED, HERE, "nobody listens there",                                \
	  "the server is not started, or it has another port", "ss -tln, on the server's host")    \
	X(NO_ANSWER, ETIMEDOUT, HERE, "nobody answers there",                                      \
	  "the host is down, a firewall drops the packets, or the server is stopped",              \
	  "ping HOST; nft list ruleset, on the server's host")                                     \
	X(NOT_PENSTOCK, EPROTO, HERE, "what answers there is not penstock",                        \
	  "another program has this port", "ss -tlnp, on the server's host")                       \
	X(PEER_STALLED, ETIMEDOUT, HERE, "the peer answers, but does not do what it was asked",    \
	  "its host is short of CPU or memory", "top, on the peer's host; a longer timeout=")      \
	X(PEER_REFUSED, EIO, HERE, "the peer could not carry the request out",                     \
	  "it is another release", "install the same release on both sides")                       \
	X(MEMORY_GONE, EFAULT, HERE, "the memory of a request is gone",                            \
	  "it was unmapped before the request was done", "keep it until its completion")           \
	X(NO_MAP, EIO, HERE, "the peer's memory could not be mapped",                              \
	  "no address space, or too many mappings",                                                \
	  "ulimit -v unlimited; sysctl -w vm.max_map_count=262144")                                \
	X(VERBS_LIBRARY, ENODEV, HERE, "the RDMA libraries cannot be loaded",                      \
	  "they are not installed", "apt-get install libibverbs1 librdmacm1 ibverbs-providers")    \
	X(VERBS_KERNEL, ENODEV, HERE, "the kernel has no RDMA for programs",                       \
	  "its modules are not loaded, or this machine has no RDMA NIC",                           \
	  "modprobe -a ib_uverbs rdma_ucm; without a NIC, --fabric tcp, or soft RDMA: rdma link "  \
	  "add rxe0 type rxe netdev eth0")                                                         \
	X(VERBS_DEVICE, ENODEV, HERE, "there is no RDMA device",                                   \
	  "no RDMA NIC, or its driver is not loaded",                                              \
	  "rdma link; without a NIC, --fabric tcp, or soft RDMA: rdma link add rxe0 type rxe "     \
	  "netdev eth0")                                                                           \
	X(VERBS_NODE, ENODEV, HERE,                                                                \
	  "there are RDMA devices, but not their files under /dev/infiniband",                     \
	  "a container that was not given them", "run it with --device=/dev/infiniband")           \
	X(VERBS_PROVIDER, ENODEV, HERE, "no library drives this machine's RDMA devices",           \
	  "the provider of this kind of NIC is not installed",                                     \
	  "apt-get install ibverbs-providers")                                                     \
	X(VERBS_CM, ENODEV, HERE, "RDMA connections cannot be made",                               \
	  "rdma_ucm is not loaded, or /dev/infiniband/rdma_cm may not be opened",                  \
	  "modprobe rdma_ucm; ls -l /dev/infiniband")                                              \
	X(VERBS_PORT, ENODEV, HERE, "no port of the RDMA devices is active",                       \
	  "the cable or the network interface is down", "rdma link; ip link set IFACE up")         \
	X(VERBS_NO_SUCH, ENODEV, HERE, "no RDMA device has such a name", "dev= is misspelt",       \
	  "rdma link shows those there are")                                                       \
	X(MEMLOCK, ENOMEM, HERE, "memory cannot be pinned",                                        \
	  "the limit on locked memory (ulimit -l) is too low",                                     \
	  "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit, or a line '* - memlock "     \
	  "unlimited' in /etc/security/limits.conf")                                               \
	X(RDMA_CGROUP, EAGAIN, HERE, "the cgroup allows no more RDMA objects",                     \
	  "rdma.max of this cgroup or of one above it",                                            \
	  "cat /sys/fs/cgroup/.../rdma.max, and raise hca_object")                                 \
	X(NO_DMABUF, EOPNOTSUPP, HERE, "the device cannot take memory of a GPU (dma-buf)",         \
	  "its driver has no peer-to-peer, or the kernel is too old",                              \
	  "copy through a region of host memory")                                                  \
	X(NOT_OFFERED, EOPNOTSUPP, HARDWARE, "the device does not offer what it was asked for",    \
	  "another kind of NIC", "ibv_devinfo -v shows what it can")                               \
	X(DEVICE_FULL, ENOMEM, HARDWARE, "the device or the kernel has no memory left for this",   \
	  "too many queue pairs or regions", "rdma resource shows who has them")                   \
	X(DEVICE_REFUSED, EIO, HERE, "the device refused",                                         \
	  "an address that is no memory, or a driver's fault", "dmesg")                            \
	X(CQ_FULL, ENOSPC, HARDWARE,                                                               \
	  "the device's completion queues are too short for so many links",                        \
	  "too many links on one completion queue", "spread them over several")                    \
	X(LOC_LEN, EIO, HARDWARE, "a length that the device does not allow",                       \
	  "a message longer than the port's largest", "report it, with this line")                 \
	X(LOC_QP_OP, EIO, HERE, "the queue pair could not carry it out",                           \
	  "a receive was too short for what the peer sent",                                        \
	  "install the same release on both sides")                                                \
	X(LOC_EEC_OP, EIO, HARDWARE, "a fault of an end-to-end context", "a driver's fault",       \
	  "dmesg")                                                                                 \
	X(LOC_PROT, EFAULT, HERE, "the local memory is not registered as the request needs it",    \
	  "its region was released too early", "release it when its requests have ended")          \
	X(FLUSHED, ECONNRESET, HERE, "it was under way when the link ended",                       \
	  "see the link's first failure", "pst_link_why")                                          \
	X(MW_BIND, EIO, HARDWARE, "a memory window could not be bound", "its region was released", \
	  "keep it until the link is closed")                                                      \
	X(BAD_RESP, EPROTO, HARDWARE, "the peer's device answered what was not asked",             \
	  "a broken device or firmware", "dmesg on both sides")                                    \
	X(LOC_ACCESS, EACCES, HARDWARE, "the peer wrote where this side's device forbids it",      \
	  "the peer is broken or hostile", "look at its log")                                      \
	X(REM_INV_REQ, ECONNRESET, HERE, "the peer's device found the request invalid",            \
	  "its queue pair does not allow it, or the length is wrong",                              \
	  "install the same release on both sides")                                                \
	X(REM_ACCESS, ECONNRESET, HERE,                                                            \
	  "the peer's device forbids it: the key does not let at that memory",                     \
	  "the peer released the region, or restarted", "ask the peer for a new key")              \
	X(REM_OP, ECONNRESET, HERE, "the peer's device could not carry it out",                    \
	  "a receive that was too short, or a fault over there",                                   \
	  "look at the peer's log and dmesg")                                                      \
	X(RETRY_EXC, ETIMEDOUT, HERE, "the peer's device does not answer",                         \
	  "its process or host died, or the path between is cut",                                  \
	  "ping the address; penstock-perf doctor HOST")                                           \
	X(RNR_RETRY_EXC, ENOBUFS, HERE, "the peer had no receive posted",                          \
	  "the peer breaks the protocol of the link", "install the same release on both sides")    \
	X(LOC_RDD_VIOL, EIO, HARDWARE, "reliable datagram domains do not match",                   \
	  "a driver's fault", "dmesg")                                                             \
	X(REM_INV_RD_REQ, EPROTO, HARDWARE, "the peer found the reliable datagram invalid",        \
	  "a driver's fault", "dmesg")                                                             \
	X(REM_ABORT, ECONNABORTED, HARDWARE, "the peer's device gave the request up",              \
	  "a fault over there", "look at the peer's dmesg")                                        \
	X(INV_EECN, EIO, HARDWARE, "an invalid end-to-end context", "a driver's fault", "dmesg")   \
	X(INV_EEC_STATE, EIO, HARDWARE, "an end-to-end context in a wrong state",                  \
	  "a driver's fault", "dmesg")                                                             \
	X(FATAL, EIO, HARDWARE, "the device broke down", "hardware or firmware",                   \
	  "dmesg; reset the device")                                                               \
	X(RESP_TIMEOUT, ETIMEDOUT, HARDWARE, "the peer's device did not answer in time",           \
	  "its host or the path is overloaded", "raise timeout=")                                  \
	X(GENERAL, EIO, HARDWARE, "a fault of the device that it does not name",                   \
	  "hardware or firmware", "dmesg")                                                         \
	X(TM, EIO, HARDWARE, "a fault in matching tags", "a driver's fault", "dmesg")              \
	X(TM_RNDV, EIO, HARDWARE, "a rendezvous was not completed", "a driver's fault", "dmesg")   \
	X(PORT_DOWN, ENETDOWN, HERE, "the port of this rail is down",                              \
	  "the cable, the switch or the network interface", "rdma link; ip link set IFACE up")     \
	X(QP_FATAL, EIO, HARDWARE, "the device gave the queue pair up",                            \
	  "a fault of hardware, or a hostile peer", "dmesg")                                       \
	X(DEVICE_GONE, ENODEV, HARDWARE, "the device was removed",                                 \
	  "its driver was unloaded, or it was unplugged", "rdma link")                             \
	X(FRAME_BROKEN, EBADMSG, HERE, "a message came broken again and again",                    \
	  "bad memory or a bad device: the wire has its own checksum", "memtest; another NIC")     \
	X(WAY_DEV, ENODEV, HERE, "the way to the peer leaves by a device that dev= does not name", \
	  "routes, or the wrong dev=", "ip route get ADDRESS; rdma link")

enum pst_cause {
#define X(name, err, where, what, likely, mend) PST_CAUSE_##name,
	PST_CAUSES(X)
#undef X
		PST_CAUSE_COUNT,
};

struct pst_cause_row {
	const char *name;
	int status; /* -errno */
	bool hardware;
	const char *what, *likely, *mend;
};

/* Never NULL: a number that is none gets the row of an unknown cause. */
const struct pst_cause_row *pst_cause_row(uint32_t cause);

/* What a link remembers. The owner of the link writes it. */
struct pst_trace {
	struct pst_recent recent[PST_RECENT];
	uint64_t posted; /* of them, ever */
	uint32_t cause;	 /* of the last failure */
	char why[512];	 /* its sentence */
};

struct pst_link;

/* Called by the front for every request; here, because it is a good part of a small one's time. */
static inline void pst_trace_post(struct pst_trace *trace, const struct pst_wr *wr)
{
	trace->recent[trace->posted++ % PST_RECENT] = (struct pst_recent){
		.id = wr->id,
		.region = wr->op == PST_WR_SEND ? 0 : wr->key.k[0],
		.remote_off = wr->op == PST_WR_SEND ? 0 : wr->remote_off,
		.len = wr->len,
		.op = wr->op,
		.flags = wr->flags,
	};
}

/* A request with this @id ended badly; its entry gets the status. NULL: it is no longer there. */
const struct pst_recent *pst_trace_failed(struct pst_trace *trace, uint64_t id, int status);

/*
 * Keep the sentence for @cause on @link: "rail: PEER: what was asked: what happened (code);
 * likely ...; to mend it: ...". @rail may be NULL; @r: the request, NULL for the link itself;
 * @code: the device's own words or numbers, may be NULL. Returns the cause's -errno.
 */
int pst_blame(struct pst_link *link, uint32_t cause, const char *rail, const struct pst_recent *r,
	      const char *code);

/* The same for set-up, where there is no link yet: fills @err with "@what: ...". */
int pst_fail_cause(struct pst_error *err, uint32_t cause, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif /* PST_RDMA_CAUSE_H */
