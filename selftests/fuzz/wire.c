/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a peer says to a server and to a worker: messages of any kind and length,
 * immediates, hang-ups. Its first byte may choose something else: the rest is then a
 * server's snapshot region, that a view opens; and whether memory can be mapped or is read and
 * written one-sidedly. Whatever is said, both go on answering.
 */
#include "rdma/crc32c.h"
#include "rdma/fabric.h"
#include "runtime/io/dtype.h"
#include "runtime/moe/worker.h"
#include "runtime/store/rpc.h"
#include "runtime/store/server.h"
#include "runtime/store/view.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGION	   8192
#define TIMEOUT_MS 9000

struct input {
	const uint8_t *at;
	size_t left;
};

/* Memory that is shown to the other side, whole. */
struct shown {
	struct pst_region *region;
	char *at;
};

/* A link to the server or to the worker, with what it was granted. */
struct peer {
	char url[64];
	bool used; /* by this input */
	struct pst_link *link;
	struct pst_key key[2]; /* of memory to read, and of memory to write */
};

/* A server, a worker and who speaks to them, over a fabric of its own. */
struct world {
	const char *settings;
	struct pst_fabric *fabric;
	struct pst_inbox *inbox;
	struct shown shown[2];
	struct peer peer[2];
	struct pst_server *server;
	struct pst_worker *worker;
	uint64_t token, version;
	/* that shows a snapshot region to a view */
	struct pst_cq *own;
	struct shown mine;
	char url[64];
};

static struct world worlds[2] = {{.settings = ""}, {.settings = "?map=0"}};
static struct world *w;
static char missing[] = "/nonexistent/penstock";

static void must(bool yes)
{
	if (!yes)
		abort();
}

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

/* Both sides */

static void *serve(void *server)
{
	must(!pst_server_serve(server, NULL));
	return NULL;
}

static void *work(void *worker)
{
	must(!pst_worker_serve(worker, NULL));
	return NULL;
}

static void make_shown(uint32_t access, struct shown *out)
{
	struct pst_region_attr attr = {.size = sizeof(attr), .len = REGION, .access = access};

	attr.fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(attr.fd >= 0 && !ftruncate(attr.fd, REGION));
	attr.addr = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED, attr.fd, 0);
	must(attr.addr != MAP_FAILED);
	must(!pst_region_register(w->fabric, &attr, &out->region, NULL));
	out->at = attr.addr;
}

/* Two experts of four by two and one tensor more. */
static void write_directory(struct pst_wire_tensor *t)
{
	static const char *const part[] = {"gate_proj", "up_proj", "down_proj"};

	for (uint32_t i = 0; i < 7; i++) {
		t[i] = (struct pst_wire_tensor){
			.dtype = PST_F32, .ndim = 2, .shape = {2, 4}, .init = 2, .order = i};
		if (i % 3 == 2)
			t[i].shape[0] = 4, t[i].shape[1] = 2;
		if (i < 6)
			snprintf(t[i].name, sizeof(t->name),
				 "model.layers.0.mlp.experts.%u.%s.weight", i / 3, part[i % 3]);
		else
			snprintf(t[i].name, sizeof(t->name), "bias");
	}
	t[6].flags = PST_TENSOR_LOAD;
}

static void write_server(void)
{
	struct pst_wire_server *list = (struct pst_wire_server *)(w->shown[0].at + REGION / 2);

	memset(list, 0, sizeof(*list));
	memcpy(list->url, w->peer[0].url, sizeof(w->peer[0].url));
	list->token = w->token;
}

static void connect_peer(struct peer *p)
{
	struct pst_error err = {0};
	int rc = pst_connect(pst_inbox_cq(w->inbox), p->url, TIMEOUT_MS, &p->link, &err);

	if (rc)
		fprintf(stderr, "%s: %s\n", p->url, err.text);
	must(!rc);
	must(!pst_link_grant(p->link, w->shown[0].region, PST_ACCESS_READ, &p->key[0]));
	must(!pst_link_grant(p->link, w->shown[1].region, PST_ACCESS_WRITE, &p->key[1]));
}

