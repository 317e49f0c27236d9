/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/view.h"

#include "tools/penstock.h"

#include <langinfo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PLAIN_SECONDS 5 /* between lines when stdout is no terminal */

static bool utf8(void)
{
	return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

static int columns(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_col < 40)
		return 80;
	return w.ws_col < 160 ? w.ws_col : 160;
}

static void say_part(const struct pst_part_info *p)
{
	bool far = p->url[0] && strncmp(p->url, "shm:", 4);
	char mem[16], node[24] = "any node";

	if (p->node >= 0)
		snprintf(node, sizeof(node), "node %d", p->node);
	printf("  %-7s process %-7u %2u thread%s %-5s kernels, %7s on %s in %llu kB pages%s%s%s\n",
	       p->role, p->pid, p->threads, p->threads == 1 ? ", " : "s,", p->kernels,
	       human_bytes((double)p->pool_bytes, mem), node,
	       (unsigned long long)p->page_bytes / 1024, p->locked ? ", locked" : "",
	       far ? ", at " : "", far ? p->url : "");
}

/* Up to the command: what is wrong, without how much of it this part needs. */
static size_t same_wrong(const char *note)
{
	return strcspn(note, "(");
}

static unsigned long pages_of(const char *note)
{
	unsigned long pages = 0;

	sscanf(note + same_wrong(note), "(echo %lu", &pages);
	return pages;
}

/* What several parts lack is said once, and the command is for all of them. */
static void say_note(struct pst_trainer *t, unsigned int first, const struct pst_part_info *p)
{
	size_t len = same_wrong(p->note);
	unsigned long pages = pages_of(p->note);
	struct pst_part_info q;

	for (unsigned int i = 0; i < first; i++)
		if (!pst_trainer_part(t, i, &q) && same_wrong(q.note) == len &&
		    !strncmp(p->note, q.note, len))
			return;
	for (unsigned int i = first + 1; pages && !pst_trainer_part(t, i, &q); i++)
		if (same_wrong(q.note) == len && !strncmp(p->note, q.note, len))
			pages += pages_of(q.note);
	if (pages)
		printf("  note: %.*s(echo %lu%s\n", (int)len, p->note, pages,
		       p->note + len + strcspn(p->note + len, ">") - 1);
	else
		printf("  note: %s\n", p->note);
}

static void say_notes(struct pst_trainer *t)
{
	struct pst_part_info p;

	for (unsigned int i = 0; !pst_trainer_part(t, i, &p); i++)
		if (p.note[0])
			say_note(t, i, &p);
}

void view_begin(struct pst_trainer *t)
{
	struct pst_model_info m;
	struct pst_part_info p;
	char text[16], held[16];

	pst_trainer_model(t, &m);
	printf("Model: %.2f M parameters, %.2f M at work for a token; %u layers, hidden %u, "
	       "%u experts (%u and %u shared per token)\n",
	       1e-6 * (double)m.parameters, 1e-6 * (double)m.active, m.layers, m.hidden, m.experts,
	       m.topk, m.shared);
	printf("Text: %s in %u files; the last %s are held out\n",
	       human_bytes((double)m.train_bytes, text), m.files,
	       human_bytes((double)m.heldout_bytes, held));
	printf("Parts:\n");
	for (unsigned int i = 0; !pst_trainer_part(t, i, &p); i++)
		say_part(&p);
	say_notes(t);
	fflush(stdout);
}

void view_live(const struct live *l, bool last)
{
	static double said;
	char pulled[16], pushed[16], line[256];
	bool tty = isatty(STDOUT_FILENO);
	int left = (int)(l->left + 0.5), n;

	if (!tty && !last && l->step > 1 && seconds_now() - said < PLAIN_SECONDS)
		return;
	said = seconds_now();
	n = snprintf(line, sizeof(line),
		     "step %u/%u  loss %.3f  %.3f bits/byte  %.1fk tok/s  pulled %s  pushed %s  "
		     "load %.2fx  %d:%02d left",
		     l->step, l->steps, l->loss, l->loss / M_LN2, 1e-3 * l->tokens_per_second,
		     human_bytes(l->pulled, pulled), human_bytes(l->pushed, pushed), l->skew,
		     left / 60, left % 60);
	if (!tty) {
		printf("%s\n", line);
	} else {
		if (n >= columns())
			line[columns() - 1] = 0;
		printf("\r\033[K%s%s", line, last ? "\n" : "");
	}
	fflush(stdout);
}

/* Mean of bucket @i of @of. */
static double bucket(const double *v, size_t n, size_t i, size_t of)
{
	size_t from = i * n / of, to = (i + 1) * n / of;
	double sum = 0;

	if (to <= from)
		to = from + 1;
	for (size_t k = from; k < to; k++)
		sum += v[k];
	return sum / (double)(to - from) / M_LN2;
}

