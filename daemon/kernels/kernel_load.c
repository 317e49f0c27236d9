/* SPDX-License-Identifier: Apache-2.0 */
/* An image on its way in. It is read a piece at a time, and tried when its turn comes. */
#include "daemon/kernels/kernels_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAX (64u << 20)
#define PIECE	  (1u << 20) /* of an image, before others have their turn */

struct load {
	TAILQ_ENTRY(load) on_list;
	struct kernels *ks;
	struct request *r;
	struct manifest m;
	int from, image;
	off_t at;
	EVP_MD_CTX *md;
	bool was_read;
	struct loop_timer step;
	struct trial *trial;
};

static void free_load(struct load *l)
{
	TAILQ_REMOVE(&l->ks->loads, l, on_list);
	loop_cancel(l->ks->d->loop, &l->step);
	trial_cancel(l->trial);
	EVP_MD_CTX_free(l->md);
	if (l->from >= 0)
		close(l->from);
	if (l->image >= 0)
		close(l->image);
	free(l);
}

static void tell_refused(struct kernels *ks, const struct pst_error *err)
{
	events_emit(ks->d->events, PST_EVENT_KERNEL_REFUSED, 0, err->code, "%s", err->text);
}

static void try_next(struct kernels *ks);

/* Its request is answered; the next has its turn. */
static void refuse(struct load *l, const struct pst_error *err)
{
	struct kernels *ks = l->ks;
	struct request *r = l->r;

	r->err = *err;
	tell_refused(ks, err);
	free_load(l);
	request_answer(r, err->code);
	try_next(ks);
}

static void accept_kernel(struct load *l, const struct trial_report *end)
{
	struct pst_cmd_kernel_load *arg = (struct pst_cmd_kernel_load *)l->r->arg;
	struct kernel *k = kernel_new(l->ks, 0, &l->m, l->image);
	struct pst_error err = {0};
	struct kernels *ks = l->ks;
	struct request *r = l->r;

	if (!k) {
		pst_fail(&err, -ENOMEM, "kernel %s: no memory for it", l->m.name);
		refuse(l, &err);
		return;
	}
	l->image = -1;
	k->speed = end->speed;
	k->checks = 1;
	k->error_ppb = end->error_ppb;
	arg->out_id = k->id;
	arg->out_speed = k->speed;
	kernel_keep(ks, k);
	events_emit(ks->d->events, PST_EVENT_KERNEL_LOADED, k->id, 0,
		    "kernel %u (%s, op %s) agrees with ref and takes %u.%02u of the time of what "
		    "it would replace",
		    k->id, k->name, pst_op_name(k->op), k->speed / 1000, k->speed / 10 % 100);
	free_load(l);
	request_answer(r, 0);
	try_next(ks);
}

static void tried(void *ctx, int rc, const struct pst_error *err, const struct trial_report *end)
{
	struct load *l = ctx;

	l->trial = NULL;
	if (rc < 0)
		refuse(l, err);
	else
		accept_kernel(l, end);
}

static int begin_trial(struct load *l, struct pst_error *err)
{
	const struct pst_cmd_kernel_load *arg = (const struct pst_cmd_kernel_load *)l->r->arg;
	struct slot *s = &l->ks->slot[pst_op_find(l->m.op)];
	struct trial_order how = {
		.slower_ok = arg->flags & PST_KERNEL_LOAD_SLOWER,
		.limit_ms = l->ks->d->config.trial_ms,
	};

	if (getrandom(&how.seed, sizeof(how.seed), GRND_NONBLOCK) != sizeof(how.seed))
		how.seed = (uint64_t)loop_now_ms();
	memcpy(how.op, l->m.op, sizeof(how.op));
	memcpy(how.name, l->m.name, sizeof(how.name));
	return trial_start(l->ks->d->loop, &how, l->image, slot_serving(s)->image, tried, l,
			   &l->trial, err);
}

/* One at a time, or they would take each other's time and seem slow. */
static void try_next(struct kernels *ks)
{
	struct pst_error err = {0};
	struct load *l;

	TAILQ_FOREACH(l, &ks->loads, on_list)
	if (l->trial)
		return;
	TAILQ_FOREACH(l, &ks->loads, on_list)
	if (l->was_read) {
		if (begin_trial(l, &err) < 0)
			refuse(l, &err);
		return;
	}
}

/* Reading */

