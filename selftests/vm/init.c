/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init.c - the first process of a guest: modules, the host's files as root, one command.
 *
 * It is static and alone in the initramfs with the modules that /modules names in load order.
 * Two folders of the host come by 9p: "host", which is its /, read-only, under a tmpfs that takes
 * what is written, and "job" with
 *
 *	job	strings, each with its 0: the command's folder, VM_OUT, the set-up script,
 *		the second (since 1970) at which the guest gives up, the environment, "",
 *		the command
 *	output	what the command says
 *	status	"VM-STATUS n", n as a shell has it, written last
 *
 * A write over 9p is in the host's file when it returns, so what was passed on from the command's
 * pipe is not lost with the guest. What goes wrong here is said on the console; then there is no
 * status.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define EXIT_PORT 0xf4 /* of QEMU's isa-debug-exit; 16 has it end with 33, as nothing else does */
#define P9	  "trans=virtio,version=9p2000.L,msize=512000"

struct job {
	char *cwd, *out, *setup, **env, **command;
	time_t deadline;
};

static void __attribute__((noreturn)) leave(void)
{
	if (!ioperm(EXIT_PORT, 4, 1))
		outl(16, EXIT_PORT);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	const int error = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("vm: init: ", stderr);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ": %s\n", strerror(error));
	va_end(ap);
	tcdrain(STDERR_FILENO);
	leave();
}

static void attach(const char *what, const char *where, const char *type, unsigned long flags,
		   const char *options)
{
	if (mkdir(where, 0755) && errno != EEXIST)
		die("mkdir %s", where);
	if (mount(what, where, type, flags, options))
		die("mount %s on %s", what, where);
}

/* Everything up to the end of a file that says no size, with a 0 behind. */
static char *content(const char *path, size_t *bytes)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room);
	ssize_t n;

	if (fd < 0 || !text)
		die("%s", path);
	while ((n = read(fd, text + size, room - size - 1)) > 0) {
		size += (size_t)n;
		if (size + 1 == room && !(text = realloc(text, room *= 2)))
			die("%s", path);
	}
	if (n < 0)
		die("%s", path);
	close(fd);
	text[size] = 0;
	*bytes = size;
	return text;
}