static int ask(struct peer *p, struct pst_msg *m, size_t size, uint16_t type, void *answer,
	       size_t len)
{
	m->size = (uint32_t)size;
	m->type = type;
	return pst_rpc(w->inbox, p->link, m, answer, len, TIMEOUT_MS, NULL);
}

static void make_table(void)
{
	struct pst_msg_table_create create = {.tensors = 7, .shards = 1};
	struct pst_msg_table_init init = {.seed = 1};
	struct pst_msg_answer answer;
	int rc;

	write_directory((struct pst_wire_tensor *)w->shown[0].at);
	memcpy(&create.key, &w->peer[0].key[0], sizeof(create.key));
	/* that the link before has ended is heard a little later */
	do
		rc = ask(&w->peer[0], &create.hdr, sizeof(create), PST_MSG_TABLE_CREATE, &answer,
			 sizeof(answer));
	while (rc == -EEXIST || rc == -EBUSY);
	must(!rc);
	w->version = 0;
	must(!ask(&w->peer[0], &init.hdr, sizeof(init), PST_MSG_TABLE_INIT, &answer,
		  sizeof(answer)));
}

static void open_all(void)
{
	struct pst_server_config sc = {.size = sizeof(sc), .threads = 1, .node = -1};
	struct pst_worker_config wc = {.size = sizeof(wc), .threads = 1, .node = -1};
	char url[32];
	pthread_t thread;

	if (w->fabric)
		return;
	snprintf(url, sizeof(url), "shm://%s", w->settings);
	for (int i = 0; i < 2; i++)
		snprintf(w->peer[i].url, sizeof(w->peer[i].url), "shm://wire-%d-%d-%d%s",
			 (int)getpid(), (int)(w - worlds), i, w->settings);
	sc.url = w->peer[0].url;
	wc.url = w->peer[1].url;
	must(!pst_server_create(&sc, &w->server, NULL) &&
	     !pst_worker_create(&wc, &w->worker, NULL));
	must(!pthread_create(&thread, NULL, serve, w->server));
	must(!pthread_create(&thread, NULL, work, w->worker));
	must(!pst_fabric_open(url, &w->fabric, NULL) &&
	     !pst_inbox_create(w->fabric, PST_INBOX_KEEP, &w->inbox, NULL));
	make_shown(PST_ACCESS_READ, &w->shown[0]);
	make_shown(PST_ACCESS_WRITE, &w->shown[1]);
	connect_peer(&w->peer[0]);
	connect_peer(&w->peer[1]);
	make_table();
}

static void expect_alive(struct peer *p)
{
	struct pst_msg m = {0};
	struct pst_msg_stated stated;

	must(!ask(p, &m, sizeof(m), PST_MSG_STAT, &stated, sizeof(stated)));
	must(stated.pid == (uint32_t)getpid());
}

/* With the server's peer goes the table. */
static void hang_up(struct peer *p, bool make)
{
	pst_inbox_close(w->inbox, p->link);
	connect_peer(p);
	if (make && p == &w->peer[0])
		make_table();
}

/* Messages */

/* Mostly tensors that there are, often with the CRC of what is in a slot at first. */
static void mend_pushed(struct pst_msg_pushed *m, size_t count)
{
	static const char zeros[32];

	m->version += w->version;
	m->slot &= 0x80000003;
	m->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		if (m->item[i].tensor % 16)
			m->item[i].tensor %= 7;
		if (m->item[i].crc % 2)
			m->item[i].crc = pst_crc32c(0, zeros, sizeof(zeros));
	}
}

/* Where bytes at random would never fit: keys, the token, the list of servers. */
static void mend(struct peer *p, struct pst_msg *m, size_t len)
{
	union {
		struct pst_msg *m;
		struct pst_msg_commit *commit; /* begins as apply and experts do */
		struct pst_msg_table_create *create;
		struct pst_msg_slot_attach *attach;
		struct pst_msg_worker_setup *setup;
		struct pst_msg_pushed *pushed;
	} u = {m};

	if (m->type == PST_MSG_TABLE_CREATE && len >= sizeof(*u.create)) {
		memcpy(&u.create->key, &p->key[0], sizeof(u.create->key));
	} else if (m->type == PST_MSG_SLOT_ATTACH && len >= sizeof(*u.attach)) {
		u.attach->token = w->token;
	} else if (m->type == PST_MSG_WORKER_SETUP && len >= sizeof(*u.setup)) {
		write_server();
		memcpy(&u.setup->rows, &p->key[0], sizeof(u.setup->rows));
		memcpy(&u.setup->results, &p->key[1], sizeof(u.setup->results));
		u.setup->servers_offset = REGION / 2;
	} else if (m->type == PST_MSG_PUSHED && len >= sizeof(*u.pushed)) {
		mend_pushed(u.pushed, (len - sizeof(*u.pushed)) / sizeof(*u.pushed->item));
	} else if ((m->type == PST_MSG_COMMIT || m->type == PST_MSG_APPLY ||
		    m->type == PST_MSG_EXPERTS) &&
		   len >= sizeof(*u.commit)) {
		u.commit->version += w->version;
	}
}

