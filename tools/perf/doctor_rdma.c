/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA devices and their ports, from /sys/class/infiniband alone: it needs no library. */
#include "tools/perf/doctor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IB "/sys/class/infiniband/"

/*
 * What RoCE v2 needs of an Ethernet frame's payload besides its own: GRH, UDP, BTH, the longest
 * extended headers and the ICRC, as the kernel counts them.
 */
#define ROCE_HEADERS 96
#define ROCE_MTU_MAX 4096

/* Which provider of rdma-core serves the kernel's driver. */
static const struct {
	const char *driver, *provider;
} providers[] = {
	{"mlx5_core", "mlx5"},
	{"mlx4_core", "mlx4"},
	{"bnxt_en", "bnxt_re"},
	{"efa", "efa"},
	{"ice", "irdma"},
	{"i40e", "irdma"},
	{"irdma", "irdma"},
	{"cxgb4", "cxgb4"},
	{"hns3", "hns"},
	{"qede", "qedr"},
	{"erdma", "erdma"},
	{"mana", "mana"},
	{"vmw_pvrdma", "vmw_pvrdma"},
};

/* Numbers and words stand together in these files: "4: ACTIVE". */
static const char *word(const char *text)
{
	const char *colon = strchr(text, ':');

	return colon && colon[1] == ' ' ? colon + 2 : text;
}

static void provider_of(const struct doctor *d, const char *dev, char to[64])
{
	char driver[64];

	to[0] = '\0';
	doctor_link(d, driver, sizeof(driver), IB "%s/device/driver", dev);
	for (size_t i = 0; i < sizeof(providers) / sizeof(*providers); i++)
		if (!strcmp(driver, providers[i].driver))
			snprintf(to, 64, "%s", providers[i].provider);
	/* a software device has a netdev for a parent and nothing else */
	if (!to[0] && !driver[0] && doctor_there(d, IB "%s/parent", dev))
		snprintf(to, 64, "rxe");
}

/* The netdev behind a port; "" for InfiniBand without IPoIB and the like. */
static void netdev_of(const struct doctor *d, const char *dev, const char *port, char to[64])
{
	struct doctor_names nets;

	if (doctor_read(d, to, 64, IB "%s/ports/%s/gid_attrs/ndevs/0", dev, port) > 0)
		return;
	if (doctor_read(d, to, 64, IB "%s/parent", dev) > 0)
		return;
	doctor_list(d, &nets, IB "%s/device/net", dev);
	snprintf(to, 64, "%s", nets.n ? nets.name[0] : "");
}

void doctor_rdma_of(const struct doctor *d, const char *netdev, char to[64])
{
	struct doctor_names devs;
	char of_one[64];

	to[0] = '\0';
	doctor_list(d, &devs, IB);
	for (size_t i = 0; i < devs.n && !to[0]; i++) {
		netdev_of(d, devs.name[i], "1", of_one);
		if (of_one[0] && !strcmp(of_one, netdev))
			snprintf(to, 64, "%s", devs.name[i]);
	}
}

/* The node that programs open; "" when the kernel has made none. */
static void verbs_node(const struct doctor *d, const char *dev, char to[64])
{
	struct doctor_names nodes;
	char ibdev[64];

	doctor_list(d, &nodes, "/sys/class/infiniband_verbs");
	for (size_t i = 0; i < nodes.n; i++) {
		doctor_read(d, ibdev, sizeof(ibdev), "/sys/class/infiniband_verbs/%s/ibdev",
			    nodes.name[i]);
		if (!strcmp(ibdev, dev)) {
			snprintf(to, 64, "%s", nodes.name[i]);
			return;
		}
	}
	to[0] = '\0';
}

static bool can_open(const struct doctor *d, const char *node)
{
	char path[4096];

	snprintf(path, sizeof(path), "%.3000s/dev/infiniband/%.64s", d->root, node);
	return !d->live->can_open(path);
}

static void check_access(struct doctor *d, const char *dev)
{
	char node[64], provider[64], check[80];

	snprintf(check, sizeof(check), "%s access", dev);
	verbs_node(d, dev, node);
	provider_of(d, dev, provider);
	if (!node[0] || !doctor_there(d, "/sys/class/misc/rdma_cm")) {
		doctor_say(d, DOCTOR_COSTS, check, "the kernel shows it to no program");
		doctor_cost(d, "verbs:// cannot use it");
		doctor_mend(d, "modprobe -a ib_uverbs rdma_ucm");
	} else if (!can_open(d, node) || !can_open(d, "rdma_cm")) {
		doctor_say(d, DOCTOR_COSTS, check, "/dev/infiniband/%s and rdma_cm do not open",
			   node);
		doctor_cost(d, "verbs:// cannot use it");
		doctor_mend(d, "chmod a+rw /dev/infiniband/*, or give the container "
			       "--device /dev/infiniband");
	} else if (provider[0] && !doctor_there(d, "/etc/libibverbs.d/%s.driver", provider)) {
		doctor_say(d, DOCTOR_COSTS, check, "rdma-core's provider %s is not installed",
			   provider);
		doctor_cost(d, "verbs:// cannot use it");
		doctor_mend(d, "apt-get install ibverbs-providers");
	} else {
		doctor_say(d, DOCTOR_OK, check, "%s opens%s%s", node,
			   provider[0] ? ", provider " : "", provider);
	}
}

