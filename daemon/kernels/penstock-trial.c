/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-trial: tries one kernel image, in a process that it may crash or hang.
 *
 * penstockd runs it with a socket (trial.h); people run it with files, to see what the daemon
 * would say, and to make the manifest and the text that is signed.
 */
#include "daemon/kernels/manifest.h"
#include "daemon/kernels/trial.h"
#include "rdma/fail.h"
#include "runtime/device/image.h"
#include "runtime/penstock.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int sock = -1;		   /* -1: run by hand */
static struct trial_report report; /* the last, or the one that is being made */

static void say(enum trial_check check, const struct pst_agree_shape *shape)
{
	report.size = sizeof(report);
	report.check = (uint32_t)check;
	report.m = shape ? (uint32_t)shape->m : 0;
	report.n = shape ? (uint32_t)shape->n : 0;
	report.k = shape ? (uint32_t)shape->k : 0;
	if (sock >= 0)
		while (send(sock, &report, sizeof(report), MSG_NOSIGNAL) < 0 && errno == EINTR)
			;
}

/* The end of this process, whatever the image left behind in it: nothing of it runs any more. */
static _Noreturn void end(const struct pst_error *err)
{
	report.error = *err;
	say(TRIAL_END, NULL);
	if (sock < 0 && err->code)
		dprintf(STDERR_FILENO, "penstock-trial: %s\n", err->text);
	else if (sock < 0)
		dprintf(STDOUT_FILENO,
			"agrees with ref to %.2g, and takes %.2f of the time of what is built in\n",
			(double)report.error_ppb * 1e-9, report.speed / 1000.0);
	_exit(err->code && sock < 0);
}

/*
 * A fault in a page that guards a buffer is a matter of agreement. Any other happens again when
 * the handler is gone, and kills.
 */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	static struct pst_agree_result res;
	static struct pst_error err;

	(void)sig, (void)context;
	if (!pst_agree_stray(info->si_addr, &res))
		return;
	pst_fail(&err, -EDOM, "%s", res.text);
	end(&err);
}

static void catch_faults(void)
{
	struct sigaction sa = {.sa_sigaction = on_fault,
			       .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK};
	static char room[65536];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};

	sigaltstack(&stack, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

static void limit(int what, rlim_t most)
{
	struct rlimit r = {most, most};

	setrlimit(what, &r);
}

/* Bytes of private memory that it has already, which may be much in a build that is sanitized. */
static rlim_t has_data(void)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* No files, no processes, no more rights; and it ends when who asked for it does. */
static void give_up_rights(const struct trial_order *how)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_FSIZE, 0);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_NOFILE, 64);
	limit(RLIMIT_DATA, has_data() + (4ull << 30));
	limit(RLIMIT_CPU, how->limit_ms / 1000 + 2);
}

static int check_names(const struct trial_order *how, const struct pst_image *image,
		       struct pst_error *err)
{
	if (strcmp(how->op, pst_op_name(pst_image_op(image))) != 0)
		return pst_fail(err, -ENOEXEC, "is for op %s, and its manifest says %s",
				pst_op_name(pst_image_op(image)), how->op);
	if (strcmp(how->name, pst_image_name(image)) != 0)
		return pst_fail(err, -ENOEXEC, "calls itself %.31s, and its manifest says %s",
				pst_image_name(image), how->name);
	return 0;
}

static void seen(double error)
{
	uint64_t ppb = error < 1e9 ? (uint64_t)(error * 1e9) : UINT64_MAX;

	if (ppb > report.error_ppb)
		report.error_ppb = ppb;
}

static int agree(const struct pst_ops *ops, enum pst_op op, const struct pst_agree_shape *shape,
		 uint64_t seed, struct pst_error *err)
{
	struct pst_agree_result res = {0};
	int rc;

	say(TRIAL_AGREE, shape);
	rc = pst_agree_op(ops, op, shape, 1, seed, 0, &res);
	seen(res.error);
	if (rc)
		return pst_fail(err, rc, "%s", rc == -EDOM ? res.text : "no memory for its trial");
	say(TRIAL_INSIDE, shape);
	rc = pst_agree_guarded(ops, op, shape, seed, &res);
	return rc ? pst_fail(err, rc, "%s", rc == -EDOM ? res.text : "no memory for its trial") : 0;
}

