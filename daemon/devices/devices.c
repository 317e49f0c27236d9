/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/devices/device.h"

#include "daemon/events.h"
#include "daemon/keep/keep.h"
#include "daemon/log.h"
#include "daemon/devices/nvml.h"
#include "rdma/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What was read this long ago is new enough. */
#define FRESH_MS 100
/* How often the health of devices that tell of themselves is looked at. */
#define LOOK_MS 1000

#define KEPT "device-"

struct devices {
	struct penstockd *d;
	struct device **dev; /* in the order of their ids, which begin at 1 */
	uint32_t n, kinds[3];
	struct gpus *gpus;
	struct loop_timer timer;
};

static void all_unknown(struct pst_cmd_device_stat *s)
{
	*s = (struct pst_cmd_device_stat){
		.out_node = PST_ANY,
		.out_cores = PST_UNKNOWN32,
		.out_load = PST_UNKNOWN32,
		.out_memory_bytes = PST_UNKNOWN,
		.out_memory_used = PST_UNKNOWN,
		.out_energy_uj = PST_UNKNOWN,
		.out_power_mw = PST_UNKNOWN32,
		.out_cap_mw = PST_UNKNOWN32,
		.out_cap_min_mw = PST_UNKNOWN32,
		.out_cap_max_mw = PST_UNKNOWN32,
		.out_clock_mhz = PST_UNKNOWN32,
		.out_clock_min_mhz = PST_UNKNOWN32,
		.out_clock_max_mhz = PST_UNKNOWN32,
		.out_memory_clock_mhz = PST_UNKNOWN32,
		.out_temperature_mc = PST_UNKNOWN32,
		.out_ecc_corrected = PST_UNKNOWN,
		.out_ecc_uncorrected = PST_UNKNOWN,
	};
}

int devices_add(struct devices *devices, struct device *dev, const struct device_ops *ops, int node,
		uint32_t cores)
{
	struct device **more = realloc(devices->dev, (devices->n + 1) * sizeof(struct device *));

	if (!more)
		return -ENOMEM;
	devices->dev = more;
	more[devices->n++] = dev;
	dev->ops = ops;
	dev->id = devices->n;
	dev->place = (struct device_place){ops->kind, devices->kinds[ops->kind]++, node, cores};
	all_unknown(&dev->still);
	dev->still.id = dev->id;
	dev->still.out_kind = ops->kind;
	dev->still.out_node = node;
	dev->still.out_cores = cores;
	return 0;
}

/* Reading. */

static const char *health_word(uint32_t health)
{
	static const char *const word[] = {"well again", "slower than it could be", "degraded",
					   "lost"};

	return word[health];
}

void devices_look(struct devices *devices, struct device *dev, bool wait)
{
	struct pst_cmd_device_stat now = dev->still;

	if (!dev->ops->read(dev, wait, &now))
		return;
	dev->last = now;
	dev->read_ms = loop_now_ms();
	if (now.out_health == dev->health)
		return;
	dev->health = now.out_health;
	events_emit(devices->d->events, PST_EVENT_DEVICE, dev->id, now.out_health,
		    "%s:%u is %s%s%s", dev->ops->name, dev->place.index,
		    health_word(now.out_health), now.out_note[0] ? ": " : "",
		    (const char *)now.out_note);
}

static void look_at_all(struct loop_timer *timer)
{
	struct devices *devices =
		(struct devices *)((char *)timer - offsetof(struct devices, timer));

	for (uint32_t i = 0; i < devices->n; i++)
		devices_look(devices, devices->dev[i], false);
	loop_after(devices->d->loop, timer, LOOK_MS);
}

uint32_t devices_count(const struct devices *devices)
{
	return devices->n;
}

int devices_stat(struct devices *devices, bool next, struct pst_cmd_device_stat *io)
{
	uint32_t size = io->size, flags = io->flags;
	struct device *dev;

	if (next ? io->id >= devices->n : !io->id || io->id > devices->n)
		return -ENOENT;
	dev = devices->dev[next ? io->id : io->id - 1];
	if (!dev->read_ms || loop_now_ms() - dev->read_ms >= FRESH_MS)
		devices_look(devices, dev, true);
	*io = dev->last;
	io->size = size;
	io->flags = flags;
	return 0;
}

