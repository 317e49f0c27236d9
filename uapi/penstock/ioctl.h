/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * DOC: How a host's Penstock is asked and ordered.
 *
 * Commands are numbers with a struct. They go through one of two doors, with
 * the same structs, checks and results:
 *
 *	/dev/penstock	ioctl(2), where the module penstock.ko is loaded: the pool commands
 *	a Unix socket	of penstockd: all commands (penstock/door.h says how they travel)
 *
 * INFO says which commands and features a door has; there are no version
 * numbers. A command that a door does not serve is -ENOTTY.
 *
 * Every struct begins with its size and flags. The size is the caller's: a
 * shorter struct than the door knows is taken as if zeros followed, down to
 * the fields without which the command means nothing (-EINVAL below); a longer
 * one is taken when what the door does not know is all zeros (-E2BIG if not).
 * As much of the struct as both know is written back, if the command succeeds;
 * on failure nothing is. Out fields are ignored on the way in.
 *
 * Names are ended by a NUL and filled up with zeros. Reserved fields are zero.
 *
 * Lists are walked: a STAT command with PST_STAT_NEXT describes the object with
 * the lowest id above the one given, and -ENOENT is the end. Ids begin at 1, are
 * never used again by the same daemon or module, and one that there is not is -ENOENT.
 *
 * Errors, for all commands alike:
 *
 *	-ENOTTY		this door has no such command
 *	-EOPNOTSUPP	a flag that the door does not know
 *	-EINVAL		a struct too short, a reserved field or a name that is not as
 *			above, a value out of range
 *	-E2BIG		the struct is longer than is known, and the rest is not zero
 *	-EFAULT		the struct is not in memory of the caller that can be read, or written
 *	-ENOENT		no object has this id
 *	-EBADF		a field that is a file descriptor is none, or not of the right kind
 *	-EPERM		the caller may look but not change
 *	-ENOMEM		no memory
 *	-EBUSY		the object is in use
 *	-EEXIST		an object with this name exists
 *	-EDQUOT		the caller's user would have more than he may
 *	-EUSERS		the caller's user has as many sessions, or descriptors of events, as may be
 *
 * They are looked for in this order: is there the command, can its size be read,
 * is it in bounds, can the struct be read, flags, reserved fields, names, the right
 * to change things, descriptors; then what the command itself says.
 *
 * A sentence about the last command that failed on a descriptor is had with WHY.
 *
 * Who may: everybody who can open a door may look. Commands that change
 * something are for root, who runs the daemon, and the door's group, and for pools also for who
 * owns them; a group's members share one quota per user.
 */
#ifndef _UAPI_PENSTOCK_IOCTL_H
#define _UAPI_PENSTOCK_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define PST_IOCTL_TYPE 0xEB

#define PST_NAME_MAX  32
#define PST_URL_BYTES 120

/* Commands; new ones go to the end, numbers are never used again. */
enum {
	PST_CMD_BASE = 0x80,
	PST_CMD_INFO = PST_CMD_BASE,
	PST_CMD_WHY,
	PST_CMD_POOL_CREATE,
	PST_CMD_POOL_MAP,
	PST_CMD_POOL_STAT,
	PST_CMD_POOL_DESTROY,
	PST_CMD_DEVICE_STAT,
	PST_CMD_DEVICE_POWER,
	PST_CMD_KERNEL_LOAD,
	PST_CMD_KERNEL_STAT,
	PST_CMD_KERNEL_BIND,
	PST_CMD_KERNEL_ROLLBACK,
	PST_CMD_KERNEL_UNLOAD,
	PST_CMD_WORKER_START,
	PST_CMD_WORKER_STAT,
	PST_CMD_WORKER_DRAIN,
	PST_CMD_WORKER_STOP,
	PST_CMD_SERVER_STAT,
	PST_CMD_TABLE_STAT,
	PST_CMD_EXPERT_STAT,
	PST_CMD_EXPERT_PLACE,
	PST_CMD_EVENTS,
	PST_CMD_END
};

/* Flags of every STAT command. */
enum {
	PST_STAT_NEXT = 1 << 0, /* the object with the lowest id above the one given */
};

/* A node, a device or a table that is not said. */
#define PST_ANY (-1)

