/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/handshake.h"
#include "rdma/fail.h"
#include "rdma/url.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>

#define TIMEOUT_MIN 100
#define TIMEOUT_MAX 600000
#define RECV_MAX    65536
#define ERRNO_MAX   4095

/* What a side waits for, or that it waits for nothing. */
enum {
	WAIT_HELLO = 1, /* server */
	WAIT_CHALLENGE, /* client; a refusal is a WELCOME and may come instead */
	WAIT_PROOF,	/* server */
	WAIT_WELCOME,	/* client */
	ENDED,
};

static const char server_label[] = "penstock server 1", client_label[] = "penstock client 1";

static struct pst_link_hdr header(uint32_t type, size_t size)
{
	return (struct pst_link_hdr){.magic = PST_LINK_MAGIC, .type = type, .size = (uint32_t)size};
}

static int fill_random(void *to, size_t len)
{
	ssize_t n;

	do
		n = getrandom(to, len, 0);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)len ? 0 : -EIO;
}

static int sign_challenge(const struct pst_handshake *h, const struct pst_link_challenge *c,
			  unsigned char mac[PST_LINK_MAC])
{
	const struct pst_piece piece[] = {
		{server_label, sizeof(server_label) - 1},
		{&h->hello, sizeof(h->hello)},
		{c->nonce, sizeof(c->nonce)},
	};

	return pst_secret_sign(h->secret, piece, 3, mac);
}

static int sign_proof(const struct pst_handshake *h, unsigned char mac[PST_LINK_MAC])
{
	const struct pst_piece piece[] = {
		{client_label, sizeof(client_label) - 1},
		{&h->hello, sizeof(h->hello)},
		{&h->challenge, sizeof(h->challenge)},
	};

	return pst_secret_sign(h->secret, piece, 3, mac);
}

static bool good_recv(uint8_t fabric, uint32_t recv)
{
	return fabric == 't' ? !recv : recv && recv <= RECV_MAX;
}

static bool good_timeout(uint32_t ms)
{
	return ms >= TIMEOUT_MIN && ms <= TIMEOUT_MAX;
}

static bool good_ways(const struct pst_link_hello *hello)
{
	return hello->ways <= PST_RAILS_MAX && hello->way < hello->ways &&
	       (!hello->way == !hello->link || (hello->fabric == 'v' && hello->link));
}

static bool good_hello(const struct pst_link_hello *hello)
{
	return (hello->fabric == 't' || hello->fabric == 'v') && hello->crc <= 1 &&
	       good_ways(hello) && good_recv(hello->fabric, hello->recv) &&
	       good_timeout(hello->timeout_ms) && hello->pid <= INT32_MAX && !hello->reserved;
}

/* Of a welcome that says yes. */
static bool good_welcome(const struct pst_link_hello *hello, const struct pst_link_welcome *w)
{
	static const char none[PST_LINK_TEXT];

	return w->link && (!hello->link || w->link == hello->link) &&
	       good_recv(hello->fabric, w->recv) && good_timeout(w->timeout_ms) &&
	       w->timeout_ms >= hello->timeout_ms && w->crc <= 1 && w->crc >= hello->crc &&
	       w->pid <= INT32_MAX && !w->reserved && !memcmp(w->text, none, sizeof(none));
}

/* Printable up to a NUL, and nothing but NULs behind it. */
static bool good_text(const char text[PST_LINK_TEXT])
{
	size_t n = strnlen(text, PST_LINK_TEXT);

	if (!n || n == PST_LINK_TEXT)
		return false;
	for (size_t i = 0; i < PST_LINK_TEXT; i++)
		if (i < n ? text[i] < 0x20 || text[i] > 0x7e : text[i])
			return false;
	return true;
}

static bool good_refusal(const struct pst_link_welcome *w)
{
	return w->code < 0 && w->code >= -ERRNO_MAX && !w->link && !w->recv && !w->timeout_ms &&
	       !w->crc && !w->reserved && w->pid <= INT32_MAX && good_text(w->text);
}

