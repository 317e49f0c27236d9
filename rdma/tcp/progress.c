/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread for each cq that drives its sockets while the owner is elsewhere, so
 * that a peer's reads, writes and pings are served. It keeps out of the way:
 *
 *	the owner is in and out		look again every LOOK_MS
 *	the owner sleeps in a call	it drives them itself: park until it has woken up
 *	the owner is away for LOOK_MS	wait for the sockets, and drive them, until it is back
 *
 * It does not hold the lock while it waits, and only ever tries for it, so the
 * owner never waits for longer than one turn takes.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOK_MS 1

void pst_tcp_progress_kick(struct tcp_cq *cq)
{
	const uint64_t one = 1;
	ssize_t n = write(cq->kick, &one, sizeof(one));

	(void)n; /* -EAGAIN: it is kicked already */
}

/* Wait for a kick, and with @sockets for them too. */
static void wait_for(struct tcp_cq *cq, bool sockets, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = cq->kick, .events = POLLIN},
			      {.fd = cq->pollfd, .events = POLLIN}};
	uint64_t n;

	if (poll(p, sockets ? 2 : 1, timeout_ms) > 0 && p[0].revents &&
	    read(cq->kick, &n, sizeof(n)) < 0)
		return; /* nothing to read: another wake-up took it */
}

static void park(struct tcp_cq *cq)
{
	/* Either this sees that the owner woke up, or the owner sees this. */
	atomic_store(&cq->parked, true);
	if (atomic_load(&cq->asleep) && !atomic_load(&cq->stop))
		wait_for(cq, false, -1);
	atomic_store(&cq->parked, false);
}

static uint64_t calls(struct tcp_cq *cq)
{
	return atomic_load_explicit(&cq->calls, memory_order_relaxed);
}

/* The owner is away since its call number @last. */
static void stand_in(struct tcp_cq *cq, uint64_t last)
{
	while (calls(cq) == last && !atomic_load(&cq->stop)) {
		int timeout = LOOK_MS;

		if (pthread_mutex_trylock(&cq->lock) == 0) {
			pst_tcp_settle(cq);
			cq->io->turn(cq, 0);
			pst_tcp_settle(cq);
			pst_tcp_tick(cq);
			timeout = pst_tcp_tick_ms(cq);
			pthread_mutex_unlock(&cq->lock);
		} else if (atomic_load(&cq->asleep)) {
			return;
		}
		wait_for(cq, true, timeout);
	}
}

static void *progress(void *arg)
{
	struct tcp_cq *cq = arg;
	uint64_t last = calls(cq);

	while (!atomic_load(&cq->stop)) {
		uint64_t now;

		wait_for(cq, false, LOOK_MS);
		now = calls(cq);
		if (now != last)
			last = now;
		else if (atomic_load(&cq->asleep))
			park(cq);
		else
			stand_in(cq, last);
	}
	return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(struct tcp_cq *cq)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&cq->thread, NULL, progress, cq);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int pst_tcp_progress_start(struct tcp_cq *cq)
{
	int rc;

	cq->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (cq->kick < 0)
		return -errno;
	rc = start_thread(cq);
	if (rc)
		close(cq->kick);
	return rc;
}

void pst_tcp_progress_stop(struct tcp_cq *cq)
{
	atomic_store(&cq->stop, true);
	pst_tcp_progress_kick(cq);
	pthread_join(cq->thread, NULL);
	close(cq->kick);
}