/* Bits of struct pst_cmd_info.out_features. */
enum {
	PST_FEATURE_KEEP = 1 << 0,	 /* pools that outlive who made them */
	PST_FEATURE_EXACT_NODE = 1 << 1, /* every page of a pool is on its node, and stays there */
	PST_FEATURE_DMABUF = 1 << 2,	 /* a pool's descriptor is a dma-buf */
	PST_FEATURE_MODULE = 1 << 3,	 /* the daemon's pools come from the module */
	PST_FEATURE_SIGNED = 1 << 4,	 /* kernel images need a signature */
};

/**
 * struct pst_cmd_info - ioctl(PST_IOC_INFO)
 * @size: In. sizeof(struct pst_cmd_info)
 * @flags: In. 0
 * @out_features: Out. Bits PST_FEATURE_*
 * @out_commands: Out. Bit n: the door serves command PST_CMD_BASE + n
 * @out_pool_bytes: Out. Bytes in pools, of all users
 * @out_quota_bytes: Out. Bytes that the caller's user may have in pools
 * @out_quota_used: Out. Bytes that he has
 * @out_start_ns: Out. When the door opened, CLOCK_BOOTTIME
 * @out_nodes: Out. NUMA nodes with memory
 * @out_pid: Out. Of the daemon; 0: the module
 * @out_devices: Out. How many there are; 0 at a door that has none, as those below
 * @out_workers: Out. Workers that are not stopped
 * @out_kernels: Out. Kernels, with those built in
 * @out_may_change: Out. 1: the caller may change things
 * @out_version: Out. For people: the version of the program or module
 *
 * What the door has, and for whom.
 */
struct pst_cmd_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_features;
	__aligned_u64 out_commands;
	__aligned_u64 out_pool_bytes;
	__aligned_u64 out_quota_bytes;
	__aligned_u64 out_quota_used;
	__aligned_u64 out_start_ns;
	__u32 out_nodes;
	__u32 out_pid;
	__u32 out_devices;
	__u32 out_workers;
	__u32 out_kernels;
	__u32 out_may_change;
	__u8 out_version[PST_NAME_MAX];
};
#define PST_IOC_INFO _IO(PST_IOCTL_TYPE, PST_CMD_INFO)

#define PST_WHY_MAX 496

/**
 * struct pst_cmd_why - ioctl(PST_IOC_WHY)
 * @size: In. sizeof(struct pst_cmd_why)
 * @flags: In. 0
 * @out_code: Out. -errno of the last command that failed on this descriptor; 0: none has
 * @out_cmd: Out. Which command that was
 * @out_text: Out. One sentence: what failed, why, and what mends it; ended by a NUL
 *
 * Asking does not change what is said. A door that has no sentence has an empty one.
 */
struct pst_cmd_why {
	__u32 size;
	__u32 flags;
	__s32 out_code;
	__u32 out_cmd;
	__u8 out_text[PST_WHY_MAX];
};
#define PST_IOC_WHY _IO(PST_IOCTL_TYPE, PST_CMD_WHY)

/*
 * Pools: memory of one NUMA node, in huge pages, that is not moved.
 */

enum {
	/* Huge pages or -ENOMEM; else the largest that there are. */
	PST_POOL_CREATE_HUGE = 1 << 0,
	/* Locked in RAM or -EPERM; else as far as the daemon may. The module's always are. */
	PST_POOL_CREATE_LOCK = 1 << 1,
	/*
	 * It stays until it is destroyed; else it goes with the descriptor of the door that
	 * it was made through. Its content outlives the daemon. Where PST_FEATURE_KEEP is.
	 */
	PST_POOL_CREATE_KEEP = 1 << 2,
};

/**
 * struct pst_cmd_pool_create - ioctl(PST_IOC_POOL_CREATE)
 * @size: In. sizeof(struct pst_cmd_pool_create)
 * @flags: In. Bits PST_POOL_CREATE_*
 * @bytes: In. How much, rounded up to the page size; not 0
 * @node: In. NUMA node; PST_ANY: where the caller runs. -EINVAL: no such node
 * @__reserved: 0
 * @name: In. For people, not empty, and no other pool's (-EEXIST)
 * @out_bytes: Out. What it has
 * @out_page_bytes: Out. Of which pages
 * @out_id: Out. Its id
 * @out_node: Out. Its node
 *
 * Makes a pool of zeros. It is charged to the caller's user (-EDQUOT); -ENOMEM:
 * the node has not as much. Memory that is mapped or imported stays until the last
 * who has it lets go, whatever becomes of the pool.
 */