enum { ANY = 3 };

static int agree_all(const struct pst_ops *ops, enum pst_op op, uint64_t seed,
		     struct pst_error *err)
{
	int rc = 0;

	for (size_t i = 0; i < pst_agree_nshapes && !rc; i++)
		rc = agree(ops, op, pst_agree_shapes + i, seed + i, err);
	for (uint64_t i = 0; i < ANY && !rc; i++) {
		struct pst_agree_shape any = pst_agree_any_shape(seed ^ i);

		rc = agree(ops, op, &any, seed ^ i, err);
	}
	return rc;
}

static int time_all(const struct pst_ops *ops, const struct pst_ops *before, enum pst_op op,
		    const struct trial_order *how, struct pst_error *err)
{
	for (size_t i = 0; i < pst_agree_nspeed_shapes; i++) {
		const struct pst_agree_shape *s = pst_agree_speed_shapes + i;
		double ratio;
		int rc;

		say(TRIAL_SPEED, s);
		rc = pst_agree_speed(ops, before, op, s, how->seed, &ratio);
		if (rc)
			return pst_fail(err, rc, "no memory for its trial");
		if (ratio * 1000 > report.speed)
			report.speed = (uint32_t)(ratio * 1000);
		if (ratio > TRIAL_MARGIN && !how->slower_ok)
			return pst_fail(err, -ESTALE,
					"%s: takes %.2f of the time of what it would replace (m "
					"%zu, n %zu, k %zu), allowed is %.2f; --slower loads it "
					"all the same",
					pst_op_name(op), ratio, s->m, s->n, s->k, TRIAL_MARGIN);
	}
	return 0;
}

static int load(int fd, const struct trial_order *how, struct pst_ops *ops, struct pst_error *err)
{
	struct pst_image *image;
	int rc = pst_image_open(fd, &image, err);

	*ops = *pst_ops_cpu();
	if (!rc)
		rc = check_names(how, image, err);
	if (!rc)
		pst_ops_put(ops, pst_image_op(image), pst_image_kernel(image));
	return rc;
}

static _Noreturn void try_image(const struct trial_order *how, int image, int before)
{
	struct pst_ops ops, other = *pst_ops_cpu();
	enum pst_op op = pst_op_find(how->op);
	struct pst_error err = {0};
	struct pst_image *old;
	int rc = 0;

	if (before >= 0) {
		rc = pst_image_open(before, &old, &err);
		if (!rc)
			pst_ops_put(&other, pst_image_op(old), pst_image_kernel(old));
	}
	catch_faults();
	say(TRIAL_LOAD, NULL);
	if (!rc)
		rc = load(image, how, &ops, &err);
	if (!rc)
		rc = agree_all(&ops, op, how->seed, &err);
	if (!rc)
		time_all(&ops, &other, op, how, &err);
	end(&err);
}

/* By the daemon's order */

static int take_order(struct trial_order *how, int fds[2])
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {how, sizeof(*how)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.room,
			     .msg_controllen = sizeof(control.room)};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n == (ssize_t)sizeof(*how) ? CMSG_FIRSTHDR(&msg) : NULL;
	size_t nfds =
		c && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

	if (how->size != sizeof(*how) || nfds != 1u + !!how->before)
		return -EPROTO;
	memcpy(fds, CMSG_DATA(c), nfds * sizeof(int));
	return 0;
}

/* What else was open is no business of an image. */
static void close_others(const int fds[2])
{
	int last = sock;

	for (int i = 0; i < 2; i++)
		last = fds[i] > last ? fds[i] : last;
	for (int fd = STDERR_FILENO + 1; fd < last; fd++)
		if (fd != sock && fd != fds[0] && fd != fds[1])
			close(fd);
	close_range((unsigned int)last + 1, ~0u, 0);
}

static int obey(const char *number)
{
	struct trial_order how = {0};
	int fds[2] = {-1, -1};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sock = atoi(number);
	if (take_order(&how, fds))
		return 2;
	close_others(fds);
	give_up_rights(&how);
	try_image(&how, fds[0], fds[1]);
}

