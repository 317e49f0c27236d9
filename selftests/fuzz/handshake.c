/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is somebody between a client and a server who lacks their key: he passes messages
 * on, changes them, holds them back and makes up his own. Neither side may ever believe that he
 * has the key, nor that the other said what it did not.
 */
#include "rdma/handshake.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at;
	size_t left;
};

/* The last message of each side, which may be sent on more than once. */
struct held {
	unsigned char bytes[256];
	size_t len;
};

static struct pst_secret *secret;

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

static void make_secret(void)
{
	char bytes[32] = "a key that is known to two alone", path[64];
	int fd = memfd_create("key", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, bytes, sizeof(bytes)) == sizeof(bytes) && !fchmod(fd, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must(!pst_secret_read(path, &secret, NULL));
	close(fd);
}

static void deliver(struct pst_handshake *to, const void *msg, size_t len)
{
	struct pst_error err = {0};
	unsigned char *copy = malloc(len ? len : 1);
	bool proved = to->proved;
	int rc;

	must(copy != NULL);
	memcpy(copy, msg, len);
	rc = pst_handshake_take(to, copy, len, &err);
	free(copy);
	must(rc <= 1 && (rc < 0 ? rc == err.code && err.text[0] : !err.code));
	must(rc != 1 || to->proved);
	must(rc >= 0 || to->proved == proved);
	for (const char *c = err.text; *c; c++)
		must(*c >= 0x20 && *c <= 0x7e);
}

/* All that there is to know of a side: it believes only what the other side said. */
static void check(const struct pst_handshake *client, const struct pst_handshake *server)
{
	if (client->proved)
		must(!memcmp(&client->challenge, &server->challenge, sizeof(client->challenge)));
	if (client->proved || server->proved)
		must(!memcmp(&client->hello, &server->hello, sizeof(client->hello)));
	if (server->proved)
		must(client->proved &&
		     !memcmp(&client->proof, &server->proof, sizeof(client->proof)));
}

static void hear(struct pst_handshake *from, struct held *held)
{
	const void *msg;
	size_t len = pst_handshake_next(from, &msg);

	if (!len)
		return;
	must(len <= sizeof(held->bytes));
	memcpy(held->bytes, msg, len);
	held->len = len;
}

static void make_up(struct pst_handshake *to, struct input *in)
{
	static const uint16_t sizes[] = {80, 80, 48, 240};
	unsigned char bytes[256];
	uint8_t what = take_byte(in);
	struct pst_link_hdr hdr = {PST_LINK_MAGIC, what % 4 + 1u, sizes[what % 4]};
	size_t len = what & 0x80 ? take_byte(in) : hdr.size;

	take(in, bytes, len);
	if (what & 0x40 && len >= sizeof(hdr))
		memcpy(bytes, &hdr, sizeof(hdr));
	deliver(to, bytes, len);
}

static void step(struct pst_handshake *side, struct held *held, struct input *in)
{
	static const int codes[] = {-1, -13, -71, -110, 0, 7, -100000};
	uint8_t what = take_byte(in), who = what >> 7, at, flip;
	char text[64];

	switch (what % 6) {
	case 0:
		hear(&side[who], &held[who]);
		break;
	case 1:
		deliver(&side[!who], held[who].bytes, held[who].len);
		break;
	case 2:
		at = take_byte(in);
		flip = take_byte(in);
		if (at < held[who].len) {
			held[who].bytes[at] ^= flip;
			deliver(&side[!who], held[who].bytes, held[who].len);
			held[who].bytes[at] ^= flip;
		}
		break;
	case 3:
		deliver(&side[who], held[who].bytes, held[who].len);
		break;
	case 4:
		make_up(&side[who], in);
		break;
	default:
		take(in, text, sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		pst_handshake_refuse(&side[1], codes[what / 6 % 7], text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pst_link_hello hello = {.fabric = 't', .ways = 1, .timeout_ms = 2000};
	struct pst_handshake side[2];
	struct held held[2] = {0};
	struct input in = {data, size};

	if (!secret)
		make_secret();
	must(!pst_handshake_begin(&side[0], PST_HANDSHAKE_CLIENT, secret, &hello));
	must(!pst_handshake_begin(&side[1], PST_HANDSHAKE_SERVER, secret, NULL));
	while (in.left) {
		step(side, held, &in);
		check(&side[0], &side[1]);
	}
	return 0;
}
