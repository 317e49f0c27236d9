/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h - what the commands of penstockctl(1) share.
 *
 * A command parses its words, makes one or a few calls of penstock/ioctl.h, and prints what came
 * back. The door is opened by the first call. A failure's sentence waits in ctl->err until
 * ctl_fail() prints it.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "runtime/penstock.h"
#include "tools/ctl/print.h"
#include "tools/options.h"

#include <penstock/ioctl.h>

struct ctl {
	const char *socket; /* NULL: the usual doors */
	uint32_t json;
	struct pst_control *control;
	struct pst_error err;
};

/*
 * Make a call: @arg is command @cmd's struct, its size is filled in. 0 or -errno with a sentence in
 * ctl->err.
 */
int ctl_call(struct ctl *ctl, uint32_t cmd, void *arg);
/* Close the door, so that the next call opens it again. */
void ctl_hang_up(struct ctl *ctl);
/* The sentence in ctl->err on stderr; EXIT_FAILED. */
int ctl_fail(struct ctl *ctl);
/* Fill ctl->err; returns @code. */
int ctl_error(struct ctl *ctl, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A command's own options; ended by one without help. */
#define CTL_OPTIONS 8
struct ctl_usage {
	const char *command; /* "pool create" */
	const char *words;   /* "NAME SIZE" */
	const char *help;    /* what it does */
	size_t least, most;  /* how many words */
	struct option_row option[CTL_OPTIONS];
};
/*
 * Parse @argv[1..] with the options that all commands have. -1: go on, with the words in @word
 * (room for usage->most); else the status to exit with.
 */
int ctl_parse(struct ctl *ctl, int argc, char **argv, const struct ctl_usage *usage,
	      const char **word);

/* A whole number in [0, 2^32): 0 or -EINVAL. */
int ctl_number(const char *text, uint32_t *out);
/* "64G", "1.5 MiB", "4096": 0 or -EINVAL. */
int ctl_size(const char *text, __u64 *out);

/* The struct of command @cmd. */
size_t ctl_struct_bytes(uint32_t cmd);
/* All objects of a STAT command, in their order; *@rows is to be freed. 0 or -errno. */
int ctl_list(struct ctl *ctl, uint32_t cmd, void **rows, size_t *n);
/* ... and print them: a command's whole work. The status to exit with. */
int ctl_show_all(struct ctl *ctl, uint32_t cmd, const struct sheet *sheet);
/* Print @n rows as the user wants them; the status to exit with. */
int ctl_show(struct ctl *ctl, const struct sheet *sheet, const void *rows, size_t n);
/*
 * What an order brought: out fields of its struct as JSON, or @fmt for people. The status
 * to exit with.
 */
int ctl_done(struct ctl *ctl, const struct sheet *sheet, const void *row, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* What objects of one kind can be called besides by their ids. */
struct naming {
	uint32_t cmd;	  /* that lists them */
	const char *noun; /* "pool" */
	const char *list; /* the command that shows them */
	struct {
		unsigned short at, bytes; /* texts in the struct; 0 bytes: none */
	} name[2];
	unsigned short kind_at; /* devices: where their kind is, for "gpu:0"; else 0 */
};
extern const struct naming naming_device, naming_kernel, naming_pool, naming_worker;
/* @word is an id or a name. 0, or -errno: none or several are called so. */
int ctl_find(struct ctl *ctl, const struct naming *naming, const char *word, uint32_t *id);

/* The tables, which top shows too; and that of an order which brings nothing. */
extern const struct sheet sheet_devices, sheet_events, sheet_info, sheet_none, sheet_pools,
	sheet_servers, sheet_tables, sheet_workers;
extern const struct word words_event[], words_health[], words_worker[];

/* One event from the descriptor of EVENTS: 1, 0 at its end, -EAGAIN: none now, -errno. */
int ctl_next_event(struct ctl *ctl, int fd, struct pst_event *e);

/* Commands: @argv[0] is the last word of the command's name. */
int cmd_info(struct ctl *ctl, int argc, char **argv);
int cmd_devices(struct ctl *ctl, int argc, char **argv);
int cmd_pools(struct ctl *ctl, int argc, char **argv);
int cmd_kernels(struct ctl *ctl, int argc, char **argv);
int cmd_workers(struct ctl *ctl, int argc, char **argv);
int cmd_servers(struct ctl *ctl, int argc, char **argv);
int cmd_experts(struct ctl *ctl, int argc, char **argv);
int cmd_tables(struct ctl *ctl, int argc, char **argv);
int cmd_events(struct ctl *ctl, int argc, char **argv);
int cmd_top(struct ctl *ctl, int argc, char **argv);
int cmd_power(struct ctl *ctl, int argc, char **argv);
int cmd_kernel_load(struct ctl *ctl, int argc, char **argv);
int cmd_kernel_bind(struct ctl *ctl, int argc, char **argv);
int cmd_kernel_rollback(struct ctl *ctl, int argc, char **argv);
int cmd_kernel_unload(struct ctl *ctl, int argc, char **argv);
int cmd_worker_start(struct ctl *ctl, int argc, char **argv);
int cmd_worker_drain(struct ctl *ctl, int argc, char **argv);
int cmd_worker_stop(struct ctl *ctl, int argc, char **argv);
int cmd_pool_create(struct ctl *ctl, int argc, char **argv);
int cmd_pool_destroy(struct ctl *ctl, int argc, char **argv);
int cmd_expert_place(struct ctl *ctl, int argc, char **argv);
int cmd_expert_pin(struct ctl *ctl, int argc, char **argv);
int cmd_expert_unpin(struct ctl *ctl, int argc, char **argv);
int cmd_expert_evict(struct ctl *ctl, int argc, char **argv);

#endif /* CTL_CTL_H */
