/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/cell.h"
#include "tools/ctl/text.h"

#include <inttypes.h>
#include <math.h>
#include <penstock/ioctl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *cell_key(const struct column *c)
{
	return strncmp(c->key, "out_", 4) ? c->key : c->key + 4;
}

static const void *field(const struct column *c, const void *row)
{
	return (const char *)row + c->at;
}

static bool is_text(const struct column *c)
{
	return c->kind == CELL_TEXT || c->kind == CELL_NOTE || c->kind == CELL_HASH;
}

static bool is_signed(const struct column *c)
{
	return c->kind == CELL_SIGNED || c->kind == CELL_NODE;
}

/* Of 4 or 8 bytes; those with a sign are extended. */
static uint64_t number(const struct column *c, const void *row)
{
	int64_t wide;
	int32_t narrow;

	if (c->bytes == sizeof(wide)) {
		memcpy(&wide, field(c, row), sizeof(wide));
		return (uint64_t)wide;
	}
	memcpy(&narrow, field(c, row), sizeof(narrow));
	return is_signed(c) ? (uint64_t)(int64_t)narrow : (uint32_t)narrow;
}

/* What the device does not tell, or what there is none of. */
static bool is_unknown(const struct column *c, uint64_t v)
{
	switch (c->kind) {
	case CELL_SIGNED:
	case CELL_BITS:
	case CELL_IDS:
	case CELL_WORD:
		return false;
	case CELL_NODE:
		return v == (uint64_t)PST_ANY;
	case CELL_OR_NONE:
	case CELL_PERMILLE_OR_NONE:
		return !v;
	default:
		return v == (c->bytes == sizeof(uint32_t) ? PST_UNKNOWN32 : PST_UNKNOWN);
	}
}

int cell_is_number(const struct column *c)
{
	return !is_text(c) && c->kind != CELL_WORD && c->kind != CELL_BITS && c->kind != CELL_IDS &&
	       c->kind != CELL_REALTIME && c->kind != CELL_BOOL;
}

/* Three digits and the unit that fits. */
static const char *scaled(double v, double step, const char *const *unit, int units, char buf[32])
{
	double limit = step == 1024 ? 999.5 : step - 0.5;
	int u = 0;

	for (; v >= limit && u < units - 1; u++)
		v /= step;
	snprintf(buf, 32, "%.*f%s%s",
		 v == floor(v) || v >= 99.95 ? 0
		 : v < 9.995		     ? 2
					     : 1,
		 v, *unit[u] ? " " : "", unit[u]);
	return buf;
}

const char *cell_bytes(double bytes, char buf[32])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

	return scaled(bytes, 1024, unit, 7, buf);
}

const char *cell_count(double n, char buf[32])
{
	static const char *const unit[] = {"", "k", "M", "G", "T", "P", "E"};

	return scaled(n, 1000, unit, 7, buf);
}

const char *cell_seconds(double s, char buf[32])
{
	if (s < 1e-3)
		snprintf(buf, 32, "%.0f us", 1e6 * s);
	else if (s < 1)
		snprintf(buf, 32, "%.0f ms", 1e3 * s);
	else if (s < 60)
		snprintf(buf, 32, "%.1f s", s);
	else if (s < 3600)
		snprintf(buf, 32, "%d min %d s", (int)s / 60, (int)s % 60);
	else if (s < 86400)
		snprintf(buf, 32, "%d h %d min", (int)s / 3600, (int)s / 60 % 60);
	else
		snprintf(buf, 32, "%.0f d %d h", (s - (double)((int64_t)s % 86400)) / 86400,
			 (int)((int64_t)s % 86400 / 3600));
	return buf;
}

static const char *joules(double j, char buf[32])
{
	static const char *const unit[] = {"J", "kJ", "MJ", "GJ", "TJ"};

	return scaled(j, 1000, unit, 5, buf);
}

