/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is the program of a shm peer that keeps to nothing: what it sends on
 * the socket, writes into the rings and hangs up on, and what the victim does
 * meanwhile. The victim must hand out only whole messages and end a link once.
 */
#include "rdma/shm/wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGION 8192

struct input {
	const uint8_t *at;
	size_t left;
};

struct victim {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct pst_region *region;
	struct pst_link *link;
	unsigned char *memory;
	bool down;
};

struct peer {
	int sock, memfd;
	struct shm_area *area;
	uint64_t tail;
};

static struct victim victim;
static char url[64];

static void take(struct input *in, void *out, size_t n)
{
	size_t have = n < in->left ? n : in->left;

	memset(out, 0, n);
	memcpy(out, in->at, have);
	in->at += have;
	in->left -= have;
}

static uint8_t take_byte(struct input *in)
{
	uint8_t b;

	take(in, &b, 1);
	return b;
}

static void must(bool yes)
{
	if (!yes)
		abort();
}

static int make_memfd(size_t size, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	must(fd >= 0 && !ftruncate(fd, (off_t)size) && !fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

static void open_victim(void)
{
	struct pst_region_attr attr = {
		.size = sizeof(attr), .len = REGION, .access = PST_ACCESS_WRITE};
	struct pst_listener *listener;

	if (victim.fab)
		return;
	attr.fd = make_memfd(REGION, F_SEAL_GROW);
	attr.addr = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, attr.fd, 0);
	must(attr.addr != MAP_FAILED);
	victim.memory = attr.addr;
	snprintf(url, sizeof(url), "shm://fuzz-%d", (int)getpid());
	must(!pst_fabric_open(url, &victim.fab, NULL));
	must(!pst_cq_create(victim.fab, &victim.cq, NULL));
	must(!pst_region_register(victim.fab, &attr, &victim.region, NULL));
	must(!pst_listen(victim.cq, url, &listener, NULL));
}

static void handle(const struct pst_wc *wc)
{
	uint64_t sum = 0;

	if (wc->kind == PST_WC_CONNECTED) {
		must(!victim.link);
		victim.link = wc->link;
		return;
	}
	must(wc->link == victim.link && !victim.down);
	if (wc->kind == PST_WC_MESSAGE) {
		must(wc->len <= PST_MSG_MAX);
		for (uint32_t i = 0; i < wc->len; i++)
			sum += ((const uint8_t *)wc->msg)[i];
		__asm__ volatile("" ::"r"(sum));
	} else if (wc->kind == PST_WC_DOWN) {
		must(wc->status < 0);
		victim.down = true;
	} else {
		must(wc->kind == PST_WC_IMM || wc->kind == PST_WC_DONE);
	}
}

static void look(void)
{
	struct pst_wc wc[7];
	int n = pst_cq_wait(victim.cq, wc, 7, 0);

	for (int i = 0; i < n; i++)
		handle(&wc[i]);
}

static void open_peer(struct peer *p)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int n = snprintf(sun.sun_path + 1, sizeof(sun.sun_path) - 1, "penstock/%s", url + 6);

	p->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	p->memfd = make_memfd(sizeof(*p->area), F_SEAL_SHRINK);
	p->area = mmap(NULL, sizeof(*p->area), PROT_READ | PROT_WRITE, MAP_SHARED, p->memfd, 0);
	p->tail = 0;
	must(p->area != MAP_FAILED);
	must(!connect(p->sock, (struct sockaddr *)&sun,
		      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)));
}

