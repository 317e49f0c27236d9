/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - a made-up machine in the test's folder, and daemon/devices/devices.h over it, in a
 * process that has what devices need of penstockd: a loop, events, a keeper.
 */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include "daemon/devices/device.h"
#include "daemon/events.h"
#include "daemon/keep/keep.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct world {
	struct device_world at;
	cpu_set_t allowed;
	struct penstockd d;
	struct devices *devices;
	int events;
};

static inline void world_put(const char *file, const char *text)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)strlen(text), write(fd, text, strlen(text)));
	close(fd);
}

static inline const char *world_get(const char *file)
{
	static char text[4][256];
	static int turn;

	turn = (turn + 1) % 4;
	device_text(test_tmpdir(), text[turn], sizeof(text[0]), "%s", file);
	return text[turn];
}

static inline void world_drop(const char *file)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	ASSERT_EQ(0, unlink(path));
}

/* Programs of this build are two folders above a test, unless something else was said. */
static inline void world_say_where(void)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = '\0';
	setenv("PENSTOCK_BIN", self, 0);
	unsetenv("FDSTORE");
}

static inline void world_open(struct world *w)
{
	struct pst_error err = {0};
	char socket[PATH_MAX];

	world_say_where();
	w->at.root = test_tmpdir();
	w->at.allowed = &w->allowed;
	if (!w->at.nvml)
		w->at.nvml = "libnone.so.1";
	if (!w->at.times.start)
		w->at.times = (struct device_times){20000, 20, 10, 20000, 20000, 40000};
	snprintf(socket, sizeof(socket), "%s/d.sock", test_tmpdir());
	ASSERT_EQ(0, loop_new(&w->d.loop));
	ASSERT_OK(keep_open(socket, &w->d.keep, &err), &err);
	ASSERT_EQ(0, events_new(w->d.loop, &w->d.events));
	w->events = events_open(w->d.events, 0, 0, 0);
	ASSERT_LE(0, w->events);
	ASSERT_OK(devices_open_in(&w->d, &w->at, &w->devices, &err), &err);
}

static inline void world_close(struct world *w)
{
	devices_close(w->devices);
	close(w->events);
	events_free(w->d.events);
	keep_close(w->d.keep);
	loop_free(w->d.loop);
	w->devices = NULL;
}

struct world_end {
	struct loop_timer timer;
	struct loop *loop;
};

static inline void world_end(struct loop_timer *timer)
{
	loop_end(((struct world_end *)timer)->loop);
}

/* The loop goes round for @ms. */
static inline void world_run(struct world *w, int ms)
{
	struct world_end end = {.timer.fire = world_end, .loop = w->d.loop};

	loop_after(w->d.loop, &end.timer, ms);
	ASSERT_EQ(0, loop_run(w->d.loop));
}

/* The next event, for which the loop goes round as long as it takes. */
static inline struct pst_event world_event(struct world *w)
{
	struct pst_event e = {0};
	struct pollfd p = {w->events, POLLIN, 0};

	while (poll(&p, 1, 0) <= 0)
		world_run(w, 5);
	ASSERT_EQ((ssize_t)sizeof(e), read(w->events, &e, sizeof(e)));
	return e;
}

static inline struct pst_cmd_device_stat world_stat(struct world *w, uint32_t id)
{
	struct pst_cmd_device_stat s = {.size = sizeof(s), .id = id};

	ASSERT_EQ(0, devices_stat(w->devices, false, &s));
	return s;
}

/* Until @cond holds of a fresh struct pst_cmd_device_stat s of device @id. */
#define WORLD_WAIT(w, id, cond)                                   \
	do {                                                      \
		struct pst_cmd_device_stat s = world_stat(w, id); \
		while (!(cond)) {                                 \
			world_run(w, 20);                         \
			s = world_stat(w, id);                    \
		}                                                 \
	} while (0)

static inline int world_power(struct world *w, uint32_t id, uint32_t flags, uint32_t cap_mw,
			      uint32_t min_mhz, uint32_t max_mhz, struct pst_error *err)
{
	struct pst_cmd_device_power p = {sizeof(p), flags, id, cap_mw, min_mhz, max_mhz};

	*err = (struct pst_error){0};
	return devices_power(w->devices, &p, err);
}

#endif /* TEST_WORLD_H */