/* A path is nobody's to choose here: this one is never there. */
static void keep_off_disk(struct pst_msg *m, size_t len)
{
	size_t at = m->type == PST_MSG_SAVE ? offsetof(struct pst_msg_save, path)
					    : offsetof(struct pst_msg_table_load, path);

	if ((m->type == PST_MSG_SAVE || m->type == PST_MSG_TABLE_LOAD) &&
	    len >= at + sizeof(missing) && ((char *)m)[at] == '/')
		memcpy((char *)m + at, missing, sizeof(missing));
}

static void hear(const struct pst_wc *wc)
{
	const struct pst_msg_slot_opened *opened = wc->msg;

	const struct pst_msg_answer *answer = wc->msg;

	must(wc->kind != PST_WC_DOWN);
	if (wc->kind == PST_WC_MESSAGE && answer->hdr.type == (PST_MSG_APPLY | PST_MSG_ANSWER) &&
	    !answer->error.code)
		w->version++;
	if (wc->kind == PST_WC_MESSAGE && wc->len == sizeof(*opened) &&
	    opened->answer.hdr.type == (PST_MSG_SLOT_OPEN | PST_MSG_ANSWER) &&
	    !opened->answer.error.code)
		w->token = opened->token;
}

static void listen_on(void)
{
	struct pst_wc wc;

	while (pst_inbox_next(w->inbox, &wc, 0) > 0)
		hear(&wc);
}

static void say(struct peer *p, struct input *in)
{
	_Alignas(8) char bytes[PST_MSG_MAX];
	struct pst_msg *m = (struct pst_msg *)bytes;
	uint8_t type = take_byte(in), flaw = take_byte(in);
	size_t len = sizeof(*m) + take_byte(in) * 8u;

	/* the last is long enough for a path */
	if (len > 240 * 8)
		len = sizeof(struct pst_msg_table_load);
	take(in, bytes + sizeof(*m), len - sizeof(*m));
	*m = (struct pst_msg){.size = (uint32_t)len, .type = type % 15, .seq = 1};
	if (flaw % 4)
		mend(p, m, len);
	if (flaw == 0xff)
		m->size++;
	if (flaw == 0xfe)
		m->flags = 1;
	if (flaw == 0xfd)
		len -= 5;
	keep_off_disk(m, len);
	must(!pst_link_send(p->link, bytes, len, TIMEOUT_MS));
	listen_on();
}

static void raise_immediate(struct peer *p, struct input *in)
{
	struct pst_wr wr = {.op = PST_WR_WRITE, .flags = PST_WR_IMM | PST_WR_UNSIGNALED};

	take(in, &wr.imm, sizeof(wr.imm));
	/* seven times of eight one that means something */
	if (wr.imm % 8)
		wr.imm =
			PST_IMM(wr.imm >> 8 & 3, (wr.imm >> 16 ^ w->version) & 1, wr.imm >> 24 & 7);
	pst_link_post(p->link, &wr, 1);
	listen_on();
}

static void talk(struct input *in)
{
	while (in->left) {
		uint8_t what = take_byte(in);
		struct peer *p = &w->peer[what & 1];

		p->used = true;
		if (what >= 0xf8)
			hang_up(p, what < 0xfc);
		else if (what >= 0xe0)
			raise_immediate(p, in);
		else
			say(p, in);
	}
	for (int i = 0; i < 2; i++) {
		expect_alive(&w->peer[i]);
		/* the next input begins without slots and sessions */
		if (w->peer[i].used)
			hang_up(&w->peer[i], true);
		w->peer[i].used = false;
	}
	w->token = 0;
}

