/* SPDX-License-Identifier: Apache-2.0 */
/* Where NICs and GPUs sit, and whether they can reach each other without the CPU's memory. */
#include "tools/perf/doctor.h"

#include <stdlib.h>
#include <string.h>

#define PCI "/sys/bus/pci/devices/"

#define VENDOR_NVIDIA 0x10de
#define VENDOR_AMD    0x1002
#define CLASS_DISPLAY 0x03
#define CLASS_BRIDGE  0x0604

/* PCI Express Base Specification, 7.7.8: the extended capability Access Control Services. */
#define EXT_BEGIN     0x100
#define EXT_END	      0x1000
#define EXT_ACS	      0x000d
#define ACS_CONTROL   6
#define ACS_REDIRECTS 0x0c /* of requests, of completions: both go up to the root */

struct place {
	char name[64]; /* "mlx5_0", "GPU 0000:3b:00.0" */
	char pci[64];
	long long node;
};

struct places {
	size_t n;
	struct place at[64];
};

static long long hex(const struct doctor *d, const char *dev, const char *file)
{
	char text[32];

	doctor_read(d, text, sizeof(text), PCI "%s/%s", dev, file);
	return strtoll(text, NULL, 16);
}

static void add(const struct doctor *d, struct places *to, const char *name, const char *pci)
{
	struct place *p = &to->at[to->n];
	struct doctor_names nodes;

	if (to->n == sizeof(to->at) / sizeof(*to->at))
		return;
	*p = (struct place){.node = -1};
	snprintf(p->name, sizeof(p->name), "%.63s", name);
	snprintf(p->pci, sizeof(p->pci), "%s", pci);
	doctor_number(d, &p->node, PCI "%s/numa_node", pci);
	doctor_nodes(d, &nodes);
	if (p->node < 0 && nodes.n < 2)
		p->node = 0;
	to->n++;
}

static void find_gpus(const struct doctor *d, struct places *to)
{
	struct doctor_names devs;
	char name[80];

	to->n = 0;
	doctor_list(d, &devs, PCI);
	for (size_t i = 0; i < devs.n; i++) {
		long long vendor = hex(d, devs.name[i], "vendor");

		if (hex(d, devs.name[i], "class") >> 16 != CLASS_DISPLAY ||
		    (vendor != VENDOR_NVIDIA && vendor != VENDOR_AMD))
			continue;
		snprintf(name, sizeof(name), "GPU %s", devs.name[i]);
		add(d, to, name, devs.name[i]);
	}
}

/* RDMA NICs with a place of their own; software devices have none. */
static void find_nics(const struct doctor *d, struct places *to)
{
	struct doctor_names devs;
	char pci[64];

	to->n = 0;
	doctor_list(d, &devs, "/sys/class/infiniband");
	for (size_t i = 0; i < devs.n; i++) {
		doctor_link(d, pci, sizeof(pci), "/sys/class/infiniband/%s/device", devs.name[i]);
		if (pci[0] && doctor_there(d, PCI "%s", pci))
			add(d, to, devs.name[i], pci);
	}
}

static void say_places(struct doctor *d, const struct places *p)
{
	char check[80];

	for (size_t i = 0; i < p->n; i++) {
		snprintf(check, sizeof(check), "%s node", p->at[i].name);
		if (p->at[i].node >= 0) {
			doctor_say(d, DOCTOR_OK, check, "%lld", p->at[i].node);
			continue;
		}
		doctor_say(d, DOCTOR_COSTS, check, "the firmware does not tell");
		doctor_cost(d, "memory for it may be placed on the far node");
		doctor_mend(d, "echo NODE >" PCI "%s/numa_node", p->at[i].pci);
	}
}

/* Each GPU with the NIC of its node. */
static void say_pairs(struct doctor *d, const struct places *gpus, const struct places *nics)
{
	char check[80];

	for (size_t g = 0; nics->n && g < gpus->n; g++) {
		const struct place *gpu = &gpus->at[g], *near = NULL;

		for (size_t n = 0; n < nics->n && !near; n++)
			if (nics->at[n].node == gpu->node)
				near = &nics->at[n];
		snprintf(check, sizeof(check), "%s NIC", gpu->name);
		if (near) {
			doctor_say(d, DOCTOR_OK, check, "%s, on the same node", near->name);
			continue;
		}
		doctor_say(d, DOCTOR_COSTS, check, "none on node %lld", gpu->node);
		doctor_cost(d, "every byte crosses the link between sockets");
		doctor_mend(d, "a NIC in a slot of node %lld", gpu->node);
	}
}

void doctor_placement(struct doctor *d)
{
	struct places gpus, nics;

	find_nics(d, &nics);
	find_gpus(d, &gpus);
	say_places(d, &nics);
	say_places(d, &gpus);
	say_pairs(d, &gpus, &nics);
}