/* By hand */

static int fail(const struct pst_error *err)
{
	fprintf(stderr, "penstock-trial: %s\n", err->text);
	return 1;
}

static int open_file(const char *path, struct pst_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? pst_fail(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

static int hash_file(int fd, unsigned char sha256[32])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	char piece[65536];
	off_t at = 0;
	ssize_t n = 0;
	int rc = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) ? 0 : -ENOMEM;

	while (!rc && (n = pread(fd, piece, sizeof(piece), at)) > 0) {
		rc = EVP_DigestUpdate(md, piece, (size_t)n) ? 0 : -ENOMEM;
		at += n;
	}
	if (!rc && n < 0)
		rc = -errno;
	if (!rc && !EVP_DigestFinal_ex(md, sha256, NULL))
		rc = -ENOMEM;
	EVP_MD_CTX_free(md);
	return rc;
}

static int print_manifest(int fd, const struct pst_image *image)
{
	const char *op = pst_op_name(pst_image_op(image));
	unsigned char sha256[32];
	int rc = hash_file(fd, sha256);

	if (rc < 0) {
		fprintf(stderr, "penstock-trial: the image cannot be read: %s\n", strerror(-rc));
		return 1;
	}
	printf("{\n  \"op\": \"%s\",\n  \"name\": \"%s\",\n  \"device\": \"cpu\",\n"
	       "  \"formats\": [\"f32\"%s],\n  \"abi\": \"%016llx\",\n  \"sha256\": \"",
	       op, pst_image_name(image), strstr(op, "bf16") ? ", \"bf16\"" : "",
	       (unsigned long long)pst_op_abi(pst_image_op(image)));
	for (size_t i = 0; i < sizeof(sha256); i++)
		printf("%02x", sha256[i]);
	printf("\"\n}\n");
	return 0;
}

static int print_text(const char *path)
{
	char text[MANIFEST_MAX + 1];
	struct pst_error err = {0};
	struct manifest m;
	int fd = open_file(path, &err);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (n < 0)
		return fd < 0 ? fail(&err) : 1;
	close(fd);
	if (manifest_parse(text, (size_t)n, &m, &err))
		return fail(&err);
	fwrite(text, 1, manifest_text(&m, text), stdout);
	return 0;
}

static int by_hand(const char *path, bool manifest)
{
	struct trial_order how = {.slower_ok = 1, .limit_ms = 60000, .seed = (uint64_t)time(NULL)};
	struct pst_error err = {0};
	struct pst_image *image;
	int fd = open_file(path, &err);

	if (fd < 0 || pst_image_open(fd, &image, &err))
		return fail(&err);
	if (manifest)
		return print_manifest(fd, image);
	snprintf(how.op, sizeof(how.op), "%s", pst_op_name(pst_image_op(image)));
	snprintf(how.name, sizeof(how.name), "%s", pst_image_name(image));
	try_image(&how, fd, -1);
}

static void help(void)
{
	printf("Usage: penstock-trial [OPTION] FILE\n"
	       "Try a kernel image as penstockd does before it loads it. See penstock-kernel(5).\n"
	       "\n"
	       "  --manifest      print a manifest for image FILE, to be signed\n"
	       "  --text          print what is signed of the manifest FILE\n"
	       "  --socket FD     try what penstockd asks for there\n"
	       "  --version       print the version and exit\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "Exit status: 0 it would be loaded, 1 it would not, 2 usage.\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"manifest", no_argument, NULL, 'm'},	  {"text", no_argument, NULL, 't'},
		{"socket", required_argument, NULL, 's'}, {"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},	  {0}};
	int c, what = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'm':
		case 't':
			what = c;
			break;
		case 's':
			return obey(optarg);
		case 'V':
			printf("penstock-trial %s\n", pst_version());
			return 0;
		case 'h':
			help();
			return 0;
		default:
			return 2;
		}
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "penstock-trial: one FILE is needed; see penstock-trial --help\n");
		return 2;
	}
	return what == 't' ? print_text(argv[optind]) : by_hand(argv[optind], what == 'm');
}
