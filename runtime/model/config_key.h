/* SPDX-License-Identifier: Apache-2.0 */
/* config_key.h - JSON objects whose every key stands in a table; private to model/. */
#ifndef PST_CONFIG_KEY_H
#define PST_CONFIG_KEY_H

#include <jansson.h>
#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>

enum pst_key_kind {
	PST_KEY_COUNT, /* uint32_t, min to max */
	PST_KEY_RANK,  /* the same, null is 0 */
	PST_KEY_REAL,  /* double, finite, at least min (above 0 if that is 0), at most max */
	PST_KEY_ZREAL, /* the same, but 0 is fine */
	PST_KEY_FLAG,  /* bool */
	PST_KEY_FIXED, /* only the JSON value @want (or null, if @null) is supported */
	PST_KEY_SKIP,  /* cannot change the numbers */
	PST_KEY_OTHER, /* the caller looks at it */
};

struct pst_key {
	const char *name;
	enum pst_key_kind kind;
	bool required, null;
	size_t offset; /* of the field in the caller's struct */
	double min, max;
	const char *want;
};

/*
 * Read @object into @out after @keys; @where is put before a key's name in a
 * sentence. -EINVAL: a key that is unknown, missing, of another type or out of range.
 */
int pst_keys_read(const json_t *object, const struct pst_key *keys, size_t count, const char *where,
		  void *out, struct pst_error *err);

/* A value for a sentence, cut where it is long; returns @buf. */
const char *pst_key_show(const json_t *value, char *buf, size_t size);

#endif /* PST_CONFIG_KEY_H */
