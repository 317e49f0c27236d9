/* SPDX-License-Identifier: Apache-2.0 */
/* GPUs as devices: the loop's side. It makes no call of the driver, and so cannot hang in one. */
#include "daemon/devices/device_gpu.h"

#include "daemon/events.h"
#include "daemon/log.h"
#include "rdma/fail.h"

#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How long the end waits for threads that are not stuck. */
#define LEAVE_MS 1000

/* Its health, from what was read, how old that is, and the XIDs that came. */

static void say(struct pst_cmd_device_stat *out, uint32_t health, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The worst is said; of two as bad the first. */
static void say(struct pst_cmd_device_stat *out, uint32_t health, const char *fmt, ...)
{
	va_list ap;

	if (out->out_note[0] && health <= out->out_health)
		return;
	out->out_health = health;
	va_start(ap, fmt);
	vsnprintf((char *)out->out_note, sizeof(out->out_note), fmt, ap);
	va_end(ap);
}

static void judge_age(const struct device_times *t, int64_t age_ms, struct pst_cmd_device_stat *out)
{
	if (age_ms >= t->deaf)
		say(out, PST_HEALTH_LOST,
		    "the driver has not answered for %lld s, the figures are that old; if it goes "
		    "on, restart the host",
		    (long long)age_ms / 1000);
	else if (age_ms >= t->old)
		say(out, out->out_health,
		    "the driver has not answered for %lld s, the figures are that old",
		    (long long)age_ms / 1000);
}

static const char *why_slow(uint64_t slow)
{
	if (slow & NVML_SLOW_HW_THERMAL || slow & NVML_SLOW_SW_THERMAL)
		return "it is slowed down because of heat; look at fans and air";
	if (slow & NVML_SLOW_POWER_BRAKE)
		return "it is slowed down by the host's power brake; look at the power supply";
	if (slow & NVML_SLOW_HW)
		return "it is slowed down by its hardware (heat or power)";
	if (slow & NVML_SLOW_SW_POWER)
		return "it is slowed down by its power cap; penstockctl power raises it";
	return NULL;
}

static void judge(struct gpu *g, int rc, uint64_t slow, int64_t age_ms,
		  struct pst_cmd_device_stat *out)
{
	uint64_t bad = out->out_ecc_uncorrected;

	out->out_xid = (uint32_t)g->xid;
	if (rc)
		say(out, PST_HEALTH_LOST,
		    "the driver says: %s; stop penstockd and its workers, then: nvidia-smi "
		    "--gpu-reset -i %u, or restart the host",
		    g->gpus->nvml.ErrorString(rc), g->index);
	judge_age(&g->gpus->times, age_ms, out);
	if (g->worst)
		say(out, g->worst->health, "XID %llu: %s; %s", (unsigned long long)g->xid,
		    g->worst->what, g->worst->mend);
	if (bad && bad != PST_UNKNOWN)
		say(out, PST_HEALTH_DEGRADED,
		    "%llu ECC errors that were not corrected; drain its workers and reset it",
		    (unsigned long long)bad);
	if (why_slow(slow))
		say(out, PST_HEALTH_THROTTLED, "%s", why_slow(slow));
}

/* A new copy, if one comes within GPU_STAT_MS. */
static void ask(struct gpu *g, int64_t now)
{
	int64_t had = g->copy_ms;

	if (now - g->copy_ms < GPU_FRESH_MS && !g->asked && !g->reading_ms)
		return;
	g->asked = true;
	pthread_cond_broadcast(&g->gpus->cond);
	/* one that takes long already is not waited for again */
	while (g->copy_ms == had && !(g->reading_ms && now - g->reading_ms > GPU_STAT_MS))
		if (!gpus_wait(g->gpus, now + GPU_STAT_MS))
			break;
}

static bool gpu_read(struct device *dev, bool wait, struct pst_cmd_device_stat *out)
{
	struct gpu *g = (struct gpu *)dev;
	int64_t now = loop_now_ms(), age;
	uint64_t slow;
	int rc;

	pthread_mutex_lock(&g->gpus->lock);
	if (wait)
		ask(g, now);
	*out = g->copy;
	rc = g->rc;
	slow = g->slow;
	/* of a call that hangs we know that it is no answer since it began */
	age = loop_now_ms() - (g->copy_ms ? g->copy_ms : g->born_ms);
	pthread_mutex_unlock(&g->gpus->lock);
	/* lost, and back: whatever it had, it has been reset */
	if (g->was_lost && !rc)
		g->worst = NULL;
	g->was_lost = rc != 0;
	if (g->clock_max) {
		out->out_clock_min_mhz = g->clock_min;
		out->out_clock_max_mhz = g->clock_max;
	}
	judge(g, rc, slow, age, out);
	return true;
}

/* Setting. */

static int why_not(const struct gpu *g, int rc, const char *what, struct pst_error *err)
{
	unsigned int i = g->dev.place.index;

	switch (rc) {
	case NVML_SUCCESS:
		return 0;
	case WISH_PENDING:
		return pst_fail(err, -ETIMEDOUT,
				"gpu:%u: the driver has not answered for %d s; %s may yet be done",
				i, g->gpus->times.wish / 1000, what);
	case NVML_ERROR_NO_PERMISSION:
		return pst_fail(err, -EPERM,
				"gpu:%u: the driver lets root only set %s; run penstockd as root",
				i, what);
	case NVML_ERROR_INVALID_ARGUMENT:
		return pst_fail(err, -ERANGE, "gpu:%u: the driver does not take this for %s", i,
				what);
	case NVML_ERROR_NOT_SUPPORTED:
		return pst_fail(err, -ENODEV, "gpu:%u has no %s that can be set", i, what);
	default:
		return pst_fail(err, -EIO, "gpu:%u: %s could not be set; the driver says: %s", i,
				what, g->gpus->nvml.ErrorString(rc));
	}
}

static int wish(struct gpu *g, enum gpu_wish what, uint32_t a, uint32_t b, const char *name,
		struct pst_error *err)
{
	int64_t until = loop_now_ms() + g->gpus->times.wish;
	int rc;

	pthread_mutex_lock(&g->gpus->lock);
	g->wish = what;
	g->wish_a = a;
	g->wish_b = b;
	g->wishes++;
	g->wish_rc = WISH_PENDING;
	pthread_cond_broadcast(&g->gpus->cond);
	while (g->wish_rc == WISH_PENDING && gpus_wait(g->gpus, until))
		;
	rc = g->wish_rc;
	/* one that was not begun will not be */
	if (rc == WISH_PENDING)
		g->wish = WISH_NONE;
	pthread_mutex_unlock(&g->gpus->lock);
	return why_not(g, rc, name, err);
}

static int out_of(const struct gpu *g, const char *what, uint32_t min, uint32_t max, uint32_t unit,
		  const char *unit_name, struct pst_error *err)
{
	return pst_fail(err, -ERANGE, "gpu:%u takes a %s from %u to %u %s", g->dev.place.index,
			what, min == PST_UNKNOWN32 ? 0 : min / unit, max / unit, unit_name);
}

static int gpu_check(struct device *dev, const struct pst_cmd_device_power *how,
		     struct pst_error *err)
{
	const struct gpu *g = (const struct gpu *)dev;
	const struct pst_cmd_device_stat *s = &dev->still;
	const struct nvml *nvml = &g->gpus->nvml;

	if (how->flags & PST_DEVICE_POWER_CAP) {
		if (!nvml->DeviceSetPowerManagementLimit || !nvml->DeviceGetPowerManagementLimit)
			return why_not(g, NVML_ERROR_NOT_SUPPORTED, "cap", err);
		if (s->out_cap_max_mw != PST_UNKNOWN32 &&
		    (how->cap_mw < s->out_cap_min_mw || how->cap_mw > s->out_cap_max_mw))
			return out_of(g, "cap", s->out_cap_min_mw, s->out_cap_max_mw, 1000, "W",
				      err);
	}
	if (how->flags & PST_DEVICE_POWER_CLOCK) {
		if (!nvml->DeviceSetGpuLockedClocks || !nvml->DeviceResetGpuLockedClocks)
			return why_not(g, NVML_ERROR_NOT_SUPPORTED, "clock", err);
		if ((s->out_clock_min_mhz != PST_UNKNOWN32 &&
		     how->clock_min_mhz < s->out_clock_min_mhz) ||
		    how->clock_max_mhz > s->out_clock_max_mhz)
			return out_of(g, "clock", s->out_clock_min_mhz, s->out_clock_max_mhz, 1,
				      "MHz", err);
	}
	return 0;
}

/* NVML tells the cap that was set, but not a range of clocks: that is set free in the end. */
static int gpu_find(struct device *dev, const struct pst_cmd_device_power *how, json_t *found,
		    struct pst_error *err)
{
	struct gpu *g = (struct gpu *)dev;
	uint32_t cap;
	int rc = 0;

	pthread_mutex_lock(&g->gpus->lock);
	cap = g->copy_ms ? g->copy.out_cap_mw : PST_UNKNOWN32;
	pthread_mutex_unlock(&g->gpus->lock);
	if (how->flags & PST_DEVICE_POWER_CAP && !json_object_get(found, "cap_mw")) {
		if (cap == PST_UNKNOWN32)
			return why_not(g, NVML_ERROR_NOT_SUPPORTED, "cap", err);
		rc = json_object_set_new(found, "cap_mw", json_integer(cap));
	}
	if (how->flags & PST_DEVICE_POWER_CLOCK) {
		rc |= json_object_set_new(found, "clock_min_mhz", json_integer(how->clock_min_mhz));
		rc |= json_object_set_new(found, "clock_max_mhz", json_integer(how->clock_max_mhz));
	}
	return rc ? pst_fail(err, -ENOMEM, "power: no memory") : 0;
}

static int gpu_set(struct device *dev, const struct pst_cmd_device_power *how,
		   struct pst_error *err)
{
	struct gpu *g = (struct gpu *)dev;
	uint32_t before;
	int rc;

	pthread_mutex_lock(&g->gpus->lock);
	before = g->copy.out_cap_mw;
	pthread_mutex_unlock(&g->gpus->lock);
	if (how->flags & PST_DEVICE_POWER_CAP) {
		rc = wish(g, WISH_CAP, how->cap_mw, 0, "cap", err);
		if (rc)
			return rc;
	}
	if (!(how->flags & PST_DEVICE_POWER_CLOCK))
		return 0;
	rc = wish(g, WISH_CLOCK, how->clock_min_mhz, how->clock_max_mhz, "clock", err);
	if (!rc) {
		g->clock_min = how->clock_min_mhz;
		g->clock_max = how->clock_max_mhz;
	} else if (how->flags & PST_DEVICE_POWER_CAP && rc != -ETIMEDOUT) {
		wish(g, WISH_CAP, before, 0, "cap", NULL);
	}
	return rc;
}

static int gpu_put_back(struct device *dev, const json_t *found, struct pst_error *err)
{
	struct gpu *g = (struct gpu *)dev;
	const json_t *cap = json_object_get(found, "cap_mw");
	int rc = 0, rc2 = 0;

	if (json_object_get(found, "clock_max_mhz"))
		rc = wish(g, WISH_UNLOCK, 0, 0, "clock", err);
	if (!rc)
		g->clock_min = g->clock_max = 0;
	if (json_is_integer(cap) && rc != -ETIMEDOUT)
		rc2 = wish(g, WISH_CAP, (uint32_t)json_integer_value(cap), 0, "cap", err);
	return rc ? rc : rc2;
}

static void gpu_adopt(struct device *dev, const json_t *found)
{
	struct gpu *g = (struct gpu *)dev;

	g->clock_min = (uint32_t)json_integer_value(json_object_get(found, "clock_min_mhz"));
	g->clock_max = (uint32_t)json_integer_value(json_object_get(found, "clock_max_mhz"));
}

static const struct device_ops gpu_ops = {
	.kind = PST_DEVICE_GPU,
	.name = "gpu",
	.read = gpu_read,
	.check = gpu_check,
	.find = gpu_find,
	.set = gpu_set,
	.put_back = gpu_put_back,
	.adopt = gpu_adopt,
};

/* News from the threads. */

static void take_xid(struct gpus *gpus, struct gpu *g, uint64_t xid)
{
	const struct gpu_xid *x = gpu_xid(xid);

	g->xid = xid;
	if (x->health != PST_HEALTH_OK && (!g->worst || x->health >= g->worst->health))
		g->worst = x;
	events_emit(gpus->d->events, PST_EVENT_XID, g->dev.id, (int64_t)xid,
		    "gpu:%u: XID %llu: %s%s%s", g->dev.place.index, (unsigned long long)xid,
		    x->what, x->mend[0] ? "; " : "", x->mend);
}

static void news(struct loop_source *src, uint32_t events)
{
	struct gpus *gpus = (struct gpus *)((char *)src - offsetof(struct gpus, wake));
	eventfd_t n;

	(void)events;
	if (eventfd_read(src->fd, &n))
		return;
	for (;;) {
		struct gpu *g = NULL;
		uint64_t xid = 0;

		pthread_mutex_lock(&gpus->lock);
		if (gpus->ntold) {
			g = gpus->told[0].gpu;
			xid = gpus->told[0].xid;
			memmove(gpus->told, gpus->told + 1, --gpus->ntold * sizeof(*gpus->told));
		}
		pthread_mutex_unlock(&gpus->lock);
		if (!g)
			break;
		take_xid(gpus, g, xid);
	}
	for (unsigned int i = 0; i < gpus->n; i++)
		devices_look(gpus->devices, &gpus->gpu[i]->dev, false);
}

/* Beginning and end. */

void device_gpus_close(struct gpus *gpus)
{
	int64_t until = loop_now_ms() + LEAVE_MS;

	if (!gpus)
		return;
	if (gpus->d && gpus->wake.in)
		loop_unwatch(gpus->d->loop, &gpus->wake);
	pthread_mutex_lock(&gpus->lock);
	gpus->end = true;
	pthread_cond_broadcast(&gpus->cond);
	while (gpus->threads > 1 && gpus_wait(gpus, until))
		;
	/* the library is left only when nobody can be in it */
	if (gpus->threads == 1 && gpus->nvml.lib && !gpus->start_rc)
		gpus->nvml.Shutdown();
	gpus_leave(gpus);
}

static struct gpus *new_gpus(const struct device_world *world)
{
	struct gpus *gpus = calloc(1, sizeof(*gpus));
	pthread_condattr_t attr;

	if (!gpus)
		return NULL;
	gpus->library = world->nvml;
	gpus->times = world->times;
	snprintf(gpus->root, sizeof(gpus->root), "%s", world->root);
	gpus->start_rc = WISH_PENDING;
	gpus->threads = 1;
	pthread_mutex_init(&gpus->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&gpus->cond, &attr);
	pthread_condattr_destroy(&attr);
	gpus->wake.ready = news;
	gpus->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (gpus->wake.fd < 0) {
		pthread_mutex_lock(&gpus->lock);
		gpus_leave(gpus);
		return NULL;
	}
	return gpus;
}

/* NVIDIA's vendor number, and the class of what computes or shows pictures. */
static bool has_nvidia(const char *root)
{
	char path[PATH_MAX], text[16];
	bool found = false;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices", root);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		if (e->d_name[0] == '.' ||
		    device_text(root, text, sizeof(text), "/sys/bus/pci/devices/%s/vendor",
				e->d_name) <= 0 ||
		    strcmp(text, "0x10de"))
			continue;
		device_text(root, text, sizeof(text), "/sys/bus/pci/devices/%s/class", e->d_name);
		found = !strncmp(text, "0x03", 4);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Without GPUs the daemon does its work; where there should be some, it says why there are none. */
static void say_none(const struct device_world *world, int rc, const char *why)
{
	if (rc != -ENOENT)
		log_line(LOG_WARNING, NULL, "no GPUs: %s", why);
	else if (has_nvidia(world->root))
		log_line(LOG_WARNING, NULL,
			 "no GPUs: there is one by NVIDIA, but no driver (%s); install it: apt-get "
			 "install nvidia-driver, from Debian's non-free, or from NVIDIA",
			 why);
}

static int wait_for_start(struct gpus *gpus, int ms, struct pst_error *why)
{
	int64_t until = loop_now_ms() + ms;
	int rc;

	pthread_mutex_lock(&gpus->lock);
	while (gpus->start_rc == WISH_PENDING && gpus_wait(gpus, until))
		;
	rc = gpus->start_rc;
	*why = gpus->start_err;
	pthread_mutex_unlock(&gpus->lock);
	return rc != WISH_PENDING
		       ? rc
		       : pst_fail(why, -ETIMEDOUT,
				  "NVIDIA's driver has not begun in %d s; look for NVRM in: "
				  "dmesg; then restart penstockd",
				  ms / 1000);
}

static int add_gpu(struct devices *devices, struct gpu *g)
{
	struct pst_cmd_device_stat about = g->copy;
	int rc = devices_add(devices, &g->dev, &gpu_ops, about.out_node, about.out_cores);

	if (rc)
		return rc;
	memcpy(g->dev.still.out_name, about.out_name, sizeof(about.out_name));
	memcpy(g->dev.still.out_uuid, about.out_uuid, sizeof(about.out_uuid));
	g->dev.still.out_cap_min_mw = about.out_cap_min_mw;
	g->dev.still.out_cap_max_mw = about.out_cap_max_mw;
	g->dev.still.out_clock_min_mhz = about.out_clock_min_mhz;
	g->dev.still.out_clock_max_mhz = about.out_clock_max_mhz;
	g->copy = g->dev.still;
	g->born_ms = loop_now_ms();
	return gpu_start_keeper(g);
}

int device_gpus_open(struct devices *devices, struct penstockd *d, const struct device_world *world,
		     struct gpus **out, struct pst_error *err)
{
	struct gpus *gpus = new_gpus(world);
	struct pst_error why = {0};
	int rc;

	if (!gpus)
		return pst_fail(err, -ENOMEM, "devices: no memory");
	rc = gpus_start_waiter(gpus);
	if (rc) {
		device_gpus_close(gpus);
		return pst_fail(err, rc, "devices: a thread could not be started: %s",
				strerror(-rc));
	}
	rc = wait_for_start(gpus, world->times.start, &why);
	if (rc) {
		say_none(world, rc, why.text);
		device_gpus_close(gpus);
		return 0;
	}
	gpus->d = d;
	gpus->devices = devices;
	*out = gpus;
	for (unsigned int i = 0; i < gpus->n && !rc; i++)
		rc = add_gpu(devices, gpus->gpu[i]);
	if (!rc)
		rc = loop_watch(d->loop, &gpus->wake, EPOLLIN);
	return rc ? pst_fail(err, rc, "devices: %s", strerror(-rc)) : 0;
}
