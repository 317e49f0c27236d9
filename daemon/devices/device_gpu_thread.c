/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/devices/device_gpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

bool gpus_wait(struct gpus *gpus, int64_t until_ms)
{
	struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};

	return pthread_cond_timedwait(&gpus->cond, &gpus->lock, &until) != ETIMEDOUT;
}

void gpus_leave(struct gpus *gpus)
{
	bool last = !--gpus->threads;

	pthread_cond_broadcast(&gpus->cond);
	pthread_mutex_unlock(&gpus->lock);
	if (!last)
		return;
	for (unsigned int i = 0; i < gpus->n; i++)
		free(gpus->gpu[i]);
	if (gpus->nvml.lib)
		nvml_close(&gpus->nvml);
	if (gpus->wake.fd >= 0)
		close(gpus->wake.fd);
	pthread_cond_destroy(&gpus->cond);
	pthread_mutex_destroy(&gpus->lock);
	free(gpus);
}

static void wake_loop(const struct gpus *gpus)
{
	/* it is full only if the loop is to be woken already */
	if (eventfd_write(gpus->wake.fd, 1))
		return;
}

/* The keeper. The lock is held, but not during calls. */

static void grant(struct gpu *g)
{
	enum gpu_wish wish = g->wish;
	uint32_t a = g->wish_a, b = g->wish_b, which = g->wishes;
	int rc;

	g->wish = WISH_NONE;
	pthread_mutex_unlock(&g->gpus->lock);
	rc = gpu_wish(g, wish, a, b);
	pthread_mutex_lock(&g->gpus->lock);
	/* else the loop has given it up, and wishes for something else */
	if (which == g->wishes)
		g->wish_rc = rc;
	g->asked = true; /* what was read before is of no worth */
	pthread_cond_broadcast(&g->gpus->cond);
}

static void look(struct gpu *g)
{
	struct pst_cmd_device_stat now = g->dev.still;
	int64_t began = loop_now_ms();
	uint64_t slow = 0;
	int rc;

	g->asked = false;
	g->reading_ms = began;
	pthread_mutex_unlock(&g->gpus->lock);
	rc = gpu_figures(g, &now, &slow);
	pthread_mutex_lock(&g->gpus->lock);
	g->reading_ms = 0;
	g->copy_ms = began;
	/* lost and back are news for the loop at once, figures when it asks */
	if (!g->rc != !rc)
		wake_loop(g->gpus);
	g->rc = rc;
	if (!rc) {
		g->copy = now;
		g->slow = slow;
	}
	pthread_cond_broadcast(&g->gpus->cond);
}

static void *keeper(void *arg)
{
	struct gpu *g = arg;

	pthread_mutex_lock(&g->gpus->lock);
	while (!g->gpus->end) {
		if (g->wish != WISH_NONE)
			grant(g);
		else if (g->asked || !g->copy_ms ||
			 loop_now_ms() - g->copy_ms >= g->gpus->times.read)
			look(g);
		else
			gpus_wait(g->gpus, g->copy_ms + g->gpus->times.read);
	}
	gpus_leave(g->gpus);
	return NULL;
}

/* The waiter. */

static int describe_all(struct gpus *gpus)
{
	unsigned int n = 0;
	int rc = gpus->nvml.DeviceGetCount_v2(&n);

	for (unsigned int i = 0; i < n && i < GPUS && !rc; i++) {
		struct gpu *g = calloc(1, sizeof(*g));

		if (!g)
			return -ENOMEM;
		g->gpus = gpus;
		g->index = i;
		gpus->gpu[gpus->n++] = g;
		/* copied to the device when it has its place among the others */
		g->copy = (struct pst_cmd_device_stat){.out_node = PST_ANY,
						       .out_cores = PST_UNKNOWN32,
						       .out_cap_min_mw = PST_UNKNOWN32,
						       .out_cap_max_mw = PST_UNKNOWN32,
						       .out_clock_min_mhz = PST_UNKNOWN32,
						       .out_clock_max_mhz = PST_UNKNOWN32};
		g->rc = gpu_describe(g, &g->copy);
	}
	return rc;
}

