/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * DOC: What the two ends of a tcp or verbs link say to each other.
 *
 * Little-endian, naturally aligned, without hidden holes; reserved fields are
 * zero and are checked. First a handshake (struct pst_link_hello to struct pst_link_welcome),
 * then frames, each beginning with struct pst_frame.
 *
 * tcp: handshake messages and frames stand one behind the other in the stream. One-sided
 * reads and writes are frames too, carried out by the peer's library.
 * verbs: each handshake message and each frame is one SEND; one-sided reads and writes are
 * the NIC's, and a write's immediate is an RDMA immediate (on a link of several rails a frame).
 *
 * Every request that a frame carries belongs to one connection (tcp) or one rail (verbs) of
 * the link; frames that have an order among them (PST_FRAME_MESSAGE, PST_FRAME_IMM,
 * PST_FRAME_GRANT) are numbered by @seq over the whole link, whichever way they come.
 */
#ifndef _UAPI_PENSTOCK_LINK_H
#define _UAPI_PENSTOCK_LINK_H

#include <linux/types.h>

#define PST_LINK_MAGIC 0x314b4e494c545350ull /* "PSTLINK1" */
#define PST_LINK_ABI   1
#define PST_LINK_NONCE 32
#define PST_LINK_MAC   32
#define PST_LINK_TEXT  192

enum {
	PST_LINK_HELLO = 1,
	PST_LINK_CHALLENGE = 2,
	PST_LINK_PROOF = 3,
	PST_LINK_WELCOME = 4,
};

/* How every message of the handshake begins. */
struct pst_link_hdr {
	__aligned_u64 magic;
	__u32 type; /* PST_LINK_* */
	__u32 size; /* of the whole message */
};

/**
 * struct pst_link_hello - a client would like a link, or one more way of one that it has
 * @hdr: PST_LINK_HELLO
 * @abi: PST_LINK_ABI
 * @fabric: 't' or 'v'
 * @crc: 1: frames carry a CRC32C
 * @way: number of this connection or rail in its link, from 0
 * @ways: how many the link is to have
 * @recv: verbs: receive buffers that the client has posted
 * @timeout_ms: after this long a silence it gives up; both sides take the longer of theirs
 * @pid: of the client, for people
 * @link: 0 for a new one, by @way 0; else what the server's welcome said. Over verbs @way 0 comes
 *	back with it too.
 * @nonce: random
 */
struct pst_link_hello {
	struct pst_link_hdr hdr;
	__u32 abi;
	__u8 fabric;
	__u8 crc;
	__u8 way;
	__u8 ways;
	__u32 recv;
	__u32 timeout_ms;
	__u32 pid;
	__u32 reserved;
	__aligned_u64 link;
	__u8 nonce[PST_LINK_NONCE];
};

/**
 * struct pst_link_challenge - the server proves itself, and asks the client to
 * @mac: HMAC by the key of "penstock server 1", the hello, and @nonce
 */
struct pst_link_challenge {
	struct pst_link_hdr hdr;
	__u8 nonce[PST_LINK_NONCE];
	__u8 mac[PST_LINK_MAC];
};

/**
 * struct pst_link_proof - the client proves itself
 * @mac: HMAC by the key of "penstock client 1", the hello, and the challenge
 */
struct pst_link_proof {
	struct pst_link_hdr hdr;
	__u8 mac[PST_LINK_MAC];
};

/**
 * struct pst_link_welcome - the link stands, or does not
 * @code: 0, or a negative errno
 * @pid: of the server, for people
 * @link: names the link to its further ways; nobody can guess it
 * @recv: verbs: receive buffers that the server has posted
 * @timeout_ms: what both sides take
 * @crc: 1: frames carry a CRC32C (if either side wants it)
 * @text: why not, printable, ends in a NUL
 */
struct pst_link_welcome {
	struct pst_link_hdr hdr;
	__s32 code;
	__u32 pid;
	__aligned_u64 link;
	__u32 recv;
	__u32 timeout_ms;
	__u32 crc;
	__u32 reserved;
	char text[PST_LINK_TEXT];
};

