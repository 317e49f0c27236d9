/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell.h - one field of one object, for people and for programs, from one description.
 *
 * A column names a field of a struct of penstock/ioctl.h. Its key in JSON is the field's name
 * without out_, its value there the exact number (null: unknown), a word, or text. For people the
 * same field has a unit that fits its size, and - where it is unknown.
 */
#ifndef CTL_CELL_H
#define CTL_CELL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum cell_kind {
	CELL_NUMBER,  /* as it is */
	CELL_SIGNED,  /* of either sign */
	CELL_COUNT,   /* 12.3 M */
	CELL_NODE,    /* PST_ANY is unknown */
	CELL_OR_NONE, /* 0 is none: a process, a user, an error */
	CELL_BOOL,    /* yes or no */
	CELL_BYTES,   /* GiB */
	CELL_NS,      /* a time that passed */
	CELL_MS,
	CELL_REALTIME, /* ns since 1970, as a date */
	CELL_SINCE,    /* ns of CLOCK_BOOTTIME, as the time since then */
	CELL_MILLIWATT,
	CELL_MICROJOULE,
	CELL_MHZ,
	CELL_MILLICELSIUS,
	CELL_PERMILLE, /* % */
	CELL_PERMILLE_OR_NONE,
	CELL_PPB,
	CELL_TEXT,
	CELL_NOTE, /* text; for people below the table */
	CELL_HASH, /* zeros: none */
	CELL_WORD, /* an enum's */
	CELL_BITS, /* words for bits: a list */
	CELL_IDS,  /* bit n is id n + 1: a list */
};

/* How good or bad something is; for colours. */
enum tone { TONE_PLAIN, TONE_HEAD, TONE_WARN, TONE_BAD };

struct word {
	uint64_t value; /* of an enum, or one bit */
	const char *word;
	enum tone tone;
};

struct column {
	const char *key;   /* the field's name */
	const char *title; /* NULL: not for people */
	enum cell_kind kind;
	unsigned short at, bytes;
	unsigned short least, most; /* columns for people; 0: as many as are needed */
	const struct word *words;   /* of WORD and BITS, up to one without a word */
};

#define COLUMN_WORDS(type, field, title, kind, words)                  \
	{                                                              \
#field, title, kind, offsetof(struct type, field),     \
			sizeof(((struct type *)0)->field), 0, 0, words \
	}
#define COLUMN(type, field, title, kind) COLUMN_WORDS(type, field, title, kind, NULL)

#define CELL_TEXT_MAX 512 /* bytes with the NUL that any cell takes */

const char *cell_key(const struct column *c);
void cell_text(const struct column *c, const void *row, char buf[CELL_TEXT_MAX]);
json_t *cell_json(const struct column *c, const void *row);
enum tone cell_tone(const struct column *c, const void *row);
/* Stands at the right end of its column. */
int cell_is_number(const struct column *c);

/* Pieces of the above for views of their own. @buf of 32 bytes. */
const char *cell_bytes(double bytes, char buf[32]);
const char *cell_count(double n, char buf[32]);
const char *cell_seconds(double s, char buf[32]);

#endif /* CTL_CELL_H */
