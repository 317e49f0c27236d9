/* SPDX-License-Identifier: Apache-2.0 */
/*
 * screen.h - the whole terminal, for a view that is drawn again and again.
 *
 * screen_open() goes to the alternate screen without echo and line editing. However the process
 * ends, the terminal is as it was: by screen_close(), by a signal that ends it, and while it is
 * stopped (^Z) too. Keys that make signals go on making them. One screen at a time.
 *
 * A frame is drawn whole: screen_line() for each line, then screen_show(). What a line lacks is
 * blank, what is too much is cut off.
 */
#ifndef CTL_SCREEN_H
#define CTL_SCREEN_H

#include "tools/ctl/cell.h"

#include <stdbool.h>

/* Standard input and output are one terminal that can do it. */
bool screen_possible(void);
/* 0 or -errno. */
int screen_open(void);
void screen_close(void);
/* As they are now. */
void screen_size(unsigned int *width, unsigned int *height);

/* @clean text at line @y, counted from 0, in a screen @width wide. */
void screen_line(unsigned int y, unsigned int width, const char *clean, enum tone tone);
void screen_show(void);

/*
 * Wait for a key: its code; 0: @ms are over; -EINTR: the terminal has another size or was given
 * back after a stop, so everything has to be drawn again; -EIO: it is gone.
 */
int screen_key(int ms);

#endif /* CTL_SCREEN_H */