static int check_image(struct load *l, struct pst_error *err)
{
	unsigned char sha256[32];

	if (!EVP_DigestFinal_ex(l->md, sha256, NULL))
		return pst_fail(err, -ENOMEM, "kernel %s: no memory to check it", l->m.name);
	if (memcmp(sha256, l->m.sha256, sizeof(sha256)) != 0)
		return pst_fail(err, -EILSEQ,
				"kernel %s: the image is not the one that the manifest describes: "
				"its SHA-256 begins with %02x%02x%02x%02x, not %02x%02x%02x%02x",
				l->m.name, sha256[0], sha256[1], sha256[2], sha256[3],
				l->m.sha256[0], l->m.sha256[1], l->m.sha256[2], l->m.sha256[3]);
	if (fcntl(l->image, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW))
		return pst_fail(err, -errno, "kernel %s: its memory cannot be sealed: %s",
				l->m.name, strerror(errno));
	return manifest_fits(&l->m, err);
}

/* 1: there may be more */
static int read_piece(struct load *l, struct pst_error *err)
{
	static unsigned char piece[PIECE];
	ssize_t n = pread(l->from, piece, sizeof(piece), l->at);

	if (n < 0)
		return pst_fail(err, -EBADF, "kernel %s: the image cannot be read: %s", l->m.name,
				strerror(errno));
	if (l->at + n > IMAGE_MAX)
		return pst_fail(err, -ENOEXEC, "kernel %s: the image has more than %u MiB",
				l->m.name, IMAGE_MAX >> 20);
	if (n && (pwrite(l->image, piece, (size_t)n, l->at) != n ||
		  !EVP_DigestUpdate(l->md, piece, (size_t)n)))
		return pst_fail(err, -ENOMEM, "kernel %s: no memory for its image", l->m.name);
	l->at += n;
	return n > 0;
}

static void step(struct loop_timer *timer)
{
	struct load *l = OF(struct load, step, timer);
	struct pst_error err = {0};
	int rc = read_piece(l, &err);

	if (rc > 0) {
		loop_after(l->ks->d->loop, timer, 0);
		return;
	}
	if (!rc)
		rc = check_image(l, &err);
	if (rc < 0) {
		refuse(l, &err);
		return;
	}
	close(l->from);
	l->from = -1;
	l->was_read = true;
	try_next(l->ks);
}

static int check_file(int fd, const char *what, struct pst_error *err)
{
	int mode = fcntl(fd, F_GETFL);
	struct stat st;

	if (mode < 0 || mode & O_PATH || (mode & O_ACCMODE) == O_WRONLY || fstat(fd, &st) ||
	    !S_ISREG(st.st_mode))
		return pst_fail(err, -EBADF, "KERNEL_LOAD: %s is no file that can be read", what);
	return 0;
}

static int read_manifest(int fd, struct manifest *m, struct pst_error *err)
{
	char text[MANIFEST_MAX + 1];
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(text) &&
	       (n = pread(fd, text + len, sizeof(text) - len, (off_t)len)) != 0) {
		if (n < 0)
			return pst_fail(err, -EBADF, "KERNEL_LOAD: the manifest cannot be read: %s",
					strerror(errno));
		len += (size_t)n;
	}
	return manifest_parse(text, len, m, err);
}

static int begin(struct kernels *ks, struct request *r, const struct manifest *m,
		 struct pst_error *err)
{
	struct load *l = calloc(1, sizeof(*l));

	if (!l)
		return pst_fail(err, -ENOMEM, "kernel %s: no memory for it", m->name);
	*l = (struct load){.ks = ks, .r = r, .m = *m, .from = -1, .step = {.fire = step}};
	TAILQ_INSERT_TAIL(&ks->loads, l, on_list);
	l->md = EVP_MD_CTX_new();
	l->image = memfd_create("penstock-kernel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (!l->md || !EVP_DigestInit_ex(l->md, EVP_sha256(), NULL) || l->image < 0) {
		free_load(l);
		return pst_fail(err, -ENOMEM, "kernel %s: no memory for it", m->name);
	}
	l->from = r->in_fd[0];
	r->in_fd[0] = -1;
	loop_after(ks->d->loop, &l->step, 0);
	return REQUEST_LATER;
}

int kernels_load(struct kernels *ks, struct request *r)
{
	struct manifest m;
	int rc = check_file(r->in_fd[0], "the image", &r->err);

	if (!rc)
		rc = check_file(r->in_fd[1], "the manifest", &r->err);
	if (rc < 0)
		return rc;
	rc = read_manifest(r->in_fd[1], &m, &r->err);
	if (!rc)
		rc = manifest_verify(&m, &ks->d->config, &r->err);
	if (!rc)
		rc = begin(ks, r, &m, &r->err);
	if (rc < 0)
		tell_refused(ks, &r->err);
	return rc;
}

void loads_end(struct kernels *ks)
{
	struct load *l;

	while ((l = TAILQ_FIRST(&ks->loads))) {
		struct request *r = l->r;

		free_load(l);
		pst_fail(&r->err, -ECANCELED, "the daemon ends");
		request_answer(r, -ECANCELED);
	}
}
