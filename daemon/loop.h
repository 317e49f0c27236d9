/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - penstockd's one thread: files to look at, times to come, and nothing that waits.
 *
 * The model
 *   source  a descriptor and who is told when it can be read or written. Its
 *           owner embeds it, and closes the descriptor after taking it out.
 *   timer   who is told once, at a time. Embedded too.
 *
 * Threads: one. A callback may take out and free any source or timer, its own too, and end
 * the loop.
 */
#ifndef DAEMON_LOOP_H
#define DAEMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct loop;

struct loop_source {
	int fd;
	void (*ready)(struct loop_source *src, uint32_t events); /* EPOLLIN, ... */
	bool in;
};

struct loop_timer {
	void (*fire)(struct loop_timer *timer);
	int64_t at_ms;
	bool in;
	TAILQ_ENTRY(loop_timer) on_loop;
};

int loop_new(struct loop **out);
void loop_free(struct loop *loop); /* NULL is fine */

/* CLOCK_MONOTONIC */
int64_t loop_now_ms(void);

/* @events: EPOLLIN, EPOLLOUT; again with other ones to change them. 0 or -errno. */
int loop_watch(struct loop *loop, struct loop_source *src, uint32_t events);
void loop_unwatch(struct loop *loop, struct loop_source *src); /* one that is not in is fine */

/* One that is in already is moved. */
void loop_after(struct loop *loop, struct loop_timer *timer, int ms);
void loop_cancel(struct loop *loop, struct loop_timer *timer); /* one that is not in is fine */

/* Until loop_end(): 0, or -errno. */
int loop_run(struct loop *loop);
void loop_end(struct loop *loop);

#endif /* DAEMON_LOOP_H */
