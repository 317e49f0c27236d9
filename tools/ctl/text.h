/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - text that others wrote, made harmless for a terminal and right for JSON.
 *
 * Clean text has no control characters, nothing that changes the direction or joins itself to what
 * stands before, and nothing that the locale's terminal cannot show: '?' stands for all of these.
 */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The terminal's locale shows UTF-8. */
bool text_utf8(void);
/* Up to a NUL or @bytes of @raw; @out has room for @bytes + 1. */
void text_clean(char *out, const void *raw, size_t bytes);
/* Columns that clean text takes. */
size_t text_width(const char *clean);
/* Bytes of clean text that fit in @columns. */
size_t text_fit(const char *clean, size_t columns);
/* The same bytes as a string; what is not UTF-8 becomes U+FFFD. NULL: no memory. */
json_t *text_json(const void *raw, size_t bytes);

#endif /* CTL_TEXT_H */