struct pst_cmd_pool_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 bytes;
	__s32 node;
	__u32 __reserved;
	__u8 name[PST_NAME_MAX];
	__aligned_u64 out_bytes;
	__aligned_u64 out_page_bytes;
	__u32 out_id;
	__s32 out_node;
};
#define PST_IOC_POOL_CREATE _IO(PST_IOCTL_TYPE, PST_CMD_POOL_CREATE)

enum {
	PST_POOL_MAP_READ = 1 << 0, /* cannot be mapped for writing */
};

/**
 * struct pst_cmd_pool_map - ioctl(PST_IOC_POOL_MAP)
 * @size: In. sizeof(struct pst_cmd_pool_map)
 * @flags: In. Bits PST_POOL_MAP_*
 * @id: In. Which pool
 * @out_fd: Out. A descriptor, close-on-exec, to be mapped with MAP_SHARED from offset 0
 * @out_bytes: Out. How much there is to map
 *
 * Only who owns the pool, and who may change things, gets one (-EPERM); others look, and see
 * what is in a pool when one of these hands them the descriptor.
 */
struct pst_cmd_pool_map {
	__u32 size;
	__u32 flags;
	__u32 id;
	__s32 out_fd;
	__aligned_u64 out_bytes;
};
#define PST_IOC_POOL_MAP _IO(PST_IOCTL_TYPE, PST_CMD_POOL_MAP)

/**
 * struct pst_cmd_pool_stat - ioctl(PST_IOC_POOL_STAT)
 * @size: In. sizeof(struct pst_cmd_pool_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which pool
 * @out_flags: Out. Bits PST_POOL_CREATE_* that hold for it
 * @out_bytes: Out. What it has
 * @out_page_bytes: Out. Of which pages
 * @out_pages: Out. Pages that were looked at
 * @out_pages_elsewhere: Out. Of these, on another node
 * @out_node: Out. Its node; PST_ANY: it is bound to none
 * @out_uid: Out. Who owns it
 * @out_pid: Out. Who made it; 0: that process has ended
 * @out_maps: Out. Times that its descriptor was given out
 * @out_name: Out. Its name
 * @out_note: Out. What is worse than asked, and what mends it; or empty
 */
struct pst_cmd_pool_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_flags;
	__aligned_u64 out_bytes;
	__aligned_u64 out_page_bytes;
	__aligned_u64 out_pages;
	__aligned_u64 out_pages_elsewhere;
	__s32 out_node;
	__u32 out_uid;
	__u32 out_pid;
	__u32 out_maps;
	__u8 out_name[PST_NAME_MAX];
	__u8 out_note[256];
};
#define PST_IOC_POOL_STAT _IO(PST_IOCTL_TYPE, PST_CMD_POOL_STAT)

/**
 * struct pst_cmd_pool_destroy - ioctl(PST_IOC_POOL_DESTROY)
 * @size: In. sizeof(struct pst_cmd_pool_destroy)
 * @flags: In. 0
 * @id: In. Which pool
 * @__reserved: 0
 *
 * The pool is gone at once, its memory when nobody has it any more.
 */
struct pst_cmd_pool_destroy {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 __reserved;
};
#define PST_IOC_POOL_DESTROY _IO(PST_IOCTL_TYPE, PST_CMD_POOL_DESTROY)

/*
 * Devices: what runs kernels: the cores of a NUMA node, or a GPU.
 */

enum {
	PST_DEVICE_CPU = 1,
	PST_DEVICE_GPU = 2,
};

enum {
	PST_HEALTH_OK = 0,
	PST_HEALTH_THROTTLED = 1, /* slower than it could be: heat, power, or a cap */
	PST_HEALTH_DEGRADED = 2,  /* errors were seen, it goes on */
	PST_HEALTH_LOST = 3,	  /* it does not answer */
};

/* A figure that the device does not tell. */
#define PST_UNKNOWN   (~0ull)
#define PST_UNKNOWN32 (~0u)

