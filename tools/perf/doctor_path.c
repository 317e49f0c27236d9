/* SPDX-License-Identifier: Apache-2.0 */
/* The way to one host: its address, the route, what packets it takes, and whether links open. */
#include "rdma/fabric.h"
#include "rdma/url.h"
#include "tools/perf/doctor.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROBE_PORT    33434 /* of traceroute: closed nearly everywhere */
#define PROBE_WAIT_MS 300
#define UDP_MOST      65507
#define SERVER	      "start a server there: penstock-perf write_bw, or penstock-ps"

struct path {
	const char *host;
	struct sockaddr_storage addr;
	socklen_t len;
	char text[64];	 /* of the address */
	char netdev[64]; /* that the way goes out by */
	int mtu;
	double rtt; /* seconds; 0: not known */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void name_line(char to[64], const struct path *p, const char *what)
{
	snprintf(to, 64, "%.45s %s", p->host, what);
}

static bool resolve(struct doctor *d, struct path *p)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char check[64];
	double begin = now();
	int rc = getaddrinfo(p->host, NULL, &hints, &list);

	name_line(check, p, "address");
	if (rc) {
		doctor_say(d, DOCTOR_STOPS, check, "%s",
			   rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
		doctor_cost(d, "nothing can be sent there");
		doctor_mend(d,
			    "a line for it in /etc/hosts, or a DNS that knows it: getent ahosts %s",
			    p->host);
		return false;
	}
	memcpy(&p->addr, list->ai_addr, list->ai_addrlen);
	p->len = list->ai_addrlen;
	freeaddrinfo(list);
	getnameinfo((struct sockaddr *)&p->addr, p->len, p->text, sizeof(p->text), NULL, 0,
		    NI_NUMERICHOST);
	doctor_say(d, DOCTOR_OK, check, "%s, found in %.1f ms", p->text, 1e3 * (now() - begin));
	return true;
}

static void set_port(struct path *p, uint16_t port)
{
	if (p->addr.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&p->addr)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&p->addr)->sin_port = htons(port);
}

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
	if (!a || a->sa_family != b->ss_family)
		return false;
	if (a->sa_family == AF_INET)
		return !memcmp(&((const struct sockaddr_in *)a)->sin_addr,
			       &((const struct sockaddr_in *)b)->sin_addr, sizeof(struct in_addr));
	return a->sa_family == AF_INET6 &&
	       !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
		       &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr));
}

/* The netdev that has the address @from. */
static void netdev_with(const struct sockaddr_storage *from, char to[64])
{
	struct ifaddrs *list = NULL;

	to[0] = '\0';
	if (getifaddrs(&list))
		return;
	for (const struct ifaddrs *i = list; i && !to[0]; i = i->ifa_next)
		if (same_address(i->ifa_addr, from))
			snprintf(to, 64, "%.63s", i->ifa_name);
	freeifaddrs(list);
}

