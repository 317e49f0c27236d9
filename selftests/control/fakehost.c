/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/fakehost.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define GIB	     (1ull << 30)
#define UNTOLD	     PST_UNKNOWN32
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static struct pst_cmd_device_stat devices[] = {
	{.id = 1,
	 .out_kind = PST_DEVICE_CPU,
	 .out_node = 0,
	 .out_cores = 96,
	 .out_load = 823,
	 .out_memory_bytes = 755 * GIB,
	 .out_memory_used = 612 * GIB,
	 .out_energy_uj = 81000000000000ull,
	 .out_power_mw = 301400,
	 .out_cap_mw = 400000,
	 .out_cap_min_mw = UNTOLD,
	 .out_cap_max_mw = UNTOLD,
	 .out_clock_mhz = 3650,
	 .out_clock_min_mhz = 1500,
	 .out_clock_max_mhz = 3700,
	 .out_memory_clock_mhz = UNTOLD,
	 .out_temperature_mc = 61250,
	 .out_name = "AMD EPYC 9654 96-Core Processor"},
	{.id = 2,
	 .out_kind = PST_DEVICE_CPU,
	 .out_node = 1,
	 .out_cores = 96,
	 .out_load = UNTOLD,
	 .out_memory_bytes = 756 * GIB,
	 .out_memory_used = PST_UNKNOWN,
	 .out_energy_uj = PST_UNKNOWN,
	 .out_power_mw = UNTOLD,
	 .out_cap_mw = UNTOLD,
	 .out_cap_min_mw = UNTOLD,
	 .out_cap_max_mw = UNTOLD,
	 .out_clock_mhz = UNTOLD,
	 .out_clock_min_mhz = UNTOLD,
	 .out_clock_max_mhz = UNTOLD,
	 .out_memory_clock_mhz = UNTOLD,
	 .out_temperature_mc = UNTOLD,
	 .out_ecc_corrected = PST_UNKNOWN,
	 .out_ecc_uncorrected = PST_UNKNOWN,
	 .out_name = "AMD EPYC 9654 96-Core Processor"},
	{.id = 3,
	 .out_kind = PST_DEVICE_GPU,
	 .out_node = 0,
	 .out_cores = 132,
	 .out_load = 971,
	 .out_memory_bytes = 140 * GIB,
	 .out_memory_used = 101 * GIB + GIB / 5,
	 .out_energy_uj = 90000000000ull,
	 .out_power_mw = 655000,
	 .out_cap_mw = 700000,
	 .out_cap_min_mw = 200000,
	 .out_cap_max_mw = 700000,
	 .out_clock_mhz = 1980,
	 .out_clock_min_mhz = 345,
	 .out_clock_max_mhz = 1980,
	 .out_memory_clock_mhz = 3201,
	 .out_temperature_mc = 58000,
	 .out_ecc_corrected = 3,
	 .out_name = "NVIDIA H200",
	 .out_uuid = "GPU-6e1b7a51-35c4-4a7e-9a36-8f0b6f3c2d11"},
	{.id = 4,
	 .out_kind = PST_DEVICE_GPU,
	 .out_node = PST_ANY,
	 .out_health = PST_HEALTH_THROTTLED,
	 .out_cores = 132,
	 .out_load = 1000,
	 .out_memory_bytes = 140 * GIB,
	 .out_memory_used = 135 * GIB,
	 .out_energy_uj = 90000000000ull,
	 .out_power_mw = 512300,
	 .out_cap_mw = 600000,
	 .out_cap_min_mw = 200000,
	 .out_cap_max_mw = 700000,
	 .out_clock_mhz = 1215,
	 .out_clock_min_mhz = 345,
	 .out_clock_max_mhz = 1980,
	 .out_memory_clock_mhz = 3201,
	 .out_temperature_mc = 87000,
	 .out_xid = 63,
	 .out_name = "NVIDIA H200",
	 .out_uuid = "GPU-02d9f3b4-77aa-4c1f-8c57-1e5a90b64f02",
	 .out_note = "it is at 87 C and slows down; look at its fans and the air before it"},
};