/* "Linux version 6.1.0": at least @major.@minor? */
static bool kernel_since(const struct doctor *d, int major, int minor)
{
	char text[64];
	int a = 0, b = 0;

	doctor_read(d, text, sizeof(text), "/proc/sys/kernel/osrelease");
	return sscanf(text, "%d.%d", &a, &b) == 2 && (a > major || (a == major && b >= minor));
}

/* How a NIC gets at a GPU's memory: by the vendor's module, or by a dma-buf. */
static void check_way(struct doctor *d)
{
	char version[512];

	doctor_read(d, version, sizeof(version), "/proc/driver/nvidia/version");
	if (doctor_there(d, "/sys/module/nvidia_peermem")) {
		doctor_say(d, DOCTOR_OK, "peer-to-peer", "nvidia_peermem is loaded");
	} else if (strstr(version, "Open Kernel Module") && kernel_since(d, 5, 12)) {
		doctor_say(d, DOCTOR_OK, "peer-to-peer", "dma-buf, by the open kernel module");
	} else if (doctor_there(d, "/sys/module/amdgpu") && kernel_since(d, 5, 12)) {
		doctor_say(d, DOCTOR_OK, "peer-to-peer", "dma-buf, by amdgpu");
	} else if (version[0]) {
		doctor_say(d, DOCTOR_COSTS, "peer-to-peer", "neither nvidia_peermem nor dma-buf");
		doctor_cost(d, "what a GPU sends is copied to host memory first");
		doctor_mend(d, "modprobe nvidia_peermem");
	} else {
		doctor_say(d, DOCTOR_COSTS, "peer-to-peer", "a GPU without its driver");
		doctor_cost(d, "it cannot be used at all");
		doctor_mend(d, "apt-get install nvidia-driver, or modprobe nvidia");
	}
}

/* 1: redirects, 0: does not, -1: its configuration cannot be read that far (root can). */
static int redirects(const struct doctor *d, const char *dev)
{
	static unsigned char config[EXT_END + 1];
	int len = doctor_read(d, (char *)config, sizeof(config), PCI "%s/config", dev);
	unsigned int at = EXT_BEGIN, steps = 0;

	/* doctor_read cuts what looks like white space at the end: zeros do not */
	if (len < EXT_BEGIN + 4)
		return -1;
	while (at >= EXT_BEGIN && at + 8 <= (unsigned int)len && steps++ < 256) {
		unsigned int head = config[at] | config[at + 1] << 8 | config[at + 2] << 16 |
				    (unsigned int)config[at + 3] << 24;

		if ((head & 0xffff) == EXT_ACS)
			return (config[at + ACS_CONTROL] & ACS_REDIRECTS) != 0;
		at = head >> 20;
	}
	return 0;
}

static void check_acs(struct doctor *d)
{
	struct doctor_names devs;
	char first[64] = "";
	size_t bad = 0, blind = 0, bridges = 0;

	doctor_list(d, &devs, PCI);
	for (size_t i = 0; i < devs.n; i++) {
		int rc;

		if (hex(d, devs.name[i], "class") >> 8 != CLASS_BRIDGE)
			continue;
		bridges++;
		rc = redirects(d, devs.name[i]);
		blind += rc < 0;
		if (rc == 1 && !bad++)
			snprintf(first, sizeof(first), "%s", devs.name[i]);
	}
	if (bad) {
		doctor_say(d, DOCTOR_COSTS, "PCIe ACS", "%zu bridges redirect, %s first", bad,
			   first);
		doctor_cost(d, "from NIC to GPU every byte goes up through the CPU");
		doctor_mend(d,
			    "setpci -s %s ECAP_ACS+6.w=0000, and so each; not where guests share "
			    "the machine",
			    first);
	} else if (blind) {
		doctor_say(d, DOCTOR_UNKNOWN, "PCIe ACS", "%zu bridges do not tell", blind);
		doctor_mend(d, "the same as root");
	} else {
		doctor_say(d, DOCTOR_OK, "PCIe ACS", "none of %zu bridges redirects", bridges);
	}
}

static void check_iommu(struct doctor *d, const struct places *p)
{
	char type[32], check[80];

	for (size_t i = 0; i < p->n; i++) {
		doctor_read(d, type, sizeof(type), PCI "%s/iommu_group/type", p->at[i].pci);
		snprintf(check, sizeof(check), "%s IOMMU", p->at[i].name);
		if (strncmp(type, "DMA", 3)) {
			doctor_say(d, DOCTOR_OK, check, "%s", type[0] ? type : "none");
			continue;
		}
		doctor_say(d, DOCTOR_COSTS, check, "%s: addresses are translated", type);
		doctor_cost(d, "slower registration, and peers meet in the root complex");
		doctor_mend(d, "iommu=pt on the kernel's command line");
	}
}

void doctor_peer(struct doctor *d)
{
	struct places gpus, nics;

	find_nics(d, &nics);
	find_gpus(d, &gpus);
	check_iommu(d, &nics);
	if (!gpus.n)
		return;
	check_iommu(d, &gpus);
	check_way(d);
	check_acs(d);
}