/* A card in a slot that is slower than it is. */
static void check_slot(struct doctor *d, const char *dev)
{
	char speed[64], most[64], check[80];
	long long width, widest;

	if (doctor_read(d, speed, sizeof(speed), IB "%s/device/current_link_speed", dev) <= 0 ||
	    doctor_read(d, most, sizeof(most), IB "%s/device/max_link_speed", dev) <= 0 ||
	    !doctor_number(d, &width, IB "%s/device/current_link_width", dev) ||
	    !doctor_number(d, &widest, IB "%s/device/max_link_width", dev) || !width)
		return;
	snprintf(check, sizeof(check), "%s slot", dev);
	if (strtod(speed, NULL) * (double)width >= strtod(most, NULL) * (double)widest) {
		doctor_say(d, DOCTOR_OK, check, "PCIe %s x%lld", speed, width);
		return;
	}
	doctor_say(d, DOCTOR_COSTS, check, "PCIe %s x%lld, the card could %s x%lld", speed, width,
		   most, widest);
	doctor_cost(d, "%.0f %% of its bandwidth",
		    100 - 100 * strtod(speed, NULL) * (double)width /
				    (strtod(most, NULL) * (double)widest));
	doctor_mend(d, "another slot; or the firmware's setting of this one");
}

static void check_state(struct doctor *d, const char *check, const char *dev, const char *port,
			const char *netdev)
{
	char state[64], phys[64], rate[64], layer[64];

	doctor_read(d, state, sizeof(state), IB "%s/ports/%s/state", dev, port);
	doctor_read(d, phys, sizeof(phys), IB "%s/ports/%s/phys_state", dev, port);
	doctor_read(d, rate, sizeof(rate), IB "%s/ports/%s/rate", dev, port);
	doctor_read(d, layer, sizeof(layer), IB "%s/ports/%s/link_layer", dev, port);
	if (!strcmp(word(state), "ACTIVE")) {
		doctor_say(d, DOCTOR_OK, check, "ACTIVE, %s, %s%s%s", layer, rate,
			   netdev[0] ? ", netdev " : "", netdev);
		return;
	}
	doctor_say(d, DOCTOR_COSTS, check, "%s, physically %s", word(state), word(phys));
	doctor_cost(d, "nothing goes through this port");
	if (strcmp(layer, "InfiniBand") && netdev[0])
		doctor_mend(d, "ip link set %s up; and look at the cable", netdev);
	else if (!strcmp(word(phys), "LinkUp"))
		doctor_mend(d, "start a subnet manager on the network: systemctl start opensm");
	else
		doctor_mend(d, "look at the cable and at the switch's port");
}

static int roce_mtu(long long netdev_mtu)
{
	int mtu = ROCE_MTU_MAX;

	while (mtu > 256 && netdev_mtu - ROCE_HEADERS < mtu)
		mtu /= 2;
	return mtu;
}

static void check_mtu(struct doctor *d, const char *check, const char *netdev)
{
	long long mtu;

	if (!netdev[0] || !doctor_number(d, &mtu, "/sys/class/net/%s/mtu", netdev)) {
		doctor_say(d, DOCTOR_UNKNOWN, check, "no netdev tells");
		doctor_mend(d, "ibv_devinfo | grep mtu");
		return;
	}
	if (roce_mtu(mtu) == ROCE_MTU_MAX) {
		doctor_say(d, DOCTOR_OK, check, "%d, the most, as %s has %lld", ROCE_MTU_MAX,
			   netdev, mtu);
		return;
	}
	doctor_say(d, DOCTOR_COSTS, check, "%d of %d, as %s has %lld", roce_mtu(mtu), ROCE_MTU_MAX,
		   netdev, mtu);
	doctor_cost(d, "%d packets in place of one", ROCE_MTU_MAX / roce_mtu(mtu));
	doctor_mend(d, "ip link set %s mtu 9000, and the same on the switch and on the peers",
		    netdev);
}

struct gids {
	int v1, local, routed; /* the last two are of the second version */
	char first[64];	       /* routed */
};