static struct pst_cmd_worker_stat workers[] = {
	{.id = 1,
	 .out_state = PST_WORKER_SERVING,
	 .out_device = 3,
	 .out_pid = 4711,
	 .out_threads = 1,
	 .out_engines = 2,
	 .out_beat_ms = 120,
	 .out_rows = 81234567,
	 .out_calls = 40321,
	 .out_busy_ns = 3600000000000ull,
	 .out_pulled = 800 * GIB,
	 .out_moved = 912 * GIB,
	 .out_url = "shm://penstock-worker-1"},
	{.id = 2,
	 .out_state = PST_WORKER_SERVING,
	 .out_device = 4,
	 .out_pid = 4712,
	 .out_threads = 1,
	 .out_restarts = 1,
	 .out_engines = 2,
	 .out_beat_ms = 80,
	 .out_rows = 71234567,
	 .out_calls = 40122,
	 .out_busy_ns = 3300000000000ull,
	 .out_pulled = 700 * GIB,
	 .out_moved = 812 * GIB,
	 .out_url = "verbs://192.168.70.12,192.168.71.12:7471"},
	{.id = 5,
	 .out_state = PST_WORKER_FAILED,
	 .out_device = 1,
	 .out_threads = 96,
	 .out_restarts = 7,
	 .out_beat_ms = 61000,
	 .out_rows = 1234,
	 .out_calls = 12,
	 .out_busy_ns = 5000000,
	 .out_copied = 4096,
	 .out_url = "tcp://192.168.70.12:7472",
	 .out_note = "port 7472 of 192.168.70.12 is taken; give it another: url in penstockd.conf"},
};

static struct pst_cmd_server_stat servers[] = {
	{.id = 1,
	 .out_pid = 4700,
	 .out_node = 0,
	 .out_tables = 2,
	 .out_bytes = 580 * GIB,
	 .out_read_bytes = 570 * GIB,
	 .out_url = "verbs://192.168.70.12:7470"},
};

static struct pst_cmd_table_stat tables[] = {
	{.id = 1,
	 .out_server = 1,
	 .out_tensors = 45312,
	 .out_clients = 4,
	 .out_bytes = 320 * GIB,
	 .out_state_bytes = 960 * GIB,
	 .out_version = 12041,
	 .out_pushed_bytes = 4096 * GIB,
	 .out_name = "experts"},
	{.id = 2,
	 .out_server = 1,
	 .out_tensors = 611,
	 .out_clients = 2,
	 .out_bytes = 17 * GIB,
	 .out_state_bytes = 51 * GIB,
	 .out_version = 12041,
	 .out_pushed_bytes = 200 * GIB,
	 .out_name = "dense"},
};

static struct pst_cmd_pool_stat pools[] = {
	{.id = 1,
	 .out_flags = PST_POOL_CREATE_KEEP | PST_POOL_CREATE_HUGE,
	 .out_bytes = 512 * GIB,
	 .out_page_bytes = GIB,
	 .out_pages = 512,
	 .out_node = 0,
	 .out_uid = 997,
	 .out_pid = 4700,
	 .out_maps = 3,
	 .out_name = "weights-0"},
	{.id = 2,
	 .out_flags = PST_POOL_CREATE_KEEP,
	 .out_bytes = 68 * GIB,
	 .out_page_bytes = 4096,
	 .out_pages = 1000,
	 .out_pages_elsewhere = 30,
	 .out_node = 1,
	 .out_uid = 1000,
	 .out_maps = 1,
	 .out_name = "scratch",
	 .out_note = "pages of 4 KiB, since there are no huge ones: sysctl vm.nr_hugepages=34816"},
};

static struct pst_cmd_kernel_stat kernels[] = {
	{.id = 1,
	 .out_state = PST_KERNEL_REPLACED,
	 .out_kind = PST_DEVICE_CPU,
	 .out_builtin = 1,
	 .out_checks = 12,
	 .out_op = "grouped_gemm",
	 .out_name = "avx2"},
	{.id = 2,
	 .out_state = PST_KERNEL_BOUND,
	 .out_kind = PST_DEVICE_CPU,
	 .out_workers = 3,
	 .out_speed = 832,
	 .out_checks = 4000,
	 .out_error_ppb = 119,
	 .out_op = "grouped_gemm",
	 .out_name = "amx-bf16",
	 .out_hash = {0xde, 0xad, 0xbe, 0xef, 1, 2, 3}},
	{.id = 9,
	 .out_state = PST_KERNEL_TAKEN_BACK,
	 .out_kind = PST_DEVICE_GPU,
	 .out_speed = 400,
	 .out_checks = 2,
	 .out_error_ppb = 420000000,
	 .out_op = "gate_topk",
	 .out_name = "fast",
	 .out_hash = {0xff}},
};

