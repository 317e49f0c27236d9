/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/text.h"

#include <langinfo.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

bool text_utf8(void)
{
	return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

/* Length of the UTF-8 character at @p and its code point; 0: it is none. */
static size_t decode(const unsigned char *p, size_t left, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;
	uint32_t v = n == 1 ? *p : *p & (0x7fu >> n);

	if (!n || n > left)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (p[i] & 0x3f);
	}
	if (n > 1 && (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000)))
		return 0;
	*code = v;
	return n;
}

/* Columns of a character, 0: it cannot be shown. */
static size_t columns_of(uint32_t code)
{
	int width;

	if (code < 0x80)
		return code >= 0x20 && code < 0x7f;
	width = text_utf8() ? wcwidth((wchar_t)code) : 0;
	return width > 0 ? (size_t)width : 0;
}

void text_clean(char *out, const void *raw, size_t bytes)
{
	const unsigned char *p = raw;
	size_t left = strnlen(raw, bytes);

	while (left) {
		uint32_t code;
		size_t n = decode(p, left, &code);

		if (n && columns_of(code)) {
			memcpy(out, p, n);
			out += n;
		} else {
			*out++ = '?';
		}
		n = n ? n : 1;
		p += n;
		left -= n;
	}
	*out = 0;
}

size_t text_width(const char *clean)
{
	size_t left = strlen(clean), width = 0, n;
	uint32_t code;

	for (; left; clean += n, left -= n) {
		n = decode((const unsigned char *)clean, left, &code);
		width += n ? columns_of(code) : 1;
		n = n ? n : 1;
	}
	return width;
}

size_t text_fit(const char *clean, size_t columns)
{
	size_t left = strlen(clean), at = 0, n;
	uint32_t code;

	for (; left; at += n, left -= n) {
		size_t width = 1;

		n = decode((const unsigned char *)clean + at, left, &code);
		if (n)
			width = columns_of(code);
		if (width > columns)
			break;
		columns -= width;
		n = n ? n : 1;
	}
	return at;
}

json_t *text_json(const void *raw, size_t bytes)
{
	const unsigned char *p = raw;
	size_t left = strnlen(raw, bytes), n = 0;
	char *whole = malloc(3 * left + 1);
	json_t *out;

	while (whole && left) {
		uint32_t code;
		size_t len = decode(p, left, &code);

		memcpy(whole + n, len ? (const char *)p : "\xef\xbf\xbd", len ? len : 3);
		n += len ? len : 3;
		len = len ? len : 1;
		p += len;
		left -= len;
	}
	out = whole ? json_stringn(whole, n) : NULL;
	free(whole);
	return out;
}