static void send_with(struct peer *p, const void *data, size_t len, const int *fd, int nfds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c = (struct cmsghdr *)control;

	if (nfds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fd, (size_t)nfds * sizeof(int));
	}
	sendmsg(p->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int some_fd(const struct peer *p, uint8_t kind)
{
	switch (kind % 6) {
	case 0:
		return make_memfd(REGION, F_SEAL_SHRINK);
	case 1:
		return make_memfd(REGION, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
	case 2:
		return make_memfd(REGION, F_SEAL_GROW);
	case 3:
		return dup(p->memfd);
	case 4:
		return eventfd(0, EFD_CLOEXEC);
	default:
		return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	}
}

/* Raw bytes, with up to three fds of some kind. */
static void send_bytes(struct peer *p, struct input *in)
{
	uint8_t buf[320], what = take_byte(in), kind = take_byte(in);
	size_t len = take_byte(in);
	int fd[3], nfds = what % 4;

	take(in, buf, len);
	for (int i = 0; i < nfds; i++)
		fd[i] = some_fd(p, kind + (uint8_t)i);
	send_with(p, buf, len, fd, nfds);
	for (int i = 0; i < nfds; i++)
		close(fd[i]);
}

static void send_hello(struct peer *p, struct input *in)
{
	struct shm_hello h = {.magic = SHM_MAGIC,
			      .abi = SHM_ABI,
			      .slots = SHM_RING_SLOTS,
			      .slot_size = sizeof(struct shm_slot),
			      .area_size = sizeof(struct shm_area)};
	uint8_t at = take_byte(in);

	/* good seven times of eight, so that most inputs get past it */
	if (at % 8 == 7)
		((uint8_t *)&h)[at / 8] ^= take_byte(in);
	send_with(p, &h, sizeof(h), &p->memfd, 1);
}

static void send_grant(struct peer *p, struct input *in)
{
	struct shm_packet g = {.type = SHM_GRANT, .len = REGION};
	uint8_t flaw = take_byte(in);
	int fd = some_fd(p, flaw / 8);

	g.access = take_byte(in) & 3;
	g.key.k[0] = take_byte(in);
	if (flaw % 8 == 1)
		take(in, &g.len, sizeof(g.len));
	send_with(p, &g, sizeof(g), &fd, fd >= 0);
	close(fd);
}

static void put_slot(struct peer *p, struct input *in)
{
	struct shm_slot *slot = &p->area->ring[0].slot[p->tail % SHM_RING_SLOTS];
	uint16_t len;
	uint8_t flaw = take_byte(in);

	take(in, &len, sizeof(len));
	slot->desc = (uint64_t)(flaw & 3) << 16 | len;
	slot->seq = ++p->tail + (flaw > 250 ? flaw : 0);
}

static void poke_rings(struct peer *p, struct input *in)
{
	uint32_t at;
	uint64_t value;

	take(in, &at, sizeof(at));
	take(in, &value, sizeof(value));
	/* small offsets are the control words of one ring or the other */
	at = at & 1 ? at / 8 : at / 8 % 64 + at % 4 / 2 * sizeof(struct shm_ring) / 8;
	((_Atomic uint64_t *)p->area)[at % (sizeof(*p->area) / 8)] = value;
}

static void post(struct input *in)
{
	struct pst_wr wr[4];
	int n = take_byte(in) % 4 + 1;

	for (int i = 0; i < n; i++) {
		wr[i] = (struct pst_wr){.id = (uint64_t)i,
					.op = take_byte(in) % 4,
					.flags = take_byte(in) & 3,
					.local = victim.region,
					.local_addr = victim.memory};
		wr[i].key.k[0] = take_byte(in);
		wr[i].remote_off = take_byte(in) == 0xff ? UINT64_MAX : take_byte(in) * 64;
		wr[i].len = take_byte(in) * 40;
	}
	pst_link_post(victim.link, wr, n);
}

static void map(struct input *in)
{
	struct pst_key key = {.k = {take_byte(in), 0}};
	uint32_t access = take_byte(in) & 3;
	volatile unsigned char *at;
	uint64_t len;
	void *addr;

	if (pst_link_map(victim.link, key, access, &addr, &len))
		return;
	at = addr;
	(void)at[0];
	(void)at[len - 1];
	if (access & PST_ACCESS_WRITE)
		at[len - 1] = 1;
}

static void grant_back(struct input *in)
{
	struct pst_key key;

	pst_link_grant(victim.link, victim.region, take_byte(in) & 7, &key);
}

static void step(struct peer *p, struct input *in)
{
	switch (take_byte(in) % 10) {
	case 0:
		send_bytes(p, in);
		break;
	case 1:
		send_hello(p, in);
		break;
	case 2:
		send_grant(p, in);
		break;
	case 3:
		put_slot(p, in);
		break;
	case 4:
		poke_rings(p, in);
		break;
	case 5:
		if (victim.link)
			post(in);
		break;
	case 6:
		if (victim.link)
			map(in);
		break;
	case 7:
		if (victim.link)
			grant_back(in);
		break;
	case 8:
		shutdown(p->sock, take_byte(in) % 3);
		break;
	default:
		look();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.at = data, .left = size};
	struct peer peer;

	open_victim();
	open_peer(&peer);
	look();
	while (in.left)
		step(&peer, &in);
	look();
	munmap(peer.area, sizeof(*peer.area));
	close(peer.memfd);
	close(peer.sock);
	/* the hang-up is seen, and after it there is an end of completions */
	for (int i = 0; i < 1000 && victim.link && !victim.down; i++)
		look();
	must(!victim.link || victim.down);
	look();
	pst_link_close(victim.link);
	victim.link = NULL;
	victim.down = false;
	return 0;
}
