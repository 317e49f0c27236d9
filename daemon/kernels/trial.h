/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial.h - an image is tried in a process of its own, penstock-trial, that may crash or hang.
 *
 * They have a seqpacket socket: the daemon sends one order with the image and, if
 * what it would replace is an image too, that; the process says before each check what it is
 * about to do, and at the end how it went. Threads: the loop's.
 */
#ifndef DAEMON_TRIAL_H
#define DAEMON_TRIAL_H

#include "daemon/loop.h"

#include <penstock/error.h>
#include <penstock/ioctl.h>

/* Times what it would replace takes, that it may take: machines are noisy. */
#define TRIAL_MARGIN 1.10

enum trial_check {
	TRIAL_BEGIN,  /* nothing of the image has run */
	TRIAL_LOAD,   /* into the process */
	TRIAL_AGREE,  /* with ref */
	TRIAL_INSIDE, /* its buffers it stays */
	TRIAL_SPEED,
	TRIAL_END,
	TRIAL_CHECKS
};

struct trial_order {
	uint32_t size;
	uint32_t slower_ok;
	uint64_t seed;
	uint32_t limit_ms;
	uint32_t before;			   /* 1: a second descriptor comes with it */
	char op[PST_NAME_MAX], name[PST_NAME_MAX]; /* as the manifest says */
};

struct trial_report {
	uint32_t size;
	uint32_t check; /* that begins; TRIAL_END: the last report */
	uint32_t m, n, k;
	uint32_t speed; /* per mille of the time of what it would replace */
	uint64_t error_ppb;
	struct pst_error error; /* of the end: code 0, or why it is refused */
};

struct trial;
typedef void trial_fn(void *ctx, int rc, const struct pst_error *err,
		      const struct trial_report *end);

/*
 * @image and @before (-1: what is built in) stay the caller's. @done is called once, from the
 * loop: 0, or as PST_CMD_KERNEL_LOAD says. -errno: it could not be started, and @done is not
 * called.
 */
int trial_start(struct loop *loop, const struct trial_order *how, int image, int before,
		trial_fn *done, void *ctx, struct trial **out, struct pst_error *err);
void trial_cancel(struct trial *trial); /* @done is not called any more */

#endif /* DAEMON_TRIAL_H */