/* A UDP socket that is connected to the host and lets no packet be cut; or -errno. */
static int probe_socket(struct path *p)
{
	bool six = p->addr.ss_family == AF_INET6;
	int whole = six ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE, rc;
	int sock = socket(p->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (sock < 0)
		return -errno;
	set_port(p, PROBE_PORT);
	if (setsockopt(sock, six ? IPPROTO_IPV6 : IPPROTO_IP,
		       six ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, &whole, sizeof(whole)) ||
	    connect(sock, (struct sockaddr *)&p->addr, p->len)) {
		rc = -errno;
		close(sock);
		return rc;
	}
	return sock;
}

static bool route(struct doctor *d, struct path *p)
{
	bool six = p->addr.ss_family == AF_INET6;
	struct sockaddr_storage from = {0};
	char check[64], text[64] = "", dev[64];
	socklen_t len = sizeof(from), mtu_len = sizeof(p->mtu);
	int sock = probe_socket(p);

	name_line(check, p, "route");
	if (sock < 0) {
		doctor_say(d, DOCTOR_STOPS, check, "%s", strerror(-sock));
		doctor_cost(d, "nothing can be sent there");
		doctor_mend(d, "a route there: ip route get %s", p->text);
		return false;
	}
	getsockname(sock, (struct sockaddr *)&from, &len);
	if (getsockopt(sock, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_MTU : IP_MTU, &p->mtu,
		       &mtu_len))
		p->mtu = 0;
	close(sock);
	getnameinfo((struct sockaddr *)&from, len, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
	netdev_with(&from, p->netdev);
	doctor_rdma_of(d, p->netdev, dev);
	doctor_say(d, DOCTOR_OK, check, "from %s by %s%s%s%s, MTU %d", text,
		   p->netdev[0] ? p->netdev : "some netdev", dev[0] ? " (" : "", dev,
		   dev[0] ? ")" : "", p->mtu);
	return true;
}

/* 1: a datagram of @size came there, as the closed port said; 0: it did not; or -errno. */
static int probe(int sock, int size)
{
	static char bytes[UDP_MOST];
	struct pollfd ready = {.fd = sock, .events = POLLIN};

	if (send(sock, bytes, (size_t)size, 0) < 0)
		return errno == ECONNREFUSED ? 1 : errno == EMSGSIZE ? 0 : -errno;
	if (poll(&ready, 1, PROBE_WAIT_MS) <= 0)
		return 0;
	if (recv(sock, bytes, 1, 0) >= 0 || errno == ECONNREFUSED)
		return 1;
	return errno == EMSGSIZE ? 0 : -errno;
}

/* Hosts and wires that disagree about the MTU lose long packets without a word. */
static void packets(struct doctor *d, struct path *p)
{
	const int headers = p->addr.ss_family == AF_INET6 ? 48 : 28;
	const int sizes[] = {p->mtu, 9000, 4200, 1500, 1280, 576};
	char check[64];
	int sock = probe_socket(p), most = 0;

	name_line(check, p, "packets");
	if (sock < 0 || probe(sock, 0) != 1) {
		doctor_say(d, DOCTOR_UNKNOWN, check,
			   "no answer to probes; a firewall may drop them");
		doctor_mend(d, "ping -M do -s %d %s", p->mtu - 28, p->text);
		goto out;
	}
	for (size_t i = 0; !most && i < sizeof(sizes) / sizeof(*sizes); i++) {
		int size = sizes[i] - headers < UDP_MOST ? sizes[i] - headers : UDP_MOST;

		/* twice: one may be lost by chance */
		if (sizes[i] <= p->mtu && (probe(sock, size) == 1 || probe(sock, size) == 1))
			most = sizes[i];
	}
	if (most == p->mtu) {
		doctor_say(d, DOCTOR_OK, check, "%d bytes arrive whole", most);
	} else {
		doctor_say(d, DOCTOR_COSTS, check, "%d bytes arrive, %d do not", most, p->mtu);
		doctor_cost(d, "transfers hang until TCP notices; over verbs:// for good");
		doctor_mend(d,
			    "the same MTU on both hosts and the switches between, or: ip link "
			    "set %s mtu %d",
			    p->netdev, most);
	}
out:
	if (sock >= 0)
		close(sock);
}

/* How long a connection takes; -1: nobody listens, or so -errno. */
static double tcp_time(struct path *p, uint16_t port, unsigned int timeout_ms)
{
	struct pollfd ready = {.events = POLLOUT};
	double begin = now(), end = -1;
	int error = 0;
	socklen_t len = sizeof(error);

	set_port(p, port);
	ready.fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ready.fd < 0)
		return -1;
	if ((!connect(ready.fd, (struct sockaddr *)&p->addr, p->len) || errno == EINPROGRESS) &&
	    poll(&ready, 1, (int)timeout_ms) == 1 &&
	    !getsockopt(ready.fd, SOL_SOCKET, SO_ERROR, &error, &len) && !error)
		end = now() - begin;
	close(ready.fd);
	return end;
}

/* What one connection's buffer carries over this round trip, against what the netdev does. */
static void window(struct doctor *d, const struct path *p)
{
	long long mbits = 0, least, normal, most;
	char text[128], check[64];
	double carries;

	doctor_read(d, text, sizeof(text), "/proc/sys/net/ipv4/tcp_rmem");
	doctor_number(d, &mbits, "/sys/class/net/%s/speed", p->netdev);
	if (p->rtt <= 0 || mbits <= 0 ||
	    sscanf(text, "%lld %lld %lld", &least, &normal, &most) != 3)
		return;
	/* half of it is the kernel's own */
	carries = (double)most / 2 * 8e-6 / p->rtt;
	name_line(check, p, "window");
	if (carries >= (double)mbits) {
		doctor_say(d, DOCTOR_OK, check, "fills %lld Mbit/s at this round trip", mbits);
		return;
	}
	doctor_say(d, DOCTOR_COSTS, check, "%.0f Mbit/s of %lld at this round trip", carries,
		   mbits);
	doctor_cost(d, "one tcp:// connection carries no more");
	doctor_mend(d,
		    "sysctl -w net.ipv4.tcp_rmem='%lld %lld %.0f', tcp_wmem too on the peer; or "
		    "conns=N in the URL",
		    least, normal, 2 * (double)mbits * p->rtt * 1e6 / 8 + 65536);
}

/* How long a link on @cq takes to open, of three tries the fastest; 0 or -errno. */
static int open_link(struct pst_cq *cq, const char *url, int timeout_ms, double *seconds,
		     char peer[160], struct pst_error *err)
{
	for (int i = 0; i < 3; i++) {
		struct pst_link *link = NULL;
		double begin = now();
		int rc = pst_connect(cq, url, timeout_ms, &link, err);

		if (rc)
			return rc;
		if (!i || now() - begin < *seconds)
			*seconds = now() - begin;
		snprintf(peer, 160, "%s", pst_link_peer(link));
		pst_link_close(link);
	}
	return 0;
}

/* A link over @url, 0 or -errno; @need: it has to open. */
static int link_to(struct doctor *d, const char *check, const char *url, bool need)
{
	struct pst_fabric *fab = NULL;
	struct pst_cq *cq = NULL;
	struct pst_error err = {0};
	double seconds = 0;
	char peer[160];
	int rc = pst_fabric_open(url, &fab, &err);

	if (!rc)
		rc = pst_cq_create(fab, &cq, &err);
	if (!rc)
		rc = open_link(cq, url, (int)d->timeout_ms, &seconds, peer, &err);
	pst_cq_destroy(cq);
	pst_fabric_close(fab);
	if (!rc) {
		doctor_say(d, DOCTOR_OK, check, "%s, open and proved in %.2f ms", peer,
			   1e3 * seconds);
		return 0;
	}
	doctor_sentence(d, need ? DOCTOR_STOPS : DOCTOR_UNKNOWN, check, err.text);
	if (rc == -ECONNREFUSED && d->nlines && !d->line[d->nlines - 1].mend[0])
		doctor_mend(d, SERVER);
	return rc;
}

/* @url with the key that the command line names. */
static void with_key(const struct doctor *d, char to[PERF_URL_MAX], const char *url)
{
	bool plain = !d->key[0] || !strncmp(url, "shm:", 4) || strstr(url, "?key=") ||
		     strstr(url, "&key=");

	snprintf(to, PERF_URL_MAX, "%s%s%s", url,
		 plain		    ? ""
		 : strchr(url, '?') ? "&key="
				    : "?key=",
		 plain ? "" : d->key);
}

/* A host without a scheme: whichever of the fabrics has a server at one of the usual ports. */
static void any_link(struct doctor *d, struct path *p, const struct pst_url *u, bool port_given)
{
	const uint16_t ports[] = {port_given ? u->port : PERF_PORT, PST_DEFAULT_PORT};
	static const char *const schemes[] = {"tcp", "verbs"};
	bool six = strchr(u->host[0], ':'), open = false;
	char url[PERF_URL_MAX], plain[PERF_URL_MAX], check[64];

	for (size_t s = 0; s < 2; s++) {
		for (size_t i = 0; i < (port_given ? 1 : 2); i++) {
			int rc;

			if (!s && tcp_time(p, ports[i], d->timeout_ms) < 0)
				continue;
			snprintf(plain, sizeof(plain), six ? "%s://[%s]:%u" : "%s://%s:%u",
				 schemes[s], u->host[0], ports[i]);
			with_key(d, url, plain);
			snprintf(check, sizeof(check), "%.63s", plain);
			rc = link_to(d, check, url, false);
			open |= !rc;
			/* where there is no such fabric another port makes no difference */
			if (!rc || rc == -ENODEV || rc == -EPROTONOSUPPORT)
				break;
		}
	}
	if (open)
		return;
	name_line(check, p, "link");
	doctor_say(d, DOCTOR_STOPS, check, "no fabric opens, at port %u%s", ports[0],
		   port_given ? "" : " or 7471");
	doctor_cost(d, "there is nobody to work with");
	doctor_mend(d, SERVER "; and look for a firewall");
}

static void round_trip(struct doctor *d, struct path *p, uint16_t port)
{
	char check[64];

	for (int i = 0; i < 5; i++) {
		double t = tcp_time(p, port, d->timeout_ms);

		if (t < 0)
			return;
		if (!p->rtt || t < p->rtt)
			p->rtt = t;
	}
	name_line(check, p, "round trip");
	doctor_say(d, DOCTOR_OK, check, "%.3f ms, of five TCP connections the fastest",
		   1e3 * p->rtt);
	window(d, p);
}

static bool one_host(struct doctor *d, struct path *p)
{
	if (!resolve(d, p) || !route(d, p))
		return false;
	packets(d, p);
	return true;
}

/* "host", "host:port" or a URL, into @u; whether it named a fabric, and a port. */
static int parse_host(const char *host, struct pst_url *u, bool *scheme, bool *port,
		      struct pst_error *err)
{
	char url[PST_URL_MAX + 8];
	const char *end;

	*scheme = strstr(host, "://");
	/* as verbs:// a list of hosts is fine */
	snprintf(url, sizeof(url), "%s%s", *scheme ? "" : "verbs://", host);
	end = strrchr(url, ']');
	*port = strchr(end ? end : strstr(url, "://") + 3, ':');
	return pst_url_parse(url, u, err);
}

void doctor_path(struct doctor *d)
{
	struct path paths[PST_RAILS_MAX] = {{.host = NULL}};
	const char *key = d->key;
	struct pst_error err = {0};
	char url[PERF_URL_MAX];
	bool scheme, port, good;
	struct pst_url u;

	if (parse_host(d->host, &u, &scheme, &port, &err) || (!u.hosts && !u.name[0])) {
		doctor_say(d, DOCTOR_STOPS, "HOST", "%s", err.code ? err.text : "no host");
		doctor_mend(d, "write HOST, HOST:PORT, tcp://HOST:PORT or verbs://HOST:PORT");
		return;
	}
	if (!strcmp(u.scheme, "shm")) {
		link_to(d, u.name, d->host, true);
		return;
	}
	if (u.set.key[0])
		d->key = u.set.key;
	doctor_key(d);
	good = d->nlines && d->line[d->nlines - 1].state == DOCTOR_OK;
	for (unsigned int i = 0; i < u.hosts; i++) {
		paths[i].host = u.host[i];
		good &= one_host(d, &paths[i]);
	}
	if (good && u.hosts && (!scheme || !strcmp(u.scheme, "tcp")))
		round_trip(d, &paths[0], port || scheme ? u.port : PERF_PORT);
	if (good && !scheme) {
		any_link(d, &paths[0], &u, port);
	} else if (good) {
		with_key(d, url, d->host);
		link_to(d, u.scheme, url, true);
	}
	d->key = key;
}
