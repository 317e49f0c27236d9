/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - inside of devices.h: what a kind of device does, and what it reads.
 *
 * The model
 *   world   where devices are looked for: the machine, or a made-up one in a test
 *   device  one of a kind, embedded in what its kind needs besides
 *   found   what the device was set to before the daemon changed it, as a JSON object that
 *           its kind makes and understands: the next daemon gets it through keep.h
 *
 * Threads: the loop's; a GPU has one of its own, behind device_gpu.c.
 */
#ifndef DAEMON_DEVICE_H
#define DAEMON_DEVICE_H

#include "daemon/devices/devices.h"

#include <jansson.h>
#include <limits.h>
#include <sched.h>

/* What a GPU's driver is given, in ms; DEVICE_TIMES but in tests. */
struct device_times {
	int start; /* to begin */
	int read;  /* between two reads */
	int event; /* for one wait for events, and so until the end is seen */
	int wish;  /* to set something */
	int old;   /* until it is said how old its figures are */
	int deaf;  /* until it is said that it is lost */
};
#define DEVICE_TIMES                                \
	{                                           \
		10000, 1000, 200, 2000, 2000, 10000 \
	}

struct device_world {
	const char *root;	  /* before /sys and /proc: "" but in tests */
	const char *nvml;	  /* library */
	const cpu_set_t *allowed; /* cores that may be used; NULL: those of the process */
	struct device_times times;
};

/* devices_open() over @world, which must stay. */
int devices_open_in(struct penstockd *d, const struct device_world *world, struct devices **out,
		    struct pst_error *err);

struct device;

struct device_ops {
	uint32_t kind;
	const char *name; /* "cpu" */
	/*
	 * Fill what is known into @out, which begins as dev->still. With @wait it may take
	 * 50 ms, without it none. False: there is nothing new without waiting.
	 */
	bool (*read)(struct device *dev, bool wait, struct pst_cmd_device_stat *out);
	/* Is @how possible? -ENODEV, -ERANGE. Nothing is changed. */
	int (*check)(struct device *dev, const struct pst_cmd_device_power *how,
		     struct pst_error *err);
	/* Add to @found what @how would change, where it does not have it. */
	int (*find)(struct device *dev, const struct pst_cmd_device_power *how, json_t *found,
		    struct pst_error *err);
	/* All of @how or nothing. */
	int (*set)(struct device *dev, const struct pst_cmd_device_power *how,
		   struct pst_error *err);
	int (*put_back)(struct device *dev, const json_t *found, struct pst_error *err);
	/* An earlier daemon changed it: what it found. Optional. */
	void (*adopt)(struct device *dev, const json_t *found);
	void (*free)(struct device *dev);
};

struct device {
	const struct device_ops *ops;
	uint32_t id;
	struct device_place place;
	struct pst_cmd_device_stat still; /* unknown figures, and what never changes */
	struct pst_cmd_device_stat last;  /* as it was read at @read_ms; 0: not yet */
	int64_t read_ms;
	uint32_t health; /* that was told last */
	json_t *found;	 /* NULL: nothing was changed */
};

/* Give @dev its id and place and all unknown figures; the caller fills in what it knows. */
int devices_add(struct devices *devices, struct device *dev, const struct device_ops *ops, int node,
		uint32_t cores);
/* Read @dev now and tell a change of its health. */
void devices_look(struct devices *devices, struct device *dev, bool wait);

int device_cpus_open(struct devices *devices, const struct device_world *world,
		     struct pst_error *err);

/* GPUs share a library and the thread that waits for its events. No GPU is no error: *out NULL. */
struct gpus;
int device_gpus_open(struct devices *devices, struct penstockd *d, const struct device_world *world,
		     struct gpus **out, struct pst_error *err);
/* Before the devices are freed; NULL is fine. Those whose driver hangs are left to the end of the
 * process. */
void device_gpus_close(struct gpus *gpus);

/* device_read.c: files of /sys and /proc, under the root; paths as printf makes them. */

/* Text without white space at its end: its length or -errno; then @to is empty. */
__attribute__((format(printf, 4, 5))) int device_text(const char *root, char *to, size_t size,
						      const char *fmt, ...);
/* A whole number, or PST_UNKNOWN. */
__attribute__((format(printf, 2, 3))) uint64_t device_number(const char *root, const char *fmt,
							     ...);
/* The number after "@name" in text of lines; or PST_UNKNOWN. */
uint64_t device_field(const char *text, const char *name);
/* A list as the kernel writes it, "0-3,8"; -EINVAL. */
int device_cpulist(const char *list, cpu_set_t *out);
int device_write(const char *root, const char *path, const char *value);

static inline uint32_t device_u32(uint64_t v)
{
	return v < PST_UNKNOWN32 ? (uint32_t)v : PST_UNKNOWN32;
}

#endif /* DAEMON_DEVICE_H */