/* A snapshot region that a server might show */

/* Answer what the view asks: here is my region. */
static void *show_region(void *arg)
{
	struct pst_cq *own = w->own;
	struct pst_msg_table_opened answer = {0};
	struct pst_key key;
	struct pst_wc wc;

	(void)arg;
	do
		must(pst_cq_wait(own, &wc, 1, TIMEOUT_MS) == 1);
	while (wc.kind != PST_WC_MESSAGE);
	must(!pst_link_grant(wc.link, w->mine.region, PST_ACCESS_READ, &key));
	memcpy(&answer.snapshot, &key, sizeof(key));
	must(!pst_rpc_answer(wc.link, wc.msg, &answer.answer, sizeof(answer), NULL));
	do
		must(pst_cq_wait(own, &wc, 1, TIMEOUT_MS) == 1);
	while (wc.kind != PST_WC_DOWN);
	pst_link_close(wc.link);
	return NULL;
}

static void write_region(struct input *in)
{
	struct pst_snapshot_head head = {.magic = PST_SNAPSHOT_MAGIC,
					 .tensors = 7,
					 .directory = 128,
					 .buffer = {4096, 4096 + 1024},
					 .buffer_bytes = 1024};
	char *memory = w->mine.at;
	struct pst_wire_tensor *t = (struct pst_wire_tensor *)(memory + 128);

	memset(memory, 0, REGION);
	memcpy(memory, &head, sizeof(head));
	write_directory(t);
	for (uint32_t i = 0; i < 7; i++) {
		t[i].offset = i * 64;
		t[i].bytes = 32;
	}
	/* and now as the input will have it: (where, eight bytes) */
	while (in->left) {
		uint16_t at;

		take(in, &at, sizeof(at));
		take(in, memory + at % (128 + 7 * sizeof(*t)) / 8 * 8, 8);
	}
}

/* All that the view gives lies within the region, or is a copy of what does. */
static void look_through(struct pst_view *view)
{
	uint64_t now = pst_view_current(view);

	must(pst_view_count(view) <= REGION / sizeof(struct pst_wire_tensor));
	for (uint32_t i = 0; i < pst_view_count(view); i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(view, i);
		int rc = pst_view_need(view, &i, 1, now, NULL);
		const float *weight = pst_view_weight(view, i, now);

		must(!rc == !!weight);
		must(pst_view_find(view, t->name) >= 0);
		for (uint64_t k = 0; weight && k < t->bytes / sizeof(*weight); k++)
			(void)*(const volatile float *)(weight + k);
	}
	must(pst_view_find(view, "not there") == -ENOENT || pst_view_find(view, "not there") >= 0);
}

static void open_view(struct input *in)
{
	struct pst_copies_options co = {
		.size = sizeof(co), .fabric = w->fabric, .bytes = REGION, .node = -1};
	struct pst_listener *listener;
	struct pst_copies *copies;
	struct pst_view *view;
	pthread_t thread;

	if (!w->own) {
		snprintf(w->url, sizeof(w->url), "shm://wire-%d-view-%d", (int)getpid(),
			 (int)(w - worlds));
		must(!pst_cq_create(w->fabric, &w->own, NULL));
		must(!pst_listen(w->own, w->url, &listener, NULL));
		make_shown(PST_ACCESS_READ, &w->mine);
	}
	write_region(in);
	must(!pst_copies_create(&co, &copies, NULL));
	must(!pthread_create(&thread, NULL, show_region, NULL));
	must(!pst_view_connect(w->inbox, w->url, TIMEOUT_MS, &view, NULL));
	if (!pst_view_open(view, NULL)) {
		pst_view_keep(view, copies);
		pst_copies_begin(copies);
		look_through(view);
	}
	pst_view_close(view);
	pst_copies_destroy(copies);
	pthread_join(thread, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.at = data, .left = size};
	uint8_t what = take_byte(&in);

	w = &worlds[what / 4 % 2];
	open_all();
	if (what % 4 == 3)
		open_view(&in);
	else
		talk(&in);
	return 0;
}