/**
 * struct pst_cmd_device_stat - ioctl(PST_IOC_DEVICE_STAT)
 * @size: In. sizeof(struct pst_cmd_device_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which device
 * @out_kind: Out. PST_DEVICE_*
 * @out_node: Out. NUMA node; PST_ANY: unknown
 * @out_health: Out. PST_HEALTH_*
 * @out_cores: Out. Cores of a CPU that may be used, multiprocessors of a GPU
 * @out_load: Out. Per mille of the time that it computed, of late
 * @out_memory_bytes: Out. Memory: of the node, or of the GPU
 * @out_memory_used: Out. Of it, in use
 * @out_energy_uj: Out. Microjoule since some moment
 * @out_power_mw: Out. Milliwatt, now
 * @out_cap_mw: Out. What it may take at most
 * @out_cap_min_mw: Out. The least that can be said for that
 * @out_cap_max_mw: Out. ... and the most
 * @out_clock_mhz: Out. Clock of its cores, now
 * @out_clock_min_mhz: Out. What they may run at, at least
 * @out_clock_max_mhz: Out. ... and at most
 * @out_memory_clock_mhz: Out. Clock of its memory, now
 * @out_temperature_mc: Out. Thousandths of a degree Celsius
 * @out_xid: Out. The last XID error that the driver told; 0: none
 * @out_ecc_corrected: Out. Errors of memory that were corrected
 * @out_ecc_uncorrected: Out. ... that were not
 * @out_name: Out. As its maker calls it
 * @out_uuid: Out. What tells it from others of its kind; a PCI address or a UUID; or empty
 * @out_note: Out. What is wrong with it, and what mends it; or empty
 *
 * What a device does not tell is PST_UNKNOWN or PST_UNKNOWN32.
 */
struct pst_cmd_device_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_kind;
	__s32 out_node;
	__u32 out_health;
	__u32 out_cores;
	__u32 out_load;
	__aligned_u64 out_memory_bytes;
	__aligned_u64 out_memory_used;
	__aligned_u64 out_energy_uj;
	__u32 out_power_mw;
	__u32 out_cap_mw;
	__u32 out_cap_min_mw;
	__u32 out_cap_max_mw;
	__u32 out_clock_mhz;
	__u32 out_clock_min_mhz;
	__u32 out_clock_max_mhz;
	__u32 out_memory_clock_mhz;
	__u32 out_temperature_mc;
	__u32 out_xid;
	__aligned_u64 out_ecc_corrected;
	__aligned_u64 out_ecc_uncorrected;
	__u8 out_name[64];
	__u8 out_uuid[64];
	__u8 out_note[256];
};
#define PST_IOC_DEVICE_STAT _IO(PST_IOCTL_TYPE, PST_CMD_DEVICE_STAT)

enum {
	PST_DEVICE_POWER_CAP = 1 << 0,	 /* set the cap */
	PST_DEVICE_POWER_CLOCK = 1 << 1, /* set the range of the clock */
	PST_DEVICE_POWER_RESET = 1 << 2, /* put back what the daemon found; alone */
};

/**
 * struct pst_cmd_device_power - ioctl(PST_IOC_DEVICE_POWER)
 * @size: In. sizeof(struct pst_cmd_device_power)
 * @flags: In. Bits PST_DEVICE_POWER_*, at least one
 * @id: In. Which device
 * @cap_mw: In. With CAP: between its least and most (-ERANGE); else 0
 * @clock_min_mhz: In. With CLOCK: at most @clock_max_mhz (-EINVAL); else 0
 * @clock_max_mhz: In. With CLOCK
 *
 * -ENODEV: a device that has no such thing to set. What was set is put back when the daemon ends.
 */
struct pst_cmd_device_power {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 cap_mw;
	__u32 clock_min_mhz;
	__u32 clock_max_mhz;
};
#define PST_IOC_DEVICE_POWER _IO(PST_IOCTL_TYPE, PST_CMD_DEVICE_POWER)

/*
 * Kernels: implementations of ops, built in or loaded.
 */

enum {
	PST_KERNEL_TESTED = 1,	 /* agreed with ref, may be bound */
	PST_KERNEL_BOUND = 2,	 /* serves its op on some device */
	PST_KERNEL_REPLACED = 3, /* was bound; what a rollback goes back to */
	PST_KERNEL_TAKEN_BACK =
		4, /* crashed, hung or disagreed when it served; never bound again */
};

enum {
	PST_KERNEL_LOAD_SLOWER = 1 << 0, /* may be slower than what it would replace */
};

