/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C against the examples of RFC 3720 and against the polynomial, bit by bit. */
#include "rdma/crc32c.h"
#include "selftests/lib/test.h"

static uint32_t by_bits(uint32_t crc, const unsigned char *p, size_t len)
{
	crc = ~crc;
	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/* RFC 3720, B.4; there the bytes stand in the order of the wire. */
TEST(examples)
{
	static const unsigned char pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,	   0, 0, 0, 0,
		0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
		0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,	   0, 0, 0, 0};
	unsigned char b[32];

	memset(b, 0, sizeof(b));
	EXPECT_EQ(0x8a9136aau, pst_crc32c(0, b, 32));
	memset(b, 0xff, sizeof(b));
	EXPECT_EQ(0x62a8ab43u, pst_crc32c(0, b, 32));
	for (int i = 0; i < 32; i++)
		b[i] = (unsigned char)i;
	EXPECT_EQ(0x46dd794eu, pst_crc32c(0, b, 32));
	for (int i = 0; i < 32; i++)
		b[i] = (unsigned char)(31 - i);
	EXPECT_EQ(0x113fdb5cu, pst_crc32c(0, b, 32));
	EXPECT_EQ(0xd9963a56u, pst_crc32c(0, pdu, 48));
	EXPECT_EQ(0xe3069283u, pst_crc32c(0, "123456789", 9));
	EXPECT_EQ(0u, pst_crc32c(0, NULL, 0));
}

/* Every length and alignment up to where the fast ways begin, and some beyond. */
TEST(lengths)
{
	static unsigned char b[5000];
	uint64_t state = 1;

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (unsigned char)test_random(&state);
	for (size_t at = 0; at < 16; at++)
		for (size_t len = 0; len < 600; len++)
			ASSERT_EQ(by_bits(0, b + at, len), pst_crc32c(0, b + at, len));
	for (size_t len = 600; len < sizeof(b) - 16; len += 321)
		ASSERT_EQ(by_bits(7, b + 3, len), pst_crc32c(7, b + 3, len));
}

TEST(goes_on)
{
	const char *text = "one after the other";
	uint32_t whole = pst_crc32c(0, text, 19);

	for (size_t cut = 0; cut <= 19; cut++)
		EXPECT_EQ(whole, pst_crc32c(pst_crc32c(0, text, cut), text + cut, 19 - cut));
}

/* Any one wrong bit and any burst of up to 32 show. */
TEST(finds_errors)
{
	unsigned char b[256] = {1, 2, 3};
	uint32_t good = pst_crc32c(0, b, sizeof(b));

	for (size_t bit = 0; bit < 8 * sizeof(b); bit++) {
		b[bit / 8] ^= 1u << bit % 8;
		EXPECT_NE(good, pst_crc32c(0, b, sizeof(b)));
		b[bit / 8] ^= 1u << bit % 8;
	}
	for (size_t at = 0; at + 4 <= sizeof(b); at++) {
		memset(b + at, 0xa5, 4);
		EXPECT_NE(good, pst_crc32c(0, b, sizeof(b)));
		memcpy(b, (unsigned char[4]){1, 2, 3, 0}, 4);
		memset(b + 4, 0, sizeof(b) - 4);
	}
}

TEST_MAIN