static struct pst_cmd_expert_stat experts[] = {
	{.layer = 3,
	 .index = 0,
	 .out_bytes = 84 << 20,
	 .out_rows = 5000000,
	 .out_recent_rows = 100,
	 .out_copies = 2,
	 .out_pinned = 1,
	 .out_workers = 0x3},
	{.layer = 3,
	 .index = 255,
	 .out_bytes = 84 << 20,
	 .out_rows = 9000000,
	 .out_recent_rows = 4000,
	 .out_pulled = 84 << 20,
	 .out_copies = 1,
	 .out_workers = 1ull << 63},
	{.layer = 4, .index = 7, .out_bytes = 84 << 20, .out_rows = 12, .out_recent_rows = 9},
};

static const struct {
	uint32_t type, id;
	int64_t value;
	const char *text;
} happened[] = {
	{PST_EVENT_STARTED, 1, 4711, "worker 1 is process 4711"},
	{PST_EVENT_DIED, 2, -11, "worker 2 died of signal 11 (Segmentation fault)"},
	{PST_EVENT_STARTED, 2, 4712, "worker 2 is process 4712"},
	{PST_EVENT_KERNEL_BOUND, 2, 1, "kernel 2 (amx-bf16) serves grouped_gemm"},
	{PST_EVENT_KERNEL_TAKEN_BACK, 9, 4,
	 "kernel 9 (fast) disagreed by 4.2e-01 and is taken back"},
	{PST_EVENT_DEVICE, 4, PST_HEALTH_THROTTLED, "device 4 (NVIDIA H200) slows down: 87 C"},
};

static struct pst_cmd_info info = {
	.out_features = PST_FEATURE_KEEP | PST_FEATURE_SIGNED,
	.out_commands = (1ull << FAKE_COMMANDS) - 1,
	.out_pool_bytes = 580 * GIB,
	.out_quota_bytes = PST_UNKNOWN,
	.out_quota_used = 68 * GIB,
	.out_nodes = 2,
	.out_pid = 4699,
	.out_devices = 4,
	.out_workers = 3,
	.out_kernels = 3,
	.out_may_change = 1,
	.out_version = "0.1.0",
};

static void list(struct fakedoor *f, uint32_t cmd, void *rows, size_t n)
{
	fake_at(f, cmd)->row = rows;
	fake_at(f, cmd)->rows = n;
}

static void make_events(struct fakedoor *f)
{
	f->events = COUNT(happened);
	for (size_t i = 0; i < f->events; i++) {
		struct pst_event *e = &f->event[i];

		*e = (struct pst_event){.size = sizeof(*e),
					.type = happened[i].type,
					.time_ns = (1700000000 + 10 * i) * 1000000000ull + 5000000,
					.id = happened[i].id,
					.value = happened[i].value};
		snprintf((char *)e->text, sizeof(e->text), "%s", happened[i].text);
	}
}

void fakehost_open(struct fakedoor *f, const char *path)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	/* three hours and some minutes ago, or when it was booted */
	info.out_start_ns = now.tv_sec > 11100 ? (uint64_t)(now.tv_sec - 11100) * 1000000000ull : 1;
	fake_at(f, PST_CMD_INFO)->answer = &info;
	list(f, PST_CMD_DEVICE_STAT, devices, COUNT(devices));
	list(f, PST_CMD_WORKER_STAT, workers, COUNT(workers));
	list(f, PST_CMD_SERVER_STAT, servers, COUNT(servers));
	list(f, PST_CMD_TABLE_STAT, tables, COUNT(tables));
	list(f, PST_CMD_POOL_STAT, pools, COUNT(pools));
	list(f, PST_CMD_KERNEL_STAT, kernels, COUNT(kernels));
	list(f, PST_CMD_EXPERT_STAT, experts, COUNT(experts));
	make_events(f);
	fakedoor_open(f, path);
}