/**
 * struct pst_cmd_kernel_load - ioctl(PST_IOC_KERNEL_LOAD)
 * @size: In. sizeof(struct pst_cmd_kernel_load)
 * @flags: In. Bits PST_KERNEL_LOAD_*
 * @image_fd: In. A file: a shared object, a cubin or a fatbin
 * @manifest_fd: In. A file: its manifest (penstock-kernel(5))
 * @out_id: Out. Its id
 * @out_speed: Out. Per mille of the time of what it would replace
 *
 * Both files are read whole before this returns. The image is tried in a process of its
 * own, which takes seconds; the door serves others meanwhile. Refusals, of which WHY
 * says more:
 *
 *	-EBADMSG	the manifest is not as it must be
 *	-EKEYREJECTED	it is not signed by a key that the admin trusts
 *	-EILSEQ		the image is not the one that the manifest describes
 *	-ENOEXEC	another ABI, another kind of device, or an image that cannot be loaded
 *	-EDOM		it does not agree with ref: which check, which shape, by how much
 *	-ESTALE		it is slower than what it would replace
 *	-ETIME		it hung
 *	-ECHILD		it crashed
 */
struct pst_cmd_kernel_load {
	__u32 size;
	__u32 flags;
	__s32 image_fd;
	__s32 manifest_fd;
	__u32 out_id;
	__u32 out_speed;
};
#define PST_IOC_KERNEL_LOAD _IO(PST_IOCTL_TYPE, PST_CMD_KERNEL_LOAD)

/**
 * struct pst_cmd_kernel_stat - ioctl(PST_IOC_KERNEL_STAT)
 * @size: In. sizeof(struct pst_cmd_kernel_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which kernel
 * @out_state: Out. PST_KERNEL_*
 * @out_kind: Out. PST_DEVICE_* that it runs on
 * @out_builtin: Out. 1: it came with the program
 * @out_workers: Out. Workers that it serves in
 * @out_speed: Out. Per mille of the time of what it replaces; 0: was not measured
 * @out_checks: Out. Times that it was held against ref
 * @out_error_ppb: Out. The worst relative error seen in these, in parts per billion
 * @out_op: Out. Which op
 * @out_name: Out. Its own name
 * @out_hash: Out. SHA-256 of the image; zeros: built in
 */
struct pst_cmd_kernel_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_state;
	__u32 out_kind;
	__u32 out_builtin;
	__u32 out_workers;
	__u32 out_speed;
	__aligned_u64 out_checks;
	__aligned_u64 out_error_ppb;
	__u8 out_op[PST_NAME_MAX];
	__u8 out_name[PST_NAME_MAX];
	__u8 out_hash[32];
};
#define PST_IOC_KERNEL_STAT _IO(PST_IOCTL_TYPE, PST_CMD_KERNEL_STAT)

/**
 * struct pst_cmd_kernel_bind - ioctl(PST_IOC_KERNEL_BIND)
 * @size: In. sizeof(struct pst_cmd_kernel_bind)
 * @flags: In. 0
 * @id: In. Which kernel; TAKEN_BACK is -EKEYREVOKED
 * @__reserved: 0
 *
 * From the next call on it serves its op in every worker on devices of its kind; calls that
 * run end with the old one, which is kept for a rollback. Returns when all workers have it.
 */
struct pst_cmd_kernel_bind {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 __reserved;
};
#define PST_IOC_KERNEL_BIND _IO(PST_IOCTL_TYPE, PST_CMD_KERNEL_BIND)

/**
 * struct pst_cmd_kernel_rollback - ioctl(PST_IOC_KERNEL_ROLLBACK)
 * @size: In. sizeof(struct pst_cmd_kernel_rollback)
 * @flags: In. 0
 * @id: In. A kernel that is bound (-EINVAL)
 * @out_id: Out. The one that serves its op now: what it had replaced
 */
struct pst_cmd_kernel_rollback {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_id;
};
#define PST_IOC_KERNEL_ROLLBACK _IO(PST_IOCTL_TYPE, PST_CMD_KERNEL_ROLLBACK)

/**
 * struct pst_cmd_kernel_unload - ioctl(PST_IOC_KERNEL_UNLOAD)
 * @size: In. sizeof(struct pst_cmd_kernel_unload)
 * @flags: In. 0
 * @id: In. Which kernel; -EBUSY if it is bound or kept for a rollback, -EPERM if built in
 * @__reserved: 0
 */
