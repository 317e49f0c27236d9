/* SPDX-License-Identifier: Apache-2.0 */
/* leak.h - what a process holds now: open files, mappings, heap; and whether that grew. */
#ifndef PST_SELFTEST_LEAK_H
#define PST_SELFTEST_LEAK_H

#include "selftests/lib/test.h"

#include <dirent.h>
#include <malloc.h>

struct leak {
	int files, maps, threads;
	size_t heap;
};

static inline int leak_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static inline int leak_lines(const char *path)
{
	FILE *f = fopen(path, "r");
	int c, n = 0;

	while (f && (c = getc(f)) != EOF)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

static inline struct leak leak_now(void)
{
	return (struct leak){
		.files = leak_entries("/proc/self/fd"),
		.maps = leak_lines("/proc/self/maps"),
		.threads = leak_entries("/proc/self/task"),
		.heap = mallinfo2().uordblks,
	};
}

/* Libraries keep a little for themselves, once; what grows with each link is far more. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LEAK_OWN 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LEAK_OWN 1
#endif
#ifdef LEAK_OWN /* a sanitizer maps what it needs for itself, and has a thread of its own */
#define LEAK_MAPS    100000
#define LEAK_THREADS 1
#else
#define LEAK_MAPS    32
#define LEAK_THREADS 0
#endif
#define LEAK_HEAP (512 * 1024)

static inline bool leak_none(const struct leak *before)
{
	struct leak now = leak_now();
	bool good = now.files <= before->files && now.threads <= before->threads + LEAK_THREADS &&
		    now.maps <= before->maps + LEAK_MAPS && now.heap <= before->heap + LEAK_HEAP;

	if (!good)
		test_say(__FILE__, __LINE__,
			 "files %d, was %d; threads %d, was %d; mappings %d, was %d; heap %zu, was "
			 "%zu",
			 now.files, before->files, now.threads, before->threads, now.maps,
			 before->maps, now.heap, before->heap);
	return good;
}

#endif /* PST_SELFTEST_LEAK_H */
