/* SPDX-License-Identifier: Apache-2.0 */
/* The control headers as binaries out there know them: most of it is held when this is compiled. */
#include "selftests/lib/test.h"

#include <penstock/door.h>
#include <penstock/leash.h>
#include <stddef.h>

#define NUMBER(name, value) _Static_assert((long long)(name) == (value), #name);
#define BEGIN(type)
#define FIELD(type, field, offset, bytes)                                           \
	_Static_assert(offsetof(struct type, field) == (offset), #type "." #field); \
	_Static_assert(sizeof(((struct type *)0)->field) == (bytes), #type "." #field);
#define END(type, bytes)                                       \
	_Static_assert(sizeof(struct type) == (bytes), #type); \
	_Static_assert(sizeof(struct type) % 4 == 0, #type " ends on its alignment");
#include "selftests/control/layout.h"
#undef NUMBER
#undef BEGIN
#undef FIELD
#undef END

struct row {
	const char *type, *field; /* no field: the end */
	size_t offset, bytes;
};

static const struct row rows[] = {
#define NUMBER(name, value)
#define BEGIN(type)
#define FIELD(type, field, offset, bytes) {#type, #field, offset, bytes},
#define END(type, bytes)		  {#type, NULL, bytes, 0},
#include "selftests/control/layout.h"
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What is between two fields could carry what nobody meant to tell. */
TEST(no_holes)
{
	size_t end = 0;

	for (size_t i = 0; i < ROWS; i++) {
		if (rows[i].offset != end)
			printf("# %s: hole before %s\n", rows[i].type,
			       rows[i].field ? rows[i].field : "its end");
		EXPECT_EQ(rows[i].offset, end);
		end = rows[i].field ? end + rows[i].bytes : 0;
	}
}

/* Every command begins with its size and flags, is a multiple of 8 and fits through the door. */
#define COMMAND(NAME, name, last, in1, in2, out)        \
	{                                               \
		#NAME,                                  \
		sizeof(struct pst_cmd_##name),          \
		offsetof(struct pst_cmd_##name, size),  \
		offsetof(struct pst_cmd_##name, flags), \
		PST_CMD_##NAME,                         \
	},
TEST(commands)
{
	static const struct {
		const char *name;
		size_t bytes, size_at, flags_at;
		unsigned int number;
	} command[] = {PST_COMMANDS(COMMAND)};
	size_t n = sizeof(command) / sizeof(command[0]);

	EXPECT_EQ(PST_CMD_END - PST_CMD_BASE, (int)n);
	for (size_t i = 0; i < n; i++) {
		EXPECT_EQ((size_t)0, command[i].size_at);
		EXPECT_EQ((size_t)4, command[i].flags_at);
		EXPECT_EQ((size_t)0, command[i].bytes % 8);
		EXPECT_LE(command[i].bytes, (size_t)PST_DOOR_MAX);
		EXPECT_EQ(PST_CMD_BASE + i, (size_t)command[i].number);
	}
}

/* A number that is out there for ever: _IO() of one type, without a size in it. */
TEST(ioctl_numbers)
{
	EXPECT_EQ(0xEB80u, PST_IOC_INFO);
	EXPECT_EQ(0xEB82u, PST_IOC_POOL_CREATE);
	EXPECT_EQ(0xEB95u, PST_IOC_EVENTS);
}

TEST(leash_fits)
{
	EXPECT_LE(sizeof(struct pst_leash_checked), (size_t)PST_LEASH_MAX);
	EXPECT_LE(sizeof(struct pst_leash_answer), (size_t)PST_LEASH_MAX);
	EXPECT_LE(sizeof(struct pst_leash_hello), (size_t)PST_LEASH_MAX);
}

TEST_MAIN