struct pst_cmd_kernel_unload {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 __reserved;
};
#define PST_IOC_KERNEL_UNLOAD _IO(PST_IOCTL_TYPE, PST_CMD_KERNEL_UNLOAD)

/*
 * Workers and servers: the daemon's children.
 */

enum {
	PST_WORKER_STARTING = 1,
	PST_WORKER_SERVING = 2,
	PST_WORKER_DRAINING = 3, /* ends what it has, takes nothing new */
	PST_WORKER_STOPPED = 4,	 /* by an order; its id stays until the daemon ends */
	PST_WORKER_FAILED = 5,	 /* died too often; is tried again, less and less often */
};

/**
 * struct pst_cmd_worker_start - ioctl(PST_IOC_WORKER_START)
 * @size: In. sizeof(struct pst_cmd_worker_start)
 * @flags: In. 0
 * @device: In. On which device; 0: the first CPU
 * @threads: In. That compute, 0: as many as the device has cores
 * @url: In. Where it listens, without settings; empty: shm, under a name that is chosen
 * @out_id: Out. Its id
 * @out_pid: Out. Its process
 * @out_url: Out. Where it listens
 *
 * Returns when it listens. One that dies is started again, with the same id and URL.
 * -EADDRINUSE, -ECHILD: it ended before it listened; WHY has what it said.
 */
struct pst_cmd_worker_start {
	__u32 size;
	__u32 flags;
	__u32 device;
	__u32 threads;
	__u8 url[PST_URL_BYTES];
	__u32 out_id;
	__u32 out_pid;
	__u8 out_url[PST_URL_BYTES];
};
#define PST_IOC_WORKER_START _IO(PST_IOCTL_TYPE, PST_CMD_WORKER_START)

/**
 * struct pst_cmd_worker_stat - ioctl(PST_IOC_WORKER_STAT)
 * @size: In. sizeof(struct pst_cmd_worker_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which worker
 * @out_state: Out. PST_WORKER_*
 * @out_device: Out. On which device
 * @out_pid: Out. Its process; 0: none
 * @out_threads: Out. That compute
 * @out_restarts: Out. Times that it was started again
 * @out_engines: Out. Engines that it serves
 * @out_beat_ms: Out. Since it was last heard of
 * @out_rows: Out. Rows that it computed, forward and backward
 * @out_calls: Out. Requests that it served
 * @out_busy_ns: Out. Time that it computed
 * @out_pulled: Out. Bytes of weights that it used
 * @out_moved: Out. Bytes that crossed a link
 * @out_copied: Out. Bytes that were moved more than once
 * @out_url: Out. Where it listens
 * @out_note: Out. Why it last died, or what is worse than asked; or empty
 *
 * Counters go on where they were when a worker is started again.
 */
struct pst_cmd_worker_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_state;
	__u32 out_device;
	__u32 out_pid;
	__u32 out_threads;
	__u32 out_restarts;
	__u32 out_engines;
	__u32 out_beat_ms;
	__aligned_u64 out_rows;
	__aligned_u64 out_calls;
	__aligned_u64 out_busy_ns;
	__aligned_u64 out_pulled;
	__aligned_u64 out_moved;
	__aligned_u64 out_copied;
	__u8 out_url[PST_URL_BYTES];
	__u8 out_note[256];
};
#define PST_IOC_WORKER_STAT _IO(PST_IOCTL_TYPE, PST_CMD_WORKER_STAT)

/**
 * struct pst_cmd_worker_drain - ioctl(PST_IOC_WORKER_DRAIN)
 * @size: In. sizeof(struct pst_cmd_worker_drain)
 * @flags: In. 0
 * @id: In. Which worker
 * @timeout_ms: In. How long it may take, 0: a minute; -ETIMEDOUT: it drains on
 *
 * Engines are told to go elsewhere. Returns when none is served any more; the worker is
 * stopped then.
 */
struct pst_cmd_worker_drain {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 timeout_ms;
};
#define PST_IOC_WORKER_DRAIN _IO(PST_IOCTL_TYPE, PST_CMD_WORKER_DRAIN)