static void load_modules(void)
{
	char *save, *names = content("/modules", &(size_t){0});

	for (char *name = strtok_r(names, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		const int fd = open(name, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			die("%s", name);
		close(fd);
	}
}

/* A string after the other; what is left of the list stays in *@text. */
static char *next(char **text, const char *end)
{
	char *s = *text;

	if (s >= end) {
		errno = EBADMSG;
		die("job ends early");
	}
	*text += strlen(s) + 1;
	return s;
}

/* Strings up to an empty one, or with @all up to the end. */
static char **several(char **text, const char *end, int all)
{
	size_t n = 0;
	char **list = NULL;

	do {
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			die("job");
		list[n] = *text < end ? next(text, end) : NULL;
		if (list[n] && !*list[n] && !all)
			list[n] = NULL;
	} while (list[n++]);
	return list;
}

static struct job read_job(void)
{
	size_t bytes;
	char *text = content("/job/job", &bytes);
	const char *end = text + bytes;
	struct job job;

	job.cwd = next(&text, end);
	job.out = next(&text, end);
	job.setup = next(&text, end);
	job.deadline = (time_t)atoll(next(&text, end));
	job.env = several(&text, end, 0);
	job.command = several(&text, end, 1);
	if (!job.command[0]) {
		errno = EBADMSG;
		die("no command");
	}
	return job;
}

static void mount_more(void)
{
	attach("none", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	attach("devpts", "/dev/pts", "devpts", 0, "ptmxmode=666");
	attach("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777");
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("fd/0", "/dev/stdin") ||
	    symlink("fd/1", "/dev/stdout") || symlink("fd/2", "/dev/stderr"))
		die("/dev");
}

/* What the host has, with a memory for what is written here. */
static void enter_root(void)
{
	static const char *const moved[] = {"/proc", "/sys", "/dev"};
	char to[32];

	attach("host", "/host", "9p", MS_RDONLY, P9 ",cache=loose");
	attach("tmpfs", "/over", "tmpfs", 0, "mode=755");
	if (mkdir("/over/upper", 0755) || mkdir("/over/work", 0755))
		die("/over");
	attach("overlay", "/root", "overlay", 0,
	       "lowerdir=/host,upperdir=/over/upper,workdir=/over/work");
	for (size_t i = 0; i < sizeof(moved) / sizeof(*moved); i++) {
		snprintf(to, sizeof(to), "/root%s", moved[i]);
		if (mount(moved[i], to, NULL, MS_MOVE, NULL))
			die("move %s", moved[i]);
	}
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot("."))
		die("enter the host's files");
}

static pid_t start(char **command, char **env, const char *cwd, int out)
{
	const pid_t pid = fork();
	sigset_t none;

	if (pid)
		return pid;
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	environ = env;
	if (chdir(cwd))
		dprintf(STDERR_FILENO, "vm: %s: %s\n", cwd, strerror(errno));
	else
		execvp(command[0], command);
	dprintf(STDERR_FILENO, "vm: %s: %s\n", command[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Set-up speaks on the console. */
static void set_up(const struct job *job)
{
	char *command[] = {job->setup, NULL};
	int status;
	const pid_t pid = start(command, job->env, "/", STDERR_FILENO);

	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			die("%s", job->setup);
	if (status) {
		errno = EIO;
		die("%s ends with %#x", job->setup, status);
	}
}

static void write_all(int fd, const char *from, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		const ssize_t n = write(fd, from + at, bytes - at);

		if (n < 0)
			die("write output");
		at += (size_t)n;
	}
}

/* Pass on what is in the pipe now. */
static void pass(int from, int to)
{
	static char buffer[1 << 16];
	ssize_t n;

	while ((n = read(from, buffer, sizeof(buffer))) > 0)
		write_all(to, buffer, (size_t)n);
}

/* Reap whoever ended: 1 and the shell's idea of its status when it was @pid. */
static int reap(pid_t pid, int *result)
{
	int status, done = 0;
	pid_t who;

	while ((who = waitpid(-1, &status, WNOHANG)) > 0) {
		if (who != pid)
			continue;
		*result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		done = 1;
	}
	return done;
}

/* A process in a line: its number, what it waits for in the kernel, its command. */
static void tell_process(const char *pid)
{
	char path[64], wchan[64] = "", command[256] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/wchan", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (read(fd, wchan, sizeof(wchan) - 1) < 0)
		strcpy(wchan, "?");
	close(fd);
	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, command, sizeof(command) - 1);
	close(fd);
	for (ssize_t i = 0; i + 1 < n; i++)
		if (!command[i])
			command[i] = ' ';
	if (n > 0) /* the kernel's own have none */
		fprintf(stderr, "vm: %7s %-24s %s\n", pid, wchan, command);
}

/* Out of time: the log shall know what its tasks wait for. */
static void __attribute__((noreturn)) give_up(void)
{
	const int sysrq = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (write(sysrq, "w", 1) != 1)
		perror("vm: init: sysrq");
	while (proc && (entry = readdir(proc)))
		if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name))
			tell_process(entry->d_name);
	fputs("vm: init: out of time\n", stderr);
	tcdrain(STDERR_FILENO);
	leave();
}

static int run(const struct job *job, int output)
{
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	struct signalfd_siginfo ignored;
	int ends[2], status;
	sigset_t child;
	pid_t pid;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	p[1].fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p[1].fd < 0 || pipe2(ends, O_CLOEXEC))
		die("pipe");
	p[0].fd = ends[0];
	pid = start(job->command, job->env, job->cwd, ends[1]);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	/* Our own writing end stays open, so that the pipe never ends before the command does. */
	for (;;) {
		const time_t left = job->deadline - time(NULL);

		if (left <= 0 || poll(p, 2, (int)left * 1000) == 0)
			give_up();
		pass(ends[0], output);
		while (read(p[1].fd, &ignored, sizeof(ignored)) > 0)
			;
		if (reap(pid, &status))
			break;
	}
	pass(ends[0], output);
	return status;
}

int main(void)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	const struct rlimit files = {4096, 1 << 19};
	int output, status;
	struct job job;
	char line[32];

	attach("proc", "/proc", "proc", 0, NULL);
	attach("sysfs", "/sys", "sysfs", 0, NULL);
	attach("devtmpfs", "/dev", "devtmpfs", 0, "mode=755");
	load_modules();
	attach("job", "/job", "9p", 0, P9);
	job = read_job();
	output = open("/job/output", O_WRONLY | O_APPEND | O_CLOEXEC);
	status = open("/job/status", O_WRONLY | O_CLOEXEC);
	if (output < 0 || status < 0)
		die("/job");
	mount_more();
	enter_root();
	attach("out", job.out, "9p", 0, P9);
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	setrlimit(RLIMIT_NOFILE, &files);
	set_up(&job);
	write_all(status, line,
		  (size_t)snprintf(line, sizeof(line), "VM-STATUS %d\n", run(&job, output)));
	leave();
}
