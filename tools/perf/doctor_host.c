/* SPDX-License-Identifier: Apache-2.0 */
/* The rest of a machine: clocks, io_uring, sockets, and the key of links. */
#include "rdma/secret.h"
#include "tools/perf/doctor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE "/sys/devices/system/clocksource/clocksource0/"

/* Clocks that are read without entering the kernel. */
static bool fast_clock(const char *name)
{
	static const char *const fast[] = {
		"tsc",	    "kvm-clock",	"hyperv_clocksource_tsc_page", "arch_sys_counter",
		"timebase", "riscv_clocksource"};

	for (size_t i = 0; i < sizeof(fast) / sizeof(*fast); i++)
		if (!strcmp(name, fast[i]))
			return true;
	return false;
}

void doctor_clock(struct doctor *d)
{
	char now[64], others[256];

	doctor_read(d, now, sizeof(now), SOURCE "current_clocksource");
	doctor_read(d, others, sizeof(others), SOURCE "available_clocksource");
	if (!now[0]) {
		doctor_say(d, DOCTOR_UNKNOWN, "clock source", "the kernel does not tell");
	} else if (fast_clock(now)) {
		doctor_say(d, DOCTOR_OK, "clock source", "%s", now);
	} else {
		doctor_say(d, DOCTOR_COSTS, "clock source", "%s", now);
		doctor_cost(d,
			    "a system call for each look at the clock, so latencies read too long");
		if (strstr(others, "tsc"))
			doctor_mend(d, "echo tsc >" SOURCE "current_clocksource");
		else
			doctor_mend(d, "tsc=reliable on the kernel's command line, if the TSCs of "
				       "this machine are");
	}
}

void doctor_governor(struct doctor *d)
{
	struct doctor_names cpus;
	char governor[64], slow[64] = "";
	size_t seen = 0, bad = 0;

	doctor_list(d, &cpus, "/sys/devices/system/cpu");
	for (size_t i = 0; i < cpus.n; i++) {
		if (strncmp(cpus.name[i], "cpu", 3) ||
		    doctor_read(d, governor, sizeof(governor),
				"/sys/devices/system/cpu/%s/cpufreq/scaling_governor",
				cpus.name[i]) <= 0)
			continue;
		seen++;
		if (!strcmp(governor, "performance"))
			continue;
		bad++;
		snprintf(slow, sizeof(slow), "%s", governor);
	}
	if (!seen) {
		doctor_say(d, DOCTOR_OK, "CPU frequency", "not this kernel's to set");
	} else if (!bad) {
		doctor_say(d, DOCTOR_OK, "CPU frequency", "performance");
	} else {
		doctor_say(d, DOCTOR_COSTS, "CPU frequency", "%s on %zu of %zu CPUs", slow, bad,
			   seen);
		doctor_cost(d, "whoever waited for a message wakes up at a low frequency");
		doctor_mend(d, "cpupower frequency-set -g performance");
	}
}

void doctor_synced(struct doctor *d)
{
	int rc = d->live->clock_synced();

	if (rc < 0) {
		doctor_say(d, DOCTOR_UNKNOWN, "clock", "adjtimex: %s", strerror(-rc));
	} else if (rc) {
		doctor_say(d, DOCTOR_OK, "clock", "synchronised");
	} else {
		doctor_say(d, DOCTOR_COSTS, "clock", "not synchronised");
		doctor_cost(d, "logs and traces of several hosts do not lie side by side");
		doctor_mend(d, "timedatectl set-ntp true");
	}
}

void doctor_uring(struct doctor *d)
{
	int rc = d->live->io_uring();
	long long off = 0;

	if (!rc) {
		doctor_say(d, DOCTOR_OK, "io_uring", "allowed");
		return;
	}
	doctor_say(d, DOCTOR_COSTS, "io_uring", "refused: %s", strerror(-rc));
	doctor_cost(d, "files and sockets go by threads and epoll, with more system calls");
	if (doctor_number(d, &off, "/proc/sys/kernel/io_uring_disabled") && off)
		doctor_mend(d, "sysctl -w kernel.io_uring_disabled=0");
	else if (rc == -ENOSYS)
		doctor_mend(d, "a kernel of 5.1 or newer, or a seccomp profile of the container "
			       "that allows io_uring_setup");
	else
		doctor_mend(d, "a seccomp profile of the container that allows io_uring_setup, "
			       "io_uring_enter and io_uring_register");
}

/* The most that one connection's buffer may grow to: the third number of these files. */
static void check_buffer(struct doctor *d, const char *name)
{
	/* what kernels come with; it carries 50 Gbit/s over 0.6 ms */
	const double enough = 4 << 20;
	long long least, normal, most;
	char text[128], check[64], size[24];

	snprintf(check, sizeof(check), "TCP %s", name);
	doctor_read(d, text, sizeof(text), "/proc/sys/net/ipv4/%s", name);
	if (sscanf(text, "%lld %lld %lld", &least, &normal, &most) != 3) {
		doctor_say(d, DOCTOR_UNKNOWN, check, "the kernel does not tell");
	} else if ((double)most >= enough) {
		doctor_say(d, DOCTOR_OK, check, "up to %s", doctor_bytes((double)most, size));
	} else {
		doctor_say(d, DOCTOR_COSTS, check, "up to %s", doctor_bytes((double)most, size));
		doctor_cost(d, "a tcp:// connection carries no more than that in a round trip");
		doctor_mend(d, "sysctl -w net.ipv4.%s='%lld %lld 16777216'", name, least, normal);
	}
}

void doctor_tcp(struct doctor *d)
{
	check_buffer(d, "tcp_rmem");
	check_buffer(d, "tcp_wmem");
}

void doctor_key(struct doctor *d)
{
	struct pst_secret *secret = NULL;
	struct pst_error err = {0};

	if (pst_secret_read(d->key, &secret, &err)) {
		/* shm:// needs none; to a host there is no other way */
		doctor_sentence(d, d->host ? DOCTOR_STOPS : DOCTOR_COSTS, "key", err.text);
		doctor_cost(d, "no link over tcp:// or verbs://");
		return;
	}
	pst_secret_free(secret);
	doctor_say(d, DOCTOR_OK, "key", "there, and for nobody else to read");
}