/**
 * struct pst_cmd_worker_stop - ioctl(PST_IOC_WORKER_STOP)
 * @size: In. sizeof(struct pst_cmd_worker_stop)
 * @flags: In. 0
 * @id: In. Which worker
 * @__reserved: 0
 *
 * At once. Engines find out, and go elsewhere.
 */
struct pst_cmd_worker_stop {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 __reserved;
};
#define PST_IOC_WORKER_STOP _IO(PST_IOCTL_TYPE, PST_CMD_WORKER_STOP)

/**
 * struct pst_cmd_server_stat - ioctl(PST_IOC_SERVER_STAT)
 * @size: In. sizeof(struct pst_cmd_server_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which server
 * @out_pid: Out. Its process; 0: none now
 * @out_node: Out. NUMA node of its memory
 * @out_restarts: Out. Times that it was started again
 * @out_tables: Out. Tables that it has parts of
 * @out_bytes: Out. Bytes in its pools
 * @out_read_bytes: Out. Bytes that it read from disk
 * @out_url: Out. Where it listens
 * @out_note: Out. Why it last died, or what is worse than asked; or empty
 *
 * Parameter servers that the daemon's config names, which it starts and keeps.
 */
struct pst_cmd_server_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_pid;
	__s32 out_node;
	__u32 out_restarts;
	__u32 out_tables;
	__u32 __reserved;
	__aligned_u64 out_bytes;
	__aligned_u64 out_read_bytes;
	__u8 out_url[PST_URL_BYTES];
	__u8 out_note[256];
};
#define PST_IOC_SERVER_STAT _IO(PST_IOCTL_TYPE, PST_CMD_SERVER_STAT)

/*
 * Tables and experts, as the daemon's workers and servers tell of them.
 */

/**
 * struct pst_cmd_table_stat - ioctl(PST_IOC_TABLE_STAT)
 * @size: In. sizeof(struct pst_cmd_table_stat)
 * @flags: In. PST_STAT_NEXT or 0
 * @id: In and out. Which table
 * @out_server: Out. The server of this host that has a part of it
 * @out_tensors: Out. Tensors in that part
 * @out_clients: Out. Links that use it
 * @out_bytes: Out. Bytes of the part's snapshot
 * @out_state_bytes: Out. ... and of what the optimizer keeps beside it
 * @out_version: Out. The version that was published last
 * @out_pushed_bytes: Out. Gradients that came in
 * @out_name: Out. Its name
 */
struct pst_cmd_table_stat {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_server;
	__u32 out_tensors;
	__u32 out_clients;
	__aligned_u64 out_bytes;
	__aligned_u64 out_state_bytes;
	__aligned_u64 out_version;
	__aligned_u64 out_pushed_bytes;
	__u8 out_name[PST_NAME_MAX];
};
#define PST_IOC_TABLE_STAT _IO(PST_IOCTL_TYPE, PST_CMD_TABLE_STAT)

/**
 * struct pst_cmd_expert_stat - ioctl(PST_IOC_EXPERT_STAT)
 * @size: In. sizeof(struct pst_cmd_expert_stat)
 * @flags: In. PST_STAT_NEXT or 0: the next in the order of layers, then of indices
 * @layer: In and out. Its layer
 * @index: In and out. Its index in the layer
 * @out_bytes: Out. Of its weights
 * @out_rows: Out. Rows that this host's workers computed with it
 * @out_recent_rows: Out. Of these, of late: halved every ten seconds
 * @out_pulled: Out. Bytes of it that came over a link
 * @out_copies: Out. Workers of this host that hold a copy, or have it mapped
 * @out_pinned: Out. Of these, told to keep it
 * @out_workers: Out. Bit n: the worker with id n + 1 has a copy
 *
 * With PST_STAT_NEXT, (PST_EXPERT_FIRST, PST_EXPERT_FIRST) finds the first.
 */
struct pst_cmd_expert_stat {
	__u32 size;
	__u32 flags;
	__u32 layer;
	__u32 index;
	__aligned_u64 out_bytes;
	__aligned_u64 out_rows;
	__aligned_u64 out_recent_rows;
	__aligned_u64 out_pulled;
	__u32 out_copies;
	__u32 out_pinned;
	__aligned_u64 out_workers;
};
#define PST_EXPERT_FIRST    (~0u)
#define PST_IOC_EXPERT_STAT _IO(PST_IOCTL_TYPE, PST_CMD_EXPERT_STAT)

