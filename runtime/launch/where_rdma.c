/* SPDX-License-Identifier: Apache-2.0 */
/* where_rdma.c - an address by which RDMA devices of this host are reached, from sysfs. */
#include "runtime/launch/where.h"

#include "rdma/fail.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static bool join(char path[PATH_MAX], const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(path, PATH_MAX, fmt, ap);
	va_end(ap);
	return n < PATH_MAX;
}

/* One line of a small file, without its end. */
static bool read_line(const char *path, char *line, int len)
{
	FILE *f = fopen(path, "re");
	bool got = f && fgets(line, len, f);

	if (f)
		fclose(f);
	if (got)
		line[strcspn(line, "\n")] = 0;
	return got;
}

static bool listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; *list; p += strcspn(p, ","), p += *p == ',') {
		if (!strncmp(p, name, n) && (!p[n] || p[n] == ','))
			return true;
		if (!*p)
			return false;
	}
	return true;
}

/* The most useful address of @netdev: IPv4, then a global IPv6, then a link-local one. */
static int rank_of(const struct sockaddr *sa)
{
	const struct sockaddr_in6 *six = (const void *)sa;

	if (sa->sa_family == AF_INET)
		return 3;
	if (sa->sa_family != AF_INET6)
		return 0;
	return IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) ? 1 : 2;
}

static void print_address(const struct sockaddr *sa, const char *netdev, char host[64])
{
	char text[INET6_ADDRSTRLEN];
	int rank = rank_of(sa);

	if (rank == 3)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, text,
			  sizeof(text));
	else
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr,
			  text, sizeof(text));
	snprintf(host, 64, rank == 3 ? "%s" : rank == 2 ? "[%s]" : "[%s%%%s]", text, netdev);
}

static bool address_of(const char *netdev, char host[64])
{
	struct ifaddrs *all, *a;
	int best = 0;

	if (getifaddrs(&all))
		return false;
	for (a = all; a; a = a->ifa_next) {
		if (!a->ifa_addr || strcmp(a->ifa_name, netdev) || rank_of(a->ifa_addr) <= best)
			continue;
		best = rank_of(a->ifa_addr);
		print_address(a->ifa_addr, netdev, host);
	}
	freeifaddrs(all);
	return best > 0;
}

/* Try every entry of @dir: its content, or (@names) its name, is a network interface. */
static bool address_in(const char *dir, bool names, char host[64])
{
	char path[PATH_MAX], netdev[IFNAMSIZ + 1];
	struct dirent **entry;
	bool found = false;
	int n = scandir(dir, &entry, NULL, versionsort);

	for (int i = 0; i < n; i++) {
		if (!found && entry[i]->d_name[0] != '.' &&
		    join(path, "%s/%s", dir, entry[i]->d_name)) {
			if (names)
				found = address_of(entry[i]->d_name, host);
			else if (read_line(path, netdev, sizeof(netdev)))
				found = address_of(netdev, host);
		}
		free(entry[i]);
	}
	if (n >= 0)
		free(entry);
	return found;
}

static bool address_of_port(const char *device, const char *port, char host[64])
{
	char path[PATH_MAX], state[32];

	if (!join(path, "%s/ports/%s/state", device, port) ||
	    !read_line(path, state, sizeof(state)) || !strstr(state, "ACTIVE"))
		return false;
	/* over Ethernet a port knows its interfaces; over InfiniBand they stand on the device */
	if (join(path, "%s/ports/%s/gid_attrs/ndevs", device, port) &&
	    address_in(path, false, host))
		return true;
	return join(path, "%s/device/net", device) && address_in(path, true, host);
}

static bool address_of_device(const char *device, char host[64])
{
	char path[PATH_MAX];
	struct dirent **port;
	bool found = false;
	int n;

	if (!join(path, "%s/ports", device))
		return false;
	n = scandir(path, &port, NULL, versionsort);
	for (int i = 0; i < n; i++) {
		found = found || (port[i]->d_name[0] != '.' &&
				  address_of_port(device, port[i]->d_name, host));
		free(port[i]);
	}
	if (n >= 0)
		free(port);
	return found;
}

int pst_where_rdma(const char *sysfs, const char *only, char host[64], struct pst_error *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	struct dirent **device;
	bool found = false;
	int n = -1;

	if (join(dir, "%s/class/infiniband", sysfs))
		n = scandir(dir, &device, NULL, versionsort);
	for (int i = 0; i < n; i++) {
		const char *name = device[i]->d_name;

		if (!found && name[0] != '.' && listed(only, name) &&
		    join(path, "%s/%s", dir, name))
			found = address_of_device(path, host);
		free(device[i]);
	}
	if (n >= 0)
		free(device);
	if (found)
		return 0;
	return pst_fail(err, -ENODEV,
			"verbs: no RDMA device%s%s here is active and has an address; look at "
			"`rdma link` and `ip address`, or say where to listen (--listen-host)",
			*only ? " of " : "", only);
}
