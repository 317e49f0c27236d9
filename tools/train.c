/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/peers.h"
#include "tools/penstock.h"
#include "tools/view.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMOOTH	     0.05 /* weight of a new step in the live line's loss */
#define SHOW_SECONDS 0.2  /* between two live lines */

struct run {
	struct pst_train_options o;
	struct pst_trainer *t;
	const char *json, *prompt;
	uint32_t sample; /* bytes */
	int show;	 /* to stdout */
	double *loss;	 /* of each step of this run */
	size_t steps;
	uint64_t tokens;
	double seconds, skew;
	struct pst_eval_info eval;
	char checkpoint[4096];
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void show_step(struct run *r, const struct pst_step_info *s, double began, struct live *live)
{
	bool last = s->step == r->o.steps || interrupted;
	double now = seconds_now(), speed = (double)r->tokens / (now - began);
	struct pst_traffic w;

	live->loss = r->steps == 1 ? s->loss : live->loss + SMOOTH * (s->loss - live->loss);
	/* asking every part what it moved costs them time: a few times a second is enough */
	if (r->steps > 1 && !last && now - live->shown < SHOW_SECONDS)
		return;
	pst_trainer_traffic(r->t, &w);
	live->shown = now;
	live->step = s->step;
	live->steps = r->o.steps;
	live->tokens_per_second = speed;
	live->pulled = (double)(w.pulled_engine + w.pulled_workers);
	live->pushed = (double)(w.pushed_engine + w.pushed_workers);
	live->skew = s->load_max_over_mean;
	live->left = (double)s->tokens * (r->o.steps - s->step) / speed;
	view_live(live, last);
}

static int train_steps(struct run *r, struct pst_error *err)
{
	double began = seconds_now();
	struct live live = {0};
	struct pst_step_info s;
	int rc;

	r->loss = calloc(r->o.steps, sizeof(*r->loss));
	if (!r->loss) {
		snprintf(err->text, sizeof(err->text), "no memory for %u steps", r->o.steps);
		return -1;
	}
	while (!pst_trainer_done(r->t) && !interrupted) {
		rc = pst_trainer_step(r->t, &s, err);
		if (rc < 0) {
			if (r->show)
				printf("\n");
			return rc;
		}
		r->loss[r->steps++] = s.loss;
		r->tokens += s.tokens;
		r->skew = s.load_max_over_mean;
		if (r->show)
			show_step(r, &s, began, &live);
	}
	r->seconds = seconds_now() - began;
	return 0;
}

/* Last, so that a failure in it costs nothing that is not on disk. */
static int finish(struct run *r, struct pst_error *err)
{
	int rc;

	if (r->o.out) {
		rc = pst_trainer_save(r->t, r->checkpoint, sizeof(r->checkpoint), err);
		if (rc < 0)
			return rc;
	}
	if (interrupted) {
		snprintf(err->text, sizeof(err->text), "interrupted after step %u%s%s",
			 pst_trainer_at(r->t), r->o.out ? "; go on with --resume " : "",
			 r->o.out ? r->o.out : "");
		return -1;
	}
	if (r->show)
		view_curve(r->loss, r->steps);
	if (r->show && r->o.out && r->sample) {
		rc = view_sample(r->checkpoint, r->prompt, r->sample, r->o.seed, err);
		if (rc < 0)
			return rc;
	}
	if (r->show) /* of the steps: the evaluation moves things too */
		view_traffic(r->t, (uint32_t)r->steps);
	rc = pst_trainer_evaluate(r->t, &r->eval, err);
	if (rc < 0 || !r->show)
		return rc;
	view_eval(&r->eval);
	if (r->o.out)
		printf("Checkpoint: %s\nLet it write: penstock generate %s --prompt TEXT\n",
		       r->checkpoint, r->checkpoint);
	return 0;
}

/* Servers or workers that there are: a daemon may have had others than were asked for. */
static int count_parts(struct run *r, const char *role)
{
	struct pst_part_info p;
	int n = 0;

	for (unsigned int i = 0; !pst_trainer_part(r->t, i, &p); i++)
		n += !strcmp(p.role, role);
	return n;
}

static json_t *result(struct run *r)
{
	char digest[20];
	struct pst_traffic w;
	double last = 0;
	size_t n = r->steps < 10 ? r->steps : 10;
	json_t *root;

	for (size_t i = r->steps - n; i < r->steps; i++)
		last += r->loss[i] / (double)n;
	pst_trainer_traffic(r->t, &w);
	snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)pst_trainer_digest(r->t));
	root = json_pack("{s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "steps",
			 (json_int_t)pst_trainer_at(r->t), "seconds", r->seconds, "tokens",
			 (json_int_t)r->tokens, "tokens_per_second",
			 r->seconds > 0 ? (double)r->tokens / r->seconds : 0.0, "train_loss", last,
			 "val_loss", r->eval.loss, "val_bits_per_byte", r->eval.bits_per_byte,
			 "gzip_bits_per_byte", r->eval.gzip_bits_per_byte, "xz_bits_per_byte",
			 r->eval.xz_bits_per_byte);
	json_object_update_new(
		root,
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:I, s:f, s:s}",
			  "bytes_pulled", (json_int_t)(w.pulled_engine + w.pulled_workers),
			  "bytes_pushed", (json_int_t)(w.pushed_engine + w.pushed_workers),
			  "bytes_dispatched", (json_int_t)w.dispatched, "bytes_combined",
			  (json_int_t)w.combined, "bytes_moved", (json_int_t)w.moved,
			  "bytes_copied", (json_int_t)w.copied, "bytes_saved", (json_int_t)w.saved,
			  "workers", count_parts(r, "worker"), "servers", count_parts(r, "server"),
			  "worker_restarts", (json_int_t)w.worker_restarts,
			  "expert_load_max_over_mean", r->skew, "loss_digest", digest));
	if (r->checkpoint[0])
		json_object_set_new(root, "checkpoint",
				    json_text(r->checkpoint, strlen(r->checkpoint)));
	return root;
}