int pst_handshake_begin(struct pst_handshake *h, enum pst_handshake_role role,
			const struct pst_secret *secret, const struct pst_link_hello *hello)
{
	struct pst_handshake fresh = {.role = role, .step = WAIT_HELLO, .secret = secret};

	if (role == PST_HANDSHAKE_CLIENT) {
		fresh.hello = *hello;
		fresh.hello.hdr = header(PST_LINK_HELLO, sizeof(fresh.hello));
		fresh.hello.abi = PST_LINK_ABI;
		fresh.step = WAIT_CHALLENGE;
		fresh.due = true;
		if (!good_hello(&fresh.hello))
			return -EINVAL;
		if (fill_random(fresh.hello.nonce, sizeof(fresh.hello.nonce)))
			return -EIO;
	}
	*h = fresh;
	return 0;
}

size_t pst_handshake_next(struct pst_handshake *h, const void **msg)
{
	if (!h->due)
		return 0;
	h->due = false;
	if (h->role == PST_HANDSHAKE_CLIENT) {
		*msg = h->step == WAIT_CHALLENGE ? (void *)&h->hello : (void *)&h->proof;
		return h->step == WAIT_CHALLENGE ? sizeof(h->hello) : sizeof(h->proof);
	}
	*msg = h->step == WAIT_PROOF ? (void *)&h->challenge : (void *)&h->welcome;
	return h->step == WAIT_PROOF ? sizeof(h->challenge) : sizeof(h->welcome);
}

/* A sentence about what the peer sent. */
static int broken(struct pst_error *err, const char *what)
{
	return pst_fail(err, -EPROTO,
			"handshake: %s; to mend it: install the same Penstock on both sides", what);
}

static int other_key(struct pst_error *err, const char *who)
{
	return pst_fail(err, -EACCES,
			"handshake: the %s has another key; to mend it: give both sides a copy of "
			"one file (key=FILE in the URL, or PENSTOCK_KEY)",
			who);
}

static int take_hello(struct pst_handshake *h, const void *msg, struct pst_error *err)
{
	struct pst_link_challenge c = {.hdr = header(PST_LINK_CHALLENGE, sizeof(c))};
	struct pst_link_hello hello;

	memcpy(&hello, msg, sizeof(hello));
	if (hello.abi != PST_LINK_ABI)
		return pst_fail(err, -EPROTO,
				"handshake: the client speaks version %u of the protocol, this "
				"server %u; to mend it: install the same Penstock on both sides",
				hello.abi, PST_LINK_ABI);
	if (!good_hello(&hello))
		return broken(err, "the hello has a field with no sense");
	h->hello = hello;
	if (fill_random(c.nonce, sizeof(c.nonce)) || sign_challenge(h, &c, c.mac))
		return pst_fail(err, -EIO, "handshake: no random numbers, or no HMAC-SHA256");
	h->challenge = c;
	h->step = WAIT_PROOF;
	h->due = true;
	return 0;
}

static int take_challenge(struct pst_handshake *h, const void *msg, struct pst_error *err)
{
	struct pst_link_proof proof = {.hdr = header(PST_LINK_PROOF, sizeof(proof))};
	struct pst_link_challenge c;
	unsigned char mac[PST_LINK_MAC];

	memcpy(&c, msg, sizeof(c));
	if (sign_challenge(h, &c, mac))
		return pst_fail(err, -EIO, "handshake: no HMAC-SHA256");
	if (CRYPTO_memcmp(mac, c.mac, sizeof(mac)))
		return other_key(err, "server");
	h->challenge = c;
	if (sign_proof(h, proof.mac))
		return pst_fail(err, -EIO, "handshake: no HMAC-SHA256");
	h->proof = proof;
	h->proved = true;
	h->step = WAIT_WELCOME;
	h->due = true;
	return 0;
}

static int take_proof(struct pst_handshake *h, const void *msg, struct pst_error *err)
{
	struct pst_link_proof proof;
	unsigned char mac[PST_LINK_MAC];

	memcpy(&proof, msg, sizeof(proof));
	if (sign_proof(h, mac))
		return pst_fail(err, -EIO, "handshake: no HMAC-SHA256");
	if (CRYPTO_memcmp(mac, proof.mac, sizeof(mac)))
		return other_key(err, "client");
	h->proof = proof;
	h->welcome = (struct pst_link_welcome){
		.hdr = header(PST_LINK_WELCOME, sizeof(h->welcome)),
		.link = h->hello.link,
		.timeout_ms = h->hello.timeout_ms,
		.crc = h->hello.crc,
	};
	h->proved = true;
	h->step = ENDED;
	h->due = true;
	return 1;
}

