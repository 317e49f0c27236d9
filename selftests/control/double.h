/* SPDX-License-Identifier: Apache-2.0 */
/*
 * double.h - what stands in for a child, and for the parts of a daemon that children.c uses.
 *
 * The test's own program, started under the name of penstock-worker or penstock-ps, is a child
 * that does what $DOUBLE says: "" behaves, others are below. It ends with the test.
 *
 *	crash	ends with status 3 at once
 *	fail	says on its leash why it fails, and ends
 *	mute	says HELLO, then nothing
 *	busy	computes the same for ever
 *	deaf	does not do what it is told
 *	dumb	does not answer
 *	flood	sends beats as fast as it can
 *	break:N	breaks rule N of the leash
 *	port	listens at port 4711 where it was to take a free one
 */
#ifndef TEST_DOUBLE_H
#define TEST_DOUBLE_H

#include "daemon/children/child.h"

#define DOUBLE_RULES 9

/* In main(): is this process a double? Then it does not return. */
void double_main(int argc, char **argv);
/* Put a folder with such programs into $PENSTOCK_BIN. */
void double_install(void);
/* What children that are started from now on do. */
void double_does(const char *what);

/* Entries that the double of keep.h has. */
unsigned int double_kept(void);
/* Change what is known of the first entry: a number of it. */
void double_rewrite(const char *key, json_int_t value);

#endif /* TEST_DOUBLE_H */
