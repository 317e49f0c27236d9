/* SPDX-License-Identifier: Apache-2.0 */
/* mapped.h - pools of the module's door, in a few words, for the programs that test it. */
#ifndef SELFTESTS_MAPPED_H
#define SELFTESTS_MAPPED_H

#include "selftests/lib/test.h"

#include <penstock/ioctl.h>
#include <sys/types.h>

#define DOOR   "/dev/penstock"
#define QUOTA  "/sys/module/penstock/parameters/quota"
#define PAGE   4096ul
#define MIB    (1ul << 20)
#define HUGE   (2 * MIB)
#define NOBODY 65534

/* Skips the test where the module is not loaded; else a descriptor or -1. */
int door_open(int flags);

/* A pool that is mapped: what most tests begin with. */
struct mapped {
	struct pst_cmd_pool_create pool;
	int fd;
	unsigned char *at;
};

/* 0 or -errno, as the daemon's door has it. */
int order(int fd, unsigned long cmd, void *arg);
int create(int fd, const char *name, uint64_t bytes, int node, uint32_t flags,
	   struct pst_cmd_pool_create *out);
/* A descriptor, or -errno. */
int export_pool(int fd, uint32_t id, uint32_t flags);
int destroy(int fd, uint32_t id);
struct pst_cmd_info info(int fd);
struct pst_cmd_pool_stat stat_of(int fd, uint32_t id);
/* At a multiple of a huge page, where a huge block can be mapped as one. */
unsigned char *map_at(int fd, size_t bytes, int prot);
struct mapped map_new(int door, const char *name, size_t bytes, int node);
void pattern(unsigned char *at, size_t bytes);
bool has_pattern(const unsigned char *at, size_t bytes);
void write_file(const char *path, const char *text);
/* The number behind @key in a file, in bytes where it says kB. */
uint64_t number_in(const char *path, const char *key);
/* What was freed by a process that ended arrives a little later. */
bool becomes(int fd, uint64_t bytes);
void become_nobody(void);
/* A child that dies with the test; 0 in the child. */
pid_t child(void);
int ended(pid_t pid);

#endif /* SELFTESTS_MAPPED_H */