static int take_welcome(struct pst_handshake *h, const void *msg, struct pst_error *err)
{
	struct pst_link_welcome w;

	memcpy(&w, msg, sizeof(w));
	if (w.code) {
		if (!good_refusal(&w))
			return broken(err, "a refusal came that is none");
		return pst_fail(err, w.code, "refused by the server: %s", w.text);
	}
	if (h->step != WAIT_WELCOME)
		return broken(err, "the server let us in without asking who we are");
	if (!good_welcome(&h->hello, &w))
		return broken(err, "the welcome has a field with no sense");
	h->welcome = w;
	h->step = ENDED;
	return 1;
}

/* Which messages may come at which step. */
static const struct {
	unsigned int step;
	uint32_t type;
	size_t size;
	int (*take)(struct pst_handshake *h, const void *msg, struct pst_error *err);
} turns[] = {
	{WAIT_HELLO, PST_LINK_HELLO, sizeof(struct pst_link_hello), take_hello},
	{WAIT_CHALLENGE, PST_LINK_CHALLENGE, sizeof(struct pst_link_challenge), take_challenge},
	{WAIT_CHALLENGE, PST_LINK_WELCOME, sizeof(struct pst_link_welcome), take_welcome},
	{WAIT_PROOF, PST_LINK_PROOF, sizeof(struct pst_link_proof), take_proof},
	{WAIT_WELCOME, PST_LINK_WELCOME, sizeof(struct pst_link_welcome), take_welcome},
};

static int take(struct pst_handshake *h, const void *msg, size_t len, struct pst_error *err)
{
	struct pst_link_hdr hdr;

	if (len < sizeof(hdr))
		return broken(err, "a message is too short to be one");
	memcpy(&hdr, msg, sizeof(hdr));
	if (hdr.magic != PST_LINK_MAGIC)
		return broken(err, "what came is no message of ours");
	if (hdr.size != len)
		return broken(err, "a message has not the length that it says");
	for (size_t i = 0; !h->due && i < sizeof(turns) / sizeof(turns[0]); i++)
		if (turns[i].step == h->step && turns[i].type == hdr.type && turns[i].size == len)
			return turns[i].take(h, msg, err);
	return broken(err, "a message came that has no place here");
}

int pst_handshake_take(struct pst_handshake *h, const void *msg, size_t len, struct pst_error *err)
{
	int rc = take(h, msg, len, err);

	/* Nothing mends a handshake that went wrong; a server can still say no. */
	if (rc < 0) {
		h->step = ENDED;
		h->due = false;
	}
	return rc;
}

/* What somebody may know who has not shown the key. */
static const char *in_general(int code)
{
	switch (code) {
	case -EACCES:
		return "another key; to mend it: give both sides a copy of one file (key=FILE in "
		       "the URL, or PENSTOCK_KEY)";
	case -EPROTO:
		return "it did not understand us; to mend it: install the same Penstock on both "
		       "sides";
	case -ENOSPC:
	case -EUSERS:
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
	case -EBUSY:
	case -EAGAIN:
		return "it has as many links as it takes; try again later";
	case -ETIMEDOUT:
		return "it waited too long for us";
	default:
		return "its log says why";
	}
}

void pst_handshake_refuse(struct pst_handshake *h, int code, const char *text)
{
	struct pst_link_welcome w = {.hdr = header(PST_LINK_WELCOME, sizeof(w)), .code = code};

	if (h->role != PST_HANDSHAKE_SERVER)
		return;
	if (code >= 0 || code < -ERRNO_MAX)
		w.code = -EPROTO;
	if (!h->proved || !text || !text[0])
		text = in_general(w.code);
	for (size_t i = 0; text[i] && i < sizeof(w.text) - 1; i++)
		w.text[i] = text[i] < 0x20 || text[i] > 0x7e ? '?' : text[i];
	h->welcome = w;
	h->step = ENDED;
	h->due = true;
}