/* As people know it: 10.0.0.1 in place of ...:ffff:0a00:0001. */
static void name_gid(const char *gid, char to[64])
{
	static const char mapped[] = "0000:0000:0000:0000:0000:ffff:";
	unsigned int a, b, c, d;

	if (!strncmp(gid, mapped, sizeof(mapped) - 1) &&
	    sscanf(gid + sizeof(mapped) - 1, "%2x%2x:%2x%2x", &a, &b, &c, &d) == 4)
		snprintf(to, 64, "%u.%u.%u.%u", a, b, c, d);
	else
		snprintf(to, 64, "%s", gid);
}

static void count_gid(struct gids *g, const char *gid, const char *type)
{
	if (strcmp(type, "RoCE v2")) {
		g->v1++;
	} else if (!strncmp(gid, "fe80:", 5)) {
		g->local++;
	} else {
		g->routed++;
		name_gid(gid, g->first);
	}
}

/* The table has a thousand places, mostly empty: one that can be routed ends the search. */
static void count_gids(const struct doctor *d, const char *dev, const char *port, struct gids *g)
{
	char gid[64], type[32];

	*g = (struct gids){0};
	for (unsigned int i = 0; !g->routed; i++) {
		if (doctor_read(d, gid, sizeof(gid), IB "%s/ports/%s/gids/%u", dev, port, i) ==
		    -ENOENT)
			return;
		if (!gid[0] || !strcmp(gid, "0000:0000:0000:0000:0000:0000:0000:0000"))
			continue;
		doctor_read(d, type, sizeof(type), IB "%s/ports/%s/gid_attrs/types/%u", dev, port,
			    i);
		count_gid(g, gid, type);
	}
}

static void check_gids(struct doctor *d, const char *check, const char *dev, const char *port,
		       const char *netdev)
{
	struct gids g;

	count_gids(d, dev, port, &g);
	if (g.routed) {
		doctor_say(d, DOCTOR_OK, check, "RoCE v2, %s", g.first);
	} else if (g.local) {
		doctor_say(d, DOCTOR_COSTS, check, "RoCE v2, link-local only");
		doctor_cost(d, "peers on the same wire alone, as verbs://[fe80::...%%%s]", netdev);
		doctor_mend(d, "ip addr add ADDRESS/24 dev %s", netdev);
	} else {
		doctor_say(d, DOCTOR_COSTS, check, g.v1 ? "RoCE v1 only" : "none");
		doctor_cost(d, g.v1 ? "no router passes it on" : "nobody can be reached");
		doctor_mend(d, "ip addr add ADDRESS/24 dev %s", netdev[0] ? netdev : "NETDEV");
	}
}

static void check_port(struct doctor *d, const char *dev, const char *port)
{
	char check[160], netdev[64], layer[64], node[64];

	netdev_of(d, dev, port, netdev);
	snprintf(check, sizeof(check), "%s/%s port", dev, port);
	check_state(d, check, dev, port, netdev);
	doctor_read(d, layer, sizeof(layer), IB "%s/ports/%s/link_layer", dev, port);
	doctor_read(d, node, sizeof(node), IB "%s/node_type", dev);
	/* iWARP has TCP's segments and needs no GID; EFA has neither of both */
	if (!strcmp(word(node), "RNIC") ||
	    (strcmp(layer, "Ethernet") && strcmp(layer, "InfiniBand")))
		return;
	snprintf(check, sizeof(check), "%s/%s MTU", dev, port);
	check_mtu(d, check, strcmp(layer, "Ethernet") ? "" : netdev);
	if (strcmp(layer, "Ethernet"))
		return;
	snprintf(check, sizeof(check), "%s/%s GID", dev, port);
	check_gids(d, check, dev, port, netdev);
}

static void check_device(struct doctor *d, const char *dev)
{
	struct doctor_names ports;
	char fw[64], type[64], check[80];

	doctor_read(d, fw, sizeof(fw), IB "%s/fw_ver", dev);
	doctor_read(d, type, sizeof(type), IB "%s/node_type", dev);
	snprintf(check, sizeof(check), "%s", dev);
	doctor_say(d, DOCTOR_OK, check, "%s%s%s%s", word(type), fw[0] ? ", firmware " : "", fw,
		   doctor_there(d, IB "%s/device", dev) ? "" : ", in software");
	check_access(d, dev);
	check_slot(d, dev);
	doctor_list(d, &ports, IB "%s/ports", dev);
	for (size_t i = 0; i < ports.n; i++)
		check_port(d, dev, ports.name[i]);
}

void doctor_rdma(struct doctor *d)
{
	struct doctor_names devs;

	doctor_list(d, &devs, IB);
	if (!devs.n) {
		doctor_say(d, DOCTOR_COSTS, "RDMA", "no device");
		doctor_cost(d, "no verbs://; with tcp:// the kernel copies every byte");
		doctor_mend(d,
			    "an RDMA NIC; to try one in software: modprobe rdma_rxe && rdma link "
			    "add rxe0 type rxe netdev NETDEV");
	}
	for (size_t i = 0; i < devs.n; i++)
		check_device(d, devs.name[i]);
}