static int train(struct run *r)
{
	struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | SA_RESETHAND};
	struct pst_error err = {0};
	int rc;

	r->show = !r->json || strcmp(r->json, "-");
	rc = pst_trainer_open(&r->o, &r->t, &err);
	if (!rc) {
		sigaction(SIGINT, &act, NULL); /* a second one ends at once */
		sigaction(SIGTERM, &act, NULL);
		if (r->show)
			view_begin(r->t);
		rc = train_steps(r, &err);
	}
	if (!rc)
		rc = finish(r, &err);
	if (rc < 0)
		rc = say_error("train", &err);
	else
		rc = r->json ? write_json("train", r->json, result(r)) : EXIT_DONE;
	pst_trainer_close(r->t);
	free(r->loss);
	return rc;
}

int cmd_train(int argc, char **argv)
{
	struct run r = {.prompt = ".TH \"", .sample = 400};
	struct pst_train_options *o = &r.o;
	struct opt_list data = {0};
	struct peers peers = {0};
	int embedded = 0, rc;

	pst_train_defaults(o);
	const struct option_row rows[] = {
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "Train a model on text, byte by byte: an engine in this process, parameter "
		 "servers\n"
		 "and expert workers beside it.\n\nModel and text:",
		 NULL},
		{"preset", "NAME", OPT_TEXT, &o->preset, 0, 0,
		 "a built-in shape: tiny (default) or nano", NULL},
		{"config", "FILE", OPT_TEXT, &o->config, 0, 0,
		 "a config.json of a DeepSeek-V3 shape instead", NULL},
		{"data", "PATH...", OPT_LIST, &data, 0, 0,
		 "files and directories to read, also .gz; @FILE: a list of them", NULL},
		{"steps", "N", OPT_U32, &o->steps, 1, UINT32_MAX, "steps in all (default 100)",
		 NULL},
		{"batch", "N", OPT_U32, &o->batch, 1, 65536, "rows of a step (default 4)", NULL},
		{"seq", "N", OPT_U32, &o->seq, 2, 1 << 20, "bytes of a row (default 128)", NULL},
		{"seed", "N", OPT_U64, &o->seed, 0, 0,
		 "the same seed gives the same bits (default 1)", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "Where it runs (nothing of this changes a bit):", NULL},
		{"workers", "N", OPT_U32, &o->workers, 1, 256, "expert workers (default 2)",
		 &peers.workers},
		{"servers", "N", OPT_U32, &o->servers, 1, 256, "parameter servers (default 1)",
		 &peers.servers},
		{"embedded", NULL, OPT_FLAG, &o->embedded, 0, 0,
		 "servers and workers as threads of this process", &embedded},
		{"threads", "N", OPT_U32, &o->host.threads, 0, 4096,
		 "threads of the engine (default 0: all cores)", NULL},
		{"node", "N", OPT_I32, &o->host.node, -1, 4096,
		 "NUMA node of memory and threads (default -1: any)", NULL},
		{"lock", "N", OPT_U32, &o->host.lock, 0, 2,
		 "lock memory in RAM: 0 no, 1 if allowed (default), 2 or fail", NULL},
		{"huge", "N", OPT_U32, &o->host.huge, 0, 1, "use huge pages (default 1)", NULL},
		{"device", "D", OPT_TEXT, &o->host.device, 0, 0,
		 "what computes here: cpu (default), cuda:N, or WORKERS,ENGINE", NULL},
		{"worker-timeout", "MS", OPT_U32, &o->worker_timeout_ms, 1, 1e9,
		 "give up a worker that is silent for so long (default 60000)", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "How they are linked, and others on other hosts:", NULL},
		{"fabric", "NAME", OPT_TEXT, &o->fabric, 0, 0,
		 "shm, tcp or verbs, with settings if need be: tcp?timeout=5000", NULL},
		{"server-at", "URL...", OPT_LIST, &peers.server_at, 0, 0,
		 "servers that run already: tcp://HOST[:PORT], or HOST[:PORT]", NULL},
		{"worker-at", "URL...", OPT_LIST, &peers.worker_at, 0, 0,
		 "workers that run already", NULL},
		{"daemon", "[=SOCKET]", OPT_MAYBE, &o->peers.daemon, 0, 0,
		 "workers, and servers if it has any, are those that penstockd keeps", NULL},
		{"listen-host", "HOST[,HOST]", OPT_TEXT, &o->peers.listen_host, 0, 0,
		 "address of this host for what is started here, several for rails", NULL},
		{"key", "FILE", OPT_TEXT, &o->peers.key, 0, 0,
		 "what all share over tcp and verbs: penstock-ps(8) says how to make it", NULL},
		{"connect-timeout", "MS", OPT_U32, &o->peers.connect_timeout_ms, 1, 1e9,
		 "wait so long for servers and workers to appear (default 20000)", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0, "Checkpoints:", NULL},
		{"out", "DIR", OPT_TEXT, &o->out, 0, 0, "where checkpoints go", NULL},
		{"save-every", "N", OPT_U32, &o->save_every, 0, UINT32_MAX,
		 "also save every N steps (default 0: at the end)", NULL},
		{"keep", "N", OPT_U32, &o->keep, 0, UINT32_MAX,
		 "checkpoints to keep, 0: all (default 2)", NULL},
		{"resume", "DIR", OPT_TEXT, &o->resume, 0, 0,
		 "go on from a checkpoint, bit for bit; what shapes the run comes from it", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0, "Optimizer:", NULL},
		{"lr", "X", OPT_REAL, &o->lr, 0, 100, "peak learning rate (default 0.003)", NULL},
		{"lr-min", "X", OPT_REAL, &o->lr_min, 0, 100,
		 "where the cosine ends (default 0.0003)", NULL},
		{"warmup", "N", OPT_U32, &o->warmup, 0, UINT32_MAX,
		 "steps of linear warm-up (default 50)", NULL},
		{"beta1", "X", OPT_REAL, &o->beta1, 0, 0.999999, "AdamW (default 0.9)", NULL},
		{"beta2", "X", OPT_REAL, &o->beta2, 0, 0.999999, "AdamW (default 0.95)", NULL},
		{"eps", "X", OPT_REAL, &o->eps, 1e-30, 1, "AdamW (default 1e-8)", NULL},
		{"weight-decay", "X", OPT_REAL, &o->weight_decay, 0, 100,
		 "on matrices (default 0.1)", NULL},
		{"clip", "X", OPT_REAL, &o->clip, 0, 1e30,
		 "largest norm of the gradient, 0: any (default 1)", NULL},
		{"balance-alpha", "X", OPT_REAL, &o->balance_alpha, 0, 1e6,
		 "sequence-wise balance loss (default 0.001)", NULL},
		{"bias-rate", "X", OPT_REAL, &o->bias_rate, 0, 1,
		 "speed of the gate's balance bias (default 0.01)", NULL},
		{"", NULL, OPT_TITLE, NULL, 0, 0, "Output:", NULL},
		{"prompt", "TEXT", OPT_TEXT, &r.prompt, 0, 0, "what the sample begins with", NULL},
		{"sample", "N", OPT_U32, &r.sample, 0, 1 << 20,
		 "bytes of sample at the end, with --out (default 400)", NULL},
		{"json", "FILE", OPT_TEXT, &r.json, 0, 0, "the result as JSON; - for stdout", NULL},
	};

	rc = parse_options(argc, argv, "train", "--data PATH... [OPTION...]", rows,
			   sizeof(rows) / sizeof(*rows), NULL);
	if (rc < 0 && !data.count)
		rc = usage_error("train", "--data PATH is missing");
	if (rc < 0 && o->preset && o->config)
		rc = usage_error("train", "--preset and --config exclude each other");
	if (rc < 0 && o->resume && (o->preset || o->config))
		rc = usage_error("train", "--resume has its model already");
	if (rc < 0)
		rc = take_peers("train", &peers, &o->peers, &o->servers, &o->workers);
	if (rc < 0 && embedded && peers.server_at.count && peers.worker_at.count)
		rc = usage_error("train", "--embedded: nothing is started beside both lists");
	if (rc < 0) {
		if (!o->preset && !o->config && !o->resume)
			o->preset = "tiny";
		o->data = data.item;
		o->ndata = data.count;
		rc = train(&r);
	}
	free_peers(&peers);
	free_list(&data);
	return rc;
}