static int begin(struct gpus *gpus, struct pst_error *err)
{
	int rc = nvml_open(gpus->library, &gpus->nvml, err);

	if (rc)
		return rc;
	rc = gpus->nvml.Init_v2();
	if (!rc)
		rc = describe_all(gpus);
	return rc ? pst_fail(err, -EIO, "NVIDIA's driver says: %s",
			     rc < 0 ? "no memory" : gpus->nvml.ErrorString(rc))
		  : 0;
}

static void tell(struct gpus *gpus, const struct nvml_event *e)
{
	pthread_mutex_lock(&gpus->lock);
	for (unsigned int i = 0; i < gpus->n; i++) {
		if (gpus->gpu[i]->handle != e->device)
			continue;
		if (gpus->ntold == sizeof(gpus->told) / sizeof(*gpus->told)) {
			gpus->untold++;
			break;
		}
		gpus->told[gpus->ntold].gpu = gpus->gpu[i];
		gpus->told[gpus->ntold++].xid = e->data;
	}
	pthread_mutex_unlock(&gpus->lock);
	wake_loop(gpus);
}

/* A lost GPU is gone from the set, too: all are registered again when one came back. */
static nvml_event_set new_set(struct gpus *gpus)
{
	const struct nvml *nvml = &gpus->nvml;
	nvml_event_set set;

	if (!nvml->EventSetCreate || !nvml->DeviceRegisterEvents || !nvml->EventSetWait_v2 ||
	    !nvml->EventSetFree || nvml->EventSetCreate(&set))
		return NULL;
	for (unsigned int i = 0; i < gpus->n; i++)
		if (gpus->gpu[i]->handle)
			nvml->DeviceRegisterEvents(gpus->gpu[i]->handle, NVML_EVENT_XID, set);
	return set;
}

static bool ended(struct gpus *gpus)
{
	bool end;

	pthread_mutex_lock(&gpus->lock);
	end = gpus->end;
	pthread_mutex_unlock(&gpus->lock);
	return end;
}

static void wait_for_events(struct gpus *gpus)
{
	nvml_event_set set = new_set(gpus);
	int ms = gpus->times.event;

	while (set && !ended(gpus)) {
		struct nvml_event e;
		int rc = gpus->nvml.EventSetWait_v2(set, &e, (unsigned int)ms);

		if (!rc && e.type == NVML_EVENT_XID)
			tell(gpus, &e);
		else if (rc && rc != NVML_ERROR_TIMEOUT)
			usleep((useconds_t)ms * 1000);
	}
	if (set)
		gpus->nvml.EventSetFree(set);
}

static void *waiter(void *arg)
{
	struct gpus *gpus = arg;
	struct pst_error err = {0};
	int rc = begin(gpus, &err);

	pthread_mutex_lock(&gpus->lock);
	gpus->start_rc = rc;
	gpus->start_err = err;
	pthread_cond_broadcast(&gpus->cond);
	pthread_mutex_unlock(&gpus->lock);
	if (!rc)
		wait_for_events(gpus);
	pthread_mutex_lock(&gpus->lock);
	gpus_leave(gpus);
	return NULL;
}

/* Detached: one whose call of the driver hangs is not waited for. Signals are the loop's. */
static int start(struct gpus *gpus, void *(*run)(void *), void *arg)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&gpus->lock);
	rc = pthread_create(&thread, &attr, run, arg);
	if (!rc)
		gpus->threads++;
	pthread_mutex_unlock(&gpus->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

int gpus_start_waiter(struct gpus *gpus)
{
	return start(gpus, waiter, gpus);
}

int gpu_start_keeper(struct gpu *g)
{
	return start(g->gpus, keeper, g);
}