/* Eighths of a cell on a terminal that has the blocks, else a star per row. */
void view_curve(const double *loss, size_t n)
{
	static const char *const block[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	enum { ROWS = 10, MAX = 150 };
	size_t cols = (size_t)columns() - 10;
	double v[MAX], min = INFINITY, max = -INFINITY;

	cols = cols > MAX ? MAX : cols;
	cols = cols > n ? n : cols;
	if (!cols)
		return;
	for (size_t c = 0; c < cols; c++) {
		v[c] = bucket(loss, n, c, cols);
		min = fmin(min, v[c]);
		max = fmax(max, v[c]);
	}
	min = floor(min * 2) / 2;
	max = ceil(max * 2) / 2 > min ? ceil(max * 2) / 2 : min + 0.5;
	printf("\nTraining loss, bits per byte\n");
	for (int r = ROWS - 1; r >= 0; r--) {
		if (r == ROWS - 1 || r == ROWS / 2)
			printf("%6.2f |", min + (max - min) * (r + (r == ROWS - 1)) / ROWS);
		else
			printf("       |");
		for (size_t c = 0; c < cols; c++) {
			double eighths = ((v[c] - min) / (max - min) * ROWS - r) * 8;
			int e = eighths < 0 ? 0 : eighths > 8 ? 8 : (int)(eighths + 0.5);

			fputs(utf8() ? block[e] : e > 3 ? "*" : " ", stdout);
		}
		putchar('\n');
	}
	printf("%6.2f +", min);
	for (size_t c = 0; c < cols; c++)
		putchar('-');
	printf("\n        1%*zu steps\n", (int)cols - 1, n);
}

static void say_way(const char *from, const char *to, const char *what, uint64_t bytes,
		    uint32_t steps)
{
	char all[16], each[16];

	printf("  %-7s -> %-7s  %-22s %9s  %9s\n", from, to, what, human_bytes((double)bytes, all),
	       human_bytes((double)bytes / (steps ? steps : 1), each));
}

void view_traffic(struct pst_trainer *t, uint32_t steps)
{
	struct pst_traffic w;
	char moved[16], copied[16];

	pst_trainer_traffic(t, &w);
	printf("\n  from       to       what                      in all   per step\n");
	say_way("server", "engine", "weights", w.pulled_engine, steps);
	say_way("server", "worker", "experts' weights", w.pulled_workers, steps);
	say_way("engine", "worker", "rows of tokens", w.dispatched, steps);
	say_way("worker", "engine", "rows of results", w.combined, steps);
	say_way("engine", "server", "gradients", w.pushed_engine, steps);
	say_way("worker", "server", "experts' gradients", w.pushed_workers, steps);
	human_bytes((double)w.moved, moved);
	human_bytes((double)w.copied, copied);
	if (w.moved)
		printf("  Links moved %s in all, and %s were copied; the rest was used in place.\n",
		       moved, copied);
	else
		printf("  Used and made in place, in the owner's memory: a link moved %s of it, "
		       "and %s "
		       "were copied.\n",
		       moved, copied);
	if (w.worker_restarts)
		printf("  %llu worker%s died and %s replaced; %llu experts were sent again.\n",
		       (unsigned long long)w.worker_restarts, w.worker_restarts == 1 ? "" : "s",
		       w.worker_restarts == 1 ? "was" : "were",
		       (unsigned long long)w.experts_resent);
}

void view_eval(const struct pst_eval_info *e)
{
	char held[16];

	printf("\nHeld-out text (%s, never trained on): %.3f bits per byte;  gzip -9 needs %.3f, "
	       "xz -9 %.3f\n",
	       human_bytes((double)e->bytes, held), e->bits_per_byte, e->gzip_bits_per_byte,
	       e->xz_bits_per_byte);
}

int view_sample(const char *dir, const char *prompt, uint32_t bytes, uint64_t seed,
		struct pst_error *err)
{
	struct pst_generate_options o;
	struct pst_generator *gen;
	unsigned char byte;
	int rc;

	pst_generate_defaults(&o);
	o.checkpoint = dir;
	o.prompt = prompt;
	o.prompt_bytes = strlen(prompt);
	o.seed = seed;
	o.temperature = 0.7;
	rc = pst_generator_open(&o, &gen, err);
	if (rc < 0)
		return rc;
	printf("\nIt writes a manual page, from the checkpoint:\n\n%s", prompt);
	for (uint32_t i = 0; i < bytes; i++) {
		rc = pst_generator_next(gen, &byte, err);
		if (rc <= 0)
			break;
		/* what a terminal would take as a command is shown as a dot */
		putchar(byte == '\n' || byte == '\t' || (byte >= 32 && byte < 127) ? byte : '.');
		fflush(stdout);
	}
	printf("\n");
	pst_generator_close(gen);
	return rc < 0 ? rc : 0;
}