static double seconds_since(uint64_t boottime_ns)
{
	struct timespec now;
	double s;

	clock_gettime(CLOCK_BOOTTIME, &now);
	s = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - 1e-9 * (double)boottime_ns;
	return s > 0 ? s : 0;
}

static void date(uint64_t realtime_ns, char *buf, size_t len)
{
	time_t t = (time_t)(realtime_ns / 1000000000);
	struct tm tm;
	char day[40];

	if (!localtime_r(&t, &tm) || !strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buf, len, "-");
	else
		snprintf(buf, len, "%s.%03u", day, (unsigned int)(realtime_ns / 1000000 % 1000));
}

static const struct word *find_word(const struct column *c, uint64_t v)
{
	for (const struct word *w = c->words; w->word; w++)
		if (w->value == v)
			return w;
	return NULL;
}

/* "a,b" of the bits that are set; those without a word by their number. */
static void list_bits(const struct column *c, uint64_t v, char buf[CELL_TEXT_MAX])
{
	size_t n = 0;

	buf[0] = 0;
	for (int bit = 0; bit < 64; bit++) {
		const struct word *w = NULL;

		if (!(v >> bit & 1))
			continue;
		if (c->kind == CELL_BITS)
			w = find_word(c, 1ull << bit);
		if (w)
			n += (size_t)snprintf(buf + n, CELL_TEXT_MAX - n, "%s%s", n ? "," : "",
					      w->word);
		else
			n += (size_t)snprintf(buf + n, CELL_TEXT_MAX - n, "%s%s%d", n ? "," : "",
					      c->kind == CELL_BITS ? "bit " : "",
					      c->kind == CELL_BITS ? bit : bit + 1);
		if (n >= CELL_TEXT_MAX - 1)
			break;
	}
	if (!n)
		strcpy(buf, "-");
}

static bool has_hash(const struct column *c, const void *row)
{
	const unsigned char *p = field(c, row);

	for (unsigned int i = 0; i < c->bytes; i++)
		if (p[i])
			return true;
	return false;
}

static void hex(const struct column *c, const void *row, unsigned int bytes, char *buf)
{
	const unsigned char *p = field(c, row);

	for (unsigned int i = 0; i < bytes; i++)
		snprintf(buf + 2 * i, 3, "%02x", p[i]);
}

static void text_of_text(const struct column *c, const void *row, char buf[CELL_TEXT_MAX])
{
	if (c->kind == CELL_HASH && has_hash(c, row))
		hex(c, row, 6, buf);
	else if (c->kind == CELL_HASH)
		buf[0] = 0;
	else
		text_clean(buf, field(c, row), c->bytes);
	if (!buf[0])
		strcpy(buf, "-");
}

static void text_of_word(const struct column *c, uint64_t v, char buf[CELL_TEXT_MAX])
{
	const struct word *w = find_word(c, v);

	if (w)
		snprintf(buf, CELL_TEXT_MAX, "%s", w->word);
	else
		snprintf(buf, CELL_TEXT_MAX, "%" PRIu64, v);
}