int devices_find(const struct devices *devices, const char *name, uint32_t *id)
{
	char is[32];

	for (uint32_t i = 0; i < devices->n; i++) {
		const struct device *dev = devices->dev[i];

		snprintf(is, sizeof(is), "%s:%u", dev->ops->name, dev->place.index);
		if (!strcmp(is, name)) {
			*id = dev->id;
			return 0;
		}
	}
	return -ENOENT;
}

int devices_place(const struct devices *devices, uint32_t id, struct device_place *out)
{
	if (!id || id > devices->n)
		return -ENOENT;
	*out = devices->dev[id - 1]->place;
	return 0;
}

/* What was found, from before the first change until it is put back. */

/*
 * Named by what tells it from the others and not by its id: the next daemon may count otherwise.
 * What was found may be long (files of each core), so it is in the descriptor.
 */
static void kept_name(const struct device *dev, char name[32])
{
	const char *uuid = (const char *)dev->still.out_uuid;
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
	char is[96];

	if (*uuid)
		snprintf(is, sizeof(is), "%s:%s", dev->ops->name, uuid);
	else
		snprintf(is, sizeof(is), "%s:%u", dev->ops->name, dev->place.index);
	for (const char *c = is; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
	snprintf(name, 32, KEPT "%016" PRIx64, hash);
}

static int keep_found(struct devices *devices, struct device *dev, const json_t *found,
		      struct pst_error *err)
{
	int fd = memfd_create("device", MFD_CLOEXEC), rc = 0;
	json_t *about =
		json_pack("{s:s, s:i}", "kind", dev->ops->name, "index", (int)dev->place.index);
	char name[32];

	if (fd < 0 || !about || json_dumpfd(found, fd, JSON_COMPACT))
		rc = pst_fail(err, -ENOMEM, "%s:%u: no memory to remember how it was set",
			      dev->ops->name, dev->place.index);
	kept_name(dev, name);
	if (!rc)
		rc = keep_put(devices->d->keep, name, fd, about, err);
	json_decref(about);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void forget_found(struct devices *devices, struct device *dev)
{
	char name[32];

	kept_name(dev, name);
	keep_drop(devices->d->keep, name);
	json_decref(dev->found);
	dev->found = NULL;
}

/* What an earlier daemon found is what will be put back, not what it left. */
static void take_kept(void *ctx, const char *kept, int fd, json_t *about)
{
	struct devices *devices = ctx;
	json_t *found = NULL;
	char name[32];

	if (!lseek(fd, 0, SEEK_SET))
		found = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	close(fd);
	for (uint32_t i = 0; json_is_object(found) && i < devices->n; i++) {
		struct device *dev = devices->dev[i];

		kept_name(dev, name);
		if (dev->found || strcmp(name, kept))
			continue;
		dev->found = found;
		if (dev->ops->adopt)
			dev->ops->adopt(dev, found);
		return;
	}
	json_decref(found);
	log_line(LOG_WARNING, NULL,
		 "an earlier daemon has set %s:%lld, which cannot be put back: it is not here",
		 json_string_value(json_object_get(about, "kind")) ?: "device",
		 (long long)json_integer_value(json_object_get(about, "index")));
}

static int put_back(struct devices *devices, struct device *dev, struct pst_error *err)
{
	int rc;

	if (!dev->found)
		return 0;
	rc = dev->ops->put_back(dev, dev->found, err);
	dev->read_ms = 0;
	if (!rc)
		forget_found(devices, dev);
	return rc;
}

/* Setting. */

static int well_formed(const struct pst_cmd_device_power *how, struct pst_error *err)
{
	const uint32_t all = PST_DEVICE_POWER_CAP | PST_DEVICE_POWER_CLOCK | PST_DEVICE_POWER_RESET;
	bool cap = how->flags & PST_DEVICE_POWER_CAP, clock = how->flags & PST_DEVICE_POWER_CLOCK;

	if (!how->flags || how->flags & ~all)
		return pst_fail(err, -EINVAL, "power: say a cap, a range of clocks, or reset");
	if (how->flags & PST_DEVICE_POWER_RESET && how->flags != PST_DEVICE_POWER_RESET)
		return pst_fail(err, -EINVAL, "power: a reset goes alone; set anew after it");
	if ((!cap && how->cap_mw) || (!clock && (how->clock_min_mhz || how->clock_max_mhz)))
		return pst_fail(err, -EINVAL, "power: a value without its flag");
	if (cap && !how->cap_mw)
		return pst_fail(err, -EINVAL, "power: a cap of 0 W; to lift it, reset");
	if (clock && (!how->clock_max_mhz || how->clock_min_mhz > how->clock_max_mhz))
		return pst_fail(err, -EINVAL, "power: no clock is between %u and %u MHz",
				how->clock_min_mhz, how->clock_max_mhz);
	return 0;
}

/* What is found is remembered before anything is changed: we may be killed in between. */
static int change(struct devices *devices, struct device *dev,
		  const struct pst_cmd_device_power *how, struct pst_error *err)
{
	json_t *found = dev->found ? json_deep_copy(dev->found) : json_object();
	int rc = found ? 0 : pst_fail(err, -ENOMEM, "power: no memory");

	if (!rc)
		rc = dev->ops->find(dev, how, found, err);
	if (!rc)
		rc = keep_found(devices, dev, found, err);
	if (rc) {
		json_decref(found);
		return rc;
	}
	rc = dev->ops->set(dev, how, err);
	dev->read_ms = 0;
	if (rc && rc != -ETIMEDOUT) {
		json_decref(found);
		if (!dev->found)
			forget_found(devices, dev);
		return rc;
	}
	json_decref(dev->found);
	dev->found = found;
	return rc;
}

int devices_power(struct devices *devices, const struct pst_cmd_device_power *how,
		  struct pst_error *err)
{
	struct device *dev;
	int rc;

	if (!how->id || how->id > devices->n)
		return pst_fail(err, -ENOENT, "power: there is no device %u", how->id);
	dev = devices->dev[how->id - 1];
	rc = well_formed(how, err);
	if (rc)
		return rc;
	if (how->flags & PST_DEVICE_POWER_RESET)
		return put_back(devices, dev, err);
	rc = dev->ops->check(dev, how, err);
	return rc ? rc : change(devices, dev, how, err);
}

/* Beginning and end. */

void devices_close(struct devices *devices)
{
	if (!devices)
		return;
	loop_cancel(devices->d->loop, &devices->timer);
	for (uint32_t i = 0; i < devices->n; i++) {
		struct device *dev = devices->dev[i];
		struct pst_error err = {0};

		/* what cannot be put back now stays with the keeper, for the next daemon */
		if (put_back(devices, dev, &err))
			log_line(LOG_ERR, NULL, "%s:%u stays as it was set: %s", dev->ops->name,
				 dev->place.index, err.text);
		json_decref(dev->found);
		dev->found = NULL;
	}
	for (uint32_t i = 0; i < devices->n; i++)
		if (devices->dev[i]->ops->free)
			devices->dev[i]->ops->free(devices->dev[i]);
	device_gpus_close(devices->gpus);
	free(devices->dev);
	free(devices);
}

int devices_open_in(struct penstockd *d, const struct device_world *world, struct devices **out,
		    struct pst_error *err)
{
	struct devices *devices = calloc(1, sizeof(*devices));
	int rc;

	if (!devices)
		return pst_fail(err, -ENOMEM, "devices: no memory");
	devices->d = d;
	devices->timer.fire = look_at_all;
	rc = device_cpus_open(devices, world, err);
	if (!rc)
		rc = device_gpus_open(devices, d, world, &devices->gpus, err);
	if (rc) {
		devices_close(devices);
		return rc;
	}
	keep_each(d->keep, KEPT, take_kept, devices);
	loop_after(d->loop, &devices->timer, LOOK_MS);
	*out = devices;
	return 0;
}

int devices_open(struct penstockd *d, struct devices **out, struct pst_error *err)
{
	static const struct device_world here = {
		.root = "", .nvml = NVML_LIBRARY, .times = DEVICE_TIMES};

	return devices_open_in(d, &here, out, err);
}