/* Types of frames. */
enum {
	PST_FRAME_MESSAGE = 1, /* payload: the message */
	PST_FRAME_IMM = 2,     /* @imm, after the writes before it */
	PST_FRAME_GRANT = 3,   /* payload: struct pst_frame_grant */
	PST_FRAME_AGAIN = 4,   /* the frame @seq came broken: send it again */
	PST_FRAME_PING = 5,    /* not numbered; answered by any frame of the other side */
	PST_FRAME_CREDIT = 6,  /* not numbered; only the header's @ack matters */
	PST_FRAME_BYE = 7,     /* not numbered; the link is closed in good order */
	PST_FRAME_WRITE = 8,   /* tcp: struct pst_frame_range, then the data */
	PST_FRAME_READ = 9,    /* tcp: struct pst_frame_range */
	PST_FRAME_DATA = 10,   /* tcp: answer to READ: struct pst_frame_range, then the data */
	PST_FRAME_DONE = 11,   /* tcp: struct pst_frame_done */
};

/**
 * struct pst_frame - how every frame begins
 * @size: of the whole frame
 * @type: PST_FRAME_*
 * @flags: 0
 * @crc: CRC32C of the frame with @crc = 0; the data of WRITE and DATA is left out. 0 when the
 *	link has no CRC.
 * @imm: of an immediate
 * @seq: of a numbered frame, from 1
 * @ack: numbered frames of the other side up to this one were taken
 */
struct pst_frame {
	__u32 size;
	__u16 type;
	__u16 flags;
	__u32 crc;
	__u32 imm;
	__aligned_u64 seq;
	__aligned_u64 ack;
};

#define PST_GRANT_PIECES 64

/**
 * struct pst_frame_grant - the sender lets the receiver at one region
 * @key: what requests name it by; random, of this link alone
 * @len: bytes of the region
 * @access: enum pst_access
 * @pieces: verbs: how many of @rkey, @chunk bytes each but the last; 0 over tcp
 * @addr: verbs: where the region begins, as the NIC counts
 * @chunk: verbs: bytes of a piece
 * @rkey: verbs: of each piece, @pieces of them for each way of the link
 */
struct pst_frame_grant {
	struct pst_frame hdr;
	__aligned_u64 key[2];
	__aligned_u64 len;
	__u32 access;
	__u32 pieces;
	__aligned_u64 addr;
	__aligned_u64 chunk;
	__u32 rkey[];
};

/**
 * struct pst_frame_range - WRITE, READ and DATA over tcp
 * @key: of the receiver's region (DATA: zero)
 * @offset: in the region (DATA: from the beginning of what was asked)
 * @len: bytes of data that follow (WRITE, DATA) or are asked for (READ)
 * @request: the asker's number for it; repeated by DATA and DONE
 */
struct pst_frame_range {
	struct pst_frame hdr;
	__aligned_u64 key[2];
	__aligned_u64 offset;
	__aligned_u64 len;
	__aligned_u64 request;
};

/**
 * struct pst_frame_done - requests up to @request were carried out, or one was not
 * @request: the last of them, or the one that failed
 * @status: 0, or a negative errno for @request alone
 */
struct pst_frame_done {
	struct pst_frame hdr;
	__aligned_u64 request;
	__s32 status;
	__u32 reserved;
};

#ifdef __cplusplus
#define PST_LINK_ASSERT(cond) static_assert(cond, #cond)
#else
#define PST_LINK_ASSERT(cond) _Static_assert(cond, #cond)
#endif

PST_LINK_ASSERT(sizeof(struct pst_link_hdr) == 16);
PST_LINK_ASSERT(sizeof(struct pst_link_hello) == 80);
PST_LINK_ASSERT(sizeof(struct pst_link_challenge) == 80);
PST_LINK_ASSERT(sizeof(struct pst_link_proof) == 48);
PST_LINK_ASSERT(sizeof(struct pst_link_welcome) == 240);
PST_LINK_ASSERT(sizeof(struct pst_frame) == 32);
PST_LINK_ASSERT(sizeof(struct pst_frame_grant) == 80);
PST_LINK_ASSERT(sizeof(struct pst_frame_range) == 72);
PST_LINK_ASSERT(sizeof(struct pst_frame_done) == 48);

#endif /* _UAPI_PENSTOCK_LINK_H */
