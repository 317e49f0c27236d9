/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/crew.h"

#include "rdma/fail.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct crew {
	crew_fn *prepare, *measure;
	_Atomic unsigned int ready, failed;
	_Atomic int go; /* 1: measure, -1: leave */
};

struct hand {
	struct crew *crew;
	void *member;
	pthread_t thread;
	int rc;
};

static void *hand_main(void *arg)
{
	struct hand *h = arg;
	struct crew *crew = h->crew;

	h->rc = crew->prepare(h->member);
	if (h->rc)
		crew->failed++;
	crew->ready++;
	while (!crew->go)
		sched_yield();
	if (crew->go > 0)
		h->rc = crew->measure(h->member);
	return NULL;
}

int crew_run(void *members, size_t size, unsigned int n, crew_fn *prepare, crew_fn *measure,
	     struct pst_error *err)
{
	struct crew crew = {.prepare = prepare, .measure = measure};
	struct hand *hand = calloc(n, sizeof(*hand));
	unsigned int started = 0;
	int rc = 0;

	if (!hand)
		return pst_fail(err, -ENOMEM, "out of memory");
	for (; !rc && started < n; started += !rc) {
		hand[started].crew = &crew;
		hand[started].member = (char *)members + started * size;
		rc = -pthread_create(&hand[started].thread, NULL, hand_main, &hand[started]);
	}
	if (rc)
		pst_fail(err, rc, "starting %u threads: %s (ulimit -u)", n, strerror(-rc));
	while (crew.ready < started)
		sched_yield();
	crew.go = rc || crew.failed ? -1 : 1;
	for (unsigned int i = 0; i < started; i++) {
		pthread_join(hand[i].thread, NULL);
		rc = rc ? rc : hand[i].rc;
	}
	free(hand);
	return rc;
}