static void text_of_number(const struct column *c, uint64_t v, char buf[CELL_TEXT_MAX])
{
	double d = (double)v;
	char s[32];

	switch (c->kind) {
	case CELL_COUNT:
		snprintf(buf, CELL_TEXT_MAX, "%s", cell_count(d, s));
		break;
	case CELL_BYTES:
		snprintf(buf, CELL_TEXT_MAX, "%s", cell_bytes(d, s));
		break;
	case CELL_NS:
		snprintf(buf, CELL_TEXT_MAX, "%s", cell_seconds(1e-9 * d, s));
		break;
	case CELL_MS:
		snprintf(buf, CELL_TEXT_MAX, "%s", cell_seconds(1e-3 * d, s));
		break;
	case CELL_SINCE:
		snprintf(buf, CELL_TEXT_MAX, "%s", cell_seconds(seconds_since(v), s));
		break;
	case CELL_REALTIME:
		date(v, buf, CELL_TEXT_MAX);
		break;
	case CELL_MILLIWATT:
		snprintf(buf, CELL_TEXT_MAX, "%.*f W", d < 99950 ? 1 : 0, d / 1000);
		break;
	case CELL_MICROJOULE:
		snprintf(buf, CELL_TEXT_MAX, "%s", joules(1e-6 * d, s));
		break;
	case CELL_MHZ:
		snprintf(buf, CELL_TEXT_MAX, "%.0f MHz", d);
		break;
	case CELL_MILLICELSIUS:
		/* below zero it has a sign */
		snprintf(buf, CELL_TEXT_MAX, "%.0f %sC", (double)(int32_t)v / 1000,
			 text_utf8() ? "\xc2\xb0" : "");
		break;
	case CELL_PERMILLE:
	case CELL_PERMILLE_OR_NONE:
		snprintf(buf, CELL_TEXT_MAX, "%.1f %%", d / 10);
		break;
	case CELL_PPB:
		snprintf(buf, CELL_TEXT_MAX, v ? "%.1e" : "0", 1e-9 * d);
		break;
	default:
		snprintf(buf, CELL_TEXT_MAX, is_signed(c) ? "%" PRId64 : "%" PRIu64, v);
	}
}

void cell_text(const struct column *c, const void *row, char buf[CELL_TEXT_MAX])
{
	uint64_t v;

	if (is_text(c)) {
		text_of_text(c, row, buf);
		return;
	}
	v = number(c, row);
	if (is_unknown(c, v))
		strcpy(buf, "-");
	else if (c->kind == CELL_BOOL)
		strcpy(buf, v ? "yes" : "no");
	else if (c->kind == CELL_WORD)
		text_of_word(c, v, buf);
	else if (c->kind == CELL_BITS || c->kind == CELL_IDS)
		list_bits(c, v, buf);
	else
		text_of_number(c, v, buf);
}

static json_t *json_of_bits(const struct column *c, uint64_t v)
{
	json_t *list = json_array();

	for (int bit = 0; bit < 64; bit++) {
		const struct word *w;

		if (!(v >> bit & 1))
			continue;
		w = c->kind == CELL_BITS ? find_word(c, 1ull << bit) : NULL;
		json_array_append_new(list, w ? json_string(w->word)
					      : json_integer(c->kind == CELL_BITS ? bit : bit + 1));
	}
	return list;
}

static json_t *json_of_hash(const struct column *c, const void *row)
{
	char digits[2 * 64 + 1];

	if (c->bytes > 64 || !has_hash(c, row))
		return json_null();
	hex(c, row, c->bytes, digits);
	return json_string(digits);
}

json_t *cell_json(const struct column *c, const void *row)
{
	const struct word *w;
	uint64_t v;

	if (c->kind == CELL_HASH)
		return json_of_hash(c, row);
	if (is_text(c))
		return text_json(field(c, row), c->bytes);
	v = number(c, row);
	if (is_unknown(c, v))
		return json_null();
	if (c->kind == CELL_BOOL)
		return json_boolean(v);
	if (c->kind == CELL_BITS || c->kind == CELL_IDS)
		return json_of_bits(c, v);
	w = c->kind == CELL_WORD ? find_word(c, v) : NULL;
	if (w)
		return json_string(w->word);
	if (c->kind == CELL_MILLICELSIUS)
		return json_integer((int32_t)v);
	/* no counter comes as far as JSON's integers end */
	if (!is_signed(c) && v > INT64_MAX)
		return json_null();
	return json_integer((json_int_t)v);
}

enum tone cell_tone(const struct column *c, const void *row)
{
	const struct word *w = c->kind == CELL_WORD ? find_word(c, number(c, row)) : NULL;

	return w ? w->tone : TONE_PLAIN;
}