enum {
	PST_EXPERT_PIN = 1,   /* bring it, and keep it there */
	PST_EXPERT_UNPIN = 2, /* it may go when there is no room */
	PST_EXPERT_EVICT = 3, /* let its copy go now */
	PST_EXPERT_BRING = 4, /* bring it; it may go again */
};

/**
 * struct pst_cmd_expert_place - ioctl(PST_IOC_EXPERT_PLACE)
 * @size: In. sizeof(struct pst_cmd_expert_place)
 * @flags: In. 0
 * @layer: In. Its layer
 * @index: In. Its index in the layer
 * @worker: In. Which worker
 * @order: In. PST_EXPERT_*
 *
 * -ENODATA: the worker serves no engine that has such an expert. -ENOSPC: what is pinned
 * already leaves no room. Where a worker maps a server's memory there are no copies: then
 * nothing is done, and it is no error.
 */
struct pst_cmd_expert_place {
	__u32 size;
	__u32 flags;
	__u32 layer;
	__u32 index;
	__u32 worker;
	__u32 order;
};
#define PST_IOC_EXPERT_PLACE _IO(PST_IOCTL_TYPE, PST_CMD_EXPERT_PLACE)

/*
 * Events.
 */

enum {
	PST_EVENT_LOST = 1,    /* @value events found no room here before this one */
	PST_EVENT_STARTED = 2, /* worker or server @id, as process @value */
	PST_EVENT_DIED = 3,    /* worker or server @id; @value: exit status, or -signal */
	PST_EVENT_HUNG = 4,    /* worker or server @id was killed after @value ms of silence */
	PST_EVENT_DRAINED = 5, /* worker @id */
	PST_EVENT_STOPPED = 6, /* worker @id */
	PST_EVENT_KERNEL_LOADED = 7,	  /* kernel @id */
	PST_EVENT_KERNEL_REFUSED = 8,	  /* @value: -errno as of KERNEL_LOAD */
	PST_EVENT_KERNEL_BOUND = 9,	  /* kernel @id, in place of @value */
	PST_EVENT_KERNEL_TAKEN_BACK = 10, /* kernel @id by itself, @value serves again */
	PST_EVENT_DEVICE = 11,		  /* device @id is in health @value now */
	PST_EVENT_XID = 12,		  /* device @id: XID error @value */
	PST_EVENT_LIMIT = 13,		  /* user @id hit his quota, asking for @value bytes */
	PST_EVENT_POOL = 14,		  /* pool @id: what is worse than asked, in words */
	PST_EVENT_RELOADED = 15,	  /* the config was read again; @value: 0, or -errno */
	PST_EVENT_END
};

/* Mask for an event's type. */
#define PST_EVENT_BIT(type) (1ull << (type))

/**
 * struct pst_event - what is read from the descriptor of EVENTS, one for each read
 * @size: Bytes that are sent, sizeof(struct pst_event) of the daemon
 * @type: PST_EVENT_*
 * @time_ns: When, CLOCK_REALTIME
 * @id: Of what it happened to
 * @__reserved: 0
 * @value: As the type says
 * @text: In words, one sentence ended by a NUL
 */
struct pst_event {
	__u32 size;
	__u32 type;
	__aligned_u64 time_ns;
	__u32 id;
	__u32 __reserved;
	__s64 value;
	__u8 text[256];
};

/**
 * struct pst_cmd_events - ioctl(PST_IOC_EVENTS)
 * @size: In. sizeof(struct pst_cmd_events)
 * @flags: In. 0
 * @mask: In. PST_EVENT_BIT() of the types that are wanted; 0: all
 * @past: In. As many of the last events (of the mask) come first, as far as they are kept
 * @out_fd: Out. A descriptor, close-on-exec: read(2) gives one struct pst_event, poll(2) says
 *	whether there is one
 *
 * Who reads too slowly loses events and is told how many.
 */
struct pst_cmd_events {
	__u32 size;
	__u32 flags;
	__aligned_u64 mask;
	__u32 past;
	__s32 out_fd;
};
#define PST_IOC_EVENTS _IO(PST_IOCTL_TYPE, PST_CMD_EVENTS)

#endif /* _UAPI_PENSTOCK_IOCTL_H */
