/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock.h - train and run Mixture-of-Experts models whose experts live on
 * parameter servers. The one public header; penstock(1) uses nothing else.
 *
 * The model
 *   trainer    a training run: an engine in this process, and parameter servers
 *              and expert workers: threads of it, processes beside it, or what
 *              runs on other hosts. A step is one batch: forward, backward, optimizer.
 *   generator  a checkpoint ready to continue text.
 *   checkpoint a directory as the Hugging Face hub has it: config.json and
 *              model*.safetensors; and, to go on training bit for bit,
 *              optimizer*.safetensors and trainer.json.
 *   server, worker  what the programs penstock-ps and penstock-worker run.
 *
 * Order of calls
 *   struct pst_train_options o;
 *   pst_train_defaults(&o);  o.data = ...;
 *   pst_trainer_open(&o, &t, &err);
 *   while (!pst_trainer_done(t)) pst_trainer_step(t, &info, &err);
 *   pst_trainer_evaluate(t, &eval, &err);  pst_trainer_save(t, path, sizeof(path), &err);
 *   pst_trainer_close(t);
 *
 * Options are structs that begin with their size; pst_*_defaults() sets it.
 * A caller compiled against an older header may pass a smaller struct.
 *
 * Errors: 0 or -errno; where there is a struct pst_error it says in one sentence
 * what failed and what mends it. Outputs are untouched on failure. The
 * library never prints, never exits and leaves errno, signals and locale alone.
 *
 * Threads: an object belongs to one thread at a time; different objects are
 * independent. pst_server_end and pst_worker_end may be called from signal handlers.
 *
 * Numbers: the same options, seed and data give the same bits for any number of
 * servers, workers and threads, embedded or not, whoever dies on the way.
 */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PST_API __attribute__((visibility("default")))

#define PST_VERSION "0.1.0"

/* PST_VERSION of the library that is loaded. */
PST_API const char *pst_version(void);

/* What the library may use of the machine. */
struct pst_host_options {
	uint32_t threads; /* of the engine, 0: all cores */
	int32_t node;	  /* NUMA node, -1: any */
	uint32_t huge;	  /* want huge pages (0 or 1) */
	uint32_t lock;	  /* want memory locked in RAM: 0 no, 1 if allowed, 2 must */
	/* what computes here, workers and engine: "cuda:N", or "cpu" or NULL: the cores; or
	 * "WORKERS,ENGINE", as in "cuda:0,cpu" */
	const char *device;
};

/*
 * Where servers and workers are. Of each kind either the library starts as many as
 * the options say, here, and ends them; or others started all that are to be used, at the
 * URLs of a list, and keep them: tcp://HOST[:PORT], verbs://HOST[,HOST][:PORT],
 * shm://NAME, or that without the scheme where the fabric is named. URLs carry no settings:
 * those stand in the fabric's name, "tcp?timeout=5000&crc=0", and are this process's own.
 *
 * Over tcp and verbs all that belong together share a key: what the library starts by
 * itself gets a fresh one, that nobody else has; with a list, @key says in which file it is, or
 * else $PENSTOCK_KEY, or ~/.config/penstock/key.
 */
struct pst_peer_options {
	const char *key;	 /* a file, NULL: see above */
	const char *listen_host; /* HOST[,HOST] of this host, on which what is started here
				  * listens; NULL: 127.0.0.1, or an RDMA device's */
	const char *const *server_at, *const *worker_at; /* lists, NULL: none */
	size_t nserver_at, nworker_at;
	uint32_t connect_timeout_ms; /* for servers and workers to appear */
	/*
	 * penstockd's socket, "" for the usual one: its workers and, if it has any, its servers are
	 * used as if they were lists, and it is asked again when one is gone. NULL: none.
	 */
	const char *daemon;
};

/* Training */

struct pst_train_options {
	size_t size;
	const char *preset;	 /* a built-in shape: "tiny", "nano"; or */
	const char *config;	 /* a config.json; exactly one of them, none when resuming */
	const char *const *data; /* files, directories, and @lists; .gz is read as it lies */
	size_t ndata;
	const char *out; /* directory for checkpoints, created; NULL: none */
	/*
	 * A checkpoint, or a directory of them: goes on from the last. The model and what
	 * shapes the numbers (seed, batch, seq, learning rates ...) come from it; steps, and
	 * where it runs, from here.
	 */
	const char *resume;
	/* "shm", "tcp" or "verbs", with settings if need be; NULL: that of the lists, else shm */
	const char *fabric;
	uint32_t embedded;	   /* 1: servers and workers are threads of this process */
	uint32_t servers, workers; /* to start; not looked at for a kind that has a list */
	uint64_t seed;
	uint32_t steps; /* in all, with those before a resume */
	uint32_t batch, seq;
	uint32_t save_every; /* steps, 0: only when asked */
	uint32_t keep;	     /* checkpoints to keep */
	double lr, lr_min;   /* peak, and where the cosine ends */
	uint32_t warmup;     /* steps of linear warm-up */
	double beta1, beta2, eps, weight_decay;
	double clip;	      /* largest global norm of the gradient, 0: no limit */
	double balance_alpha; /* sequence-wise balance loss, 0: none */
	double bias_rate;     /* speed of the gate's balance bias, 0: fixed */
	uint32_t worker_timeout_ms;
	struct pst_host_options host;
	struct pst_peer_options peers;
};

struct pst_trainer;

/* One step that was done. Counters are since the trainer was opened. */
struct pst_step_info {
	uint32_t step;	/* 1 for the first */
	double loss;	/* cross-entropy, nats per token */
	double balance; /* balance loss */
	double lr, grad_norm;
	double load_max_over_mean; /* of experts in this step, worst layer */
	uint64_t tokens;	   /* in this step */
};

struct pst_eval_info {
	uint64_t bytes; /* held out, each scored once */
	double loss;	/* nats per byte */
	double bits_per_byte;
	double gzip_bits_per_byte, xz_bits_per_byte; /* -9, over the same bytes */
};

/* What went between whom since the trainer was opened. */
struct pst_traffic {
	uint64_t pulled_engine;	 /* weights that the engine used */
	uint64_t pulled_workers; /* weights that workers used */
	uint64_t pushed_engine;	 /* gradients from the engine to servers */
	uint64_t pushed_workers; /* gradients from workers to servers */
	uint64_t dispatched;	 /* rows from the engine to workers */
	uint64_t combined;	 /* rows from workers to the engine */
	uint64_t moved;	 /* of all of these, bytes that crossed a link; the rest was in place */
	uint64_t copied; /* bytes that moved more than once */
	uint64_t read, saved; /* checkpoint bytes from and to disk */
	uint64_t worker_restarts;
	uint64_t experts_resent;
};

struct pst_part_info {
	char role[16]; /* "engine", "server", "worker" */
	char url[120];
	char kernels[16];
	char note[256]; /* what is worse than asked, and the command that mends it */
	uint32_t pid, threads;
	int32_t node;
	uint32_t locked;
	uint64_t page_bytes, pool_bytes;
};

struct pst_model_info {
	uint64_t parameters, active; /* active: per token */
	uint32_t layers, dense_layers, hidden, experts, topk, shared, vocab;
	uint64_t train_bytes, heldout_bytes; /* of text */
	uint32_t files;
};

PST_API void pst_train_defaults(struct pst_train_options *opts);
PST_API int pst_trainer_open(const struct pst_train_options *opts, struct pst_trainer **out,
			     struct pst_error *err);
PST_API void pst_trainer_close(struct pst_trainer *trainer); /* NULL is fine */

/* Steps are done: 1; else 0. */
PST_API int pst_trainer_done(const struct pst_trainer *trainer);
/* Step that the trainer has reached (not 0 after a resume). */
PST_API uint32_t pst_trainer_at(const struct pst_trainer *trainer);

/* -EDOM when the loss is no longer finite: nothing of that step was applied. Saves by itself
 * every save_every steps. */
PST_API int pst_trainer_step(struct pst_trainer *trainer, struct pst_step_info *out,
			     struct pst_error *err);

/* Score all held-out text. */
PST_API int pst_trainer_evaluate(struct pst_trainer *trainer, struct pst_eval_info *out,
				 struct pst_error *err);

/*
 * Write a checkpoint into the out directory, whole or not at all; its path goes
 * to @path of @len bytes (NULL: not).
 */
PST_API int pst_trainer_save(struct pst_trainer *trainer, char *path, size_t len,
			     struct pst_error *err);

/* Hash over the bits of every step's loss since step 1, also across resumes. */
PST_API uint64_t pst_trainer_digest(const struct pst_trainer *trainer);

PST_API void pst_trainer_traffic(struct pst_trainer *trainer, struct pst_traffic *out);
PST_API void pst_trainer_model(const struct pst_trainer *trainer, struct pst_model_info *out);
/* Part @i of engine, servers, workers; -ENOENT behind the last. */
PST_API int pst_trainer_part(struct pst_trainer *trainer, unsigned int i,
			     struct pst_part_info *out);

/* Generation */

struct pst_generate_options {
	size_t size;
	const char *checkpoint; /* or a directory of checkpoints: the last */
	const char *prompt;
	size_t prompt_bytes;
	double temperature; /* 0: always the likeliest */
	double top_p;	    /* 1: all */
	uint64_t seed;
	uint32_t context; /* bytes that it looks back on, 0: the rows it was trained on */
	struct pst_host_options host;
	const char *fabric;	   /* as for training; what is started here are threads */
	uint32_t servers, workers; /* to start; not looked at for a kind that has a list */
	struct pst_peer_options peers;
};

struct pst_generator;

PST_API void pst_generate_defaults(struct pst_generate_options *opts);
PST_API int pst_generator_open(const struct pst_generate_options *opts, struct pst_generator **out,
			       struct pst_error *err);
PST_API void pst_generator_close(struct pst_generator *gen); /* NULL is fine */
/*
 * The next byte into *byte: 1; 0 at the end of the text; -errno. When the context
 * is full its older half is forgotten.
 */
PST_API int pst_generator_next(struct pst_generator *gen, unsigned char *byte,
			       struct pst_error *err);
PST_API void pst_generator_model(const struct pst_generator *gen, struct pst_model_info *out);

/* Looking into a checkpoint */

struct pst_tensor_desc {
	const char *name, *dtype, *file; /* valid until the checkpoint is closed */
	uint32_t ndim;
	uint64_t shape[8];
	uint64_t bytes;
};

struct pst_inspect;

/* Opens and checks headers, config and (with @values) that every number is finite. */
PST_API int pst_inspect_open(const char *dir, int values, struct pst_inspect **out,
			     struct pst_error *err);
PST_API void pst_inspect_close(struct pst_inspect *inspect);
PST_API const char *pst_inspect_dir(const struct pst_inspect *inspect);
PST_API void pst_inspect_model(const struct pst_inspect *inspect, struct pst_model_info *out);
PST_API size_t pst_inspect_count(const struct pst_inspect *inspect);
PST_API int pst_inspect_tensor(const struct pst_inspect *inspect, size_t i,
			       struct pst_tensor_desc *out);
/* Steps that made it, -ENOENT when it says nothing of them. */
PST_API int pst_inspect_step(const struct pst_inspect *inspect, uint32_t *step);

/* Servers and workers */

struct pst_serve_options {
	size_t size;
	const char *url; /* to listen at; port 0 takes a free one */
	struct pst_host_options host;
	const char *key; /* a file; NULL: that of the URL's settings, or the usual places */
};

struct pst_server;
struct pst_worker;

PST_API void pst_serve_defaults(struct pst_serve_options *opts);
PST_API int pst_server_begin(const struct pst_serve_options *opts, struct pst_server **out,
			     struct pst_error *err);
/* Where it listens, without settings; valid until it is freed. */
PST_API const char *pst_server_url(const struct pst_server *server);
PST_API int pst_server_run(struct pst_server *server, struct pst_error *err);
PST_API void pst_server_end(struct pst_server *server); /* makes run return */
PST_API void pst_server_free(struct pst_server *server);

/* What a server did since it began. From any thread, while it runs or not. */
struct pst_server_stat {
	size_t size;
	uint64_t pool_bytes, read_bytes; /* in its pools; read from disk */
	uint64_t calls, busy_ns;
	uint32_t tables, clients, threads;
	int32_t node;
	char note[256]; /* what is worse than asked, and what mends it; or empty */
};
PST_API int pst_server_stat(struct pst_server *server, struct pst_server_stat *out);

/* Its part of a table. */
struct pst_table_stat {
	size_t size;
	uint32_t number, tensors, clients;
	uint64_t bytes, state_bytes, version, pushed;
	char name[32];
};
/* The part with the lowest number above @io->number; -ENOENT: there is none. From any thread. */
PST_API int pst_server_table(struct pst_server *server, struct pst_table_stat *io);

PST_API int pst_worker_begin(const struct pst_serve_options *opts, struct pst_worker **out,
			     struct pst_error *err);
PST_API const char *pst_worker_url(const struct pst_worker *worker);
PST_API int pst_worker_run(struct pst_worker *worker, struct pst_error *err);
PST_API void pst_worker_end(struct pst_worker *worker); /* makes run return */
PST_API void pst_worker_free(struct pst_worker *worker);

/*
 * Tell engines to go elsewhere and take no new ones; run returns 0 when the last has left.
 * From any thread.
 */
PST_API void pst_worker_drain(struct pst_worker *worker);

/* What a worker did since it began. From any thread, while it runs or not. */
struct pst_worker_stat {
	size_t size;
	uint64_t rows, calls, busy_ns;
	uint64_t busy_since_ns; /* CLOCK_MONOTONIC, of what it computes now; 0: nothing */
	uint64_t pulled, moved, copied;
	uint32_t engines, threads, draining;
	int32_t node;
	char kernels[16]; /* built in */
	char note[256];
};
PST_API int pst_worker_stat(struct pst_worker *worker, struct pst_worker_stat *out);

/* An expert as a worker has it, over all engines that it serves. */
struct pst_expert_stat {
	size_t size;
	uint32_t layer, index;
	uint64_t bytes, rows, pulled;
	uint32_t copied, pinned; /* 1: it has a copy, or has it mapped; 1: it keeps it */
};
/*
 * The next behind (@io->layer, @io->index) in the order of layers and indices; (~0, ~0) begins.
 * -ENOENT: there is none. From any thread.
 */
PST_API int pst_worker_expert(struct pst_worker *worker, struct pst_expert_stat *io);
/* PST_EXPERT_* of penstock/ioctl.h, with the errors that are named there. From any thread. */
PST_API int pst_worker_place(struct pst_worker *worker, uint32_t layer, uint32_t index,
			     uint32_t order, struct pst_error *err);

/*
 * Serve @op by the kernel in the shared object @image (kernels/image.h) from the next call on;
 * calls that run end with the old one. @image -1: by what is built in. The descriptor stays the
 * caller's. It is not tried here. -ENOEXEC with why. From any thread.
 */
PST_API int pst_worker_bind(struct pst_worker *worker, const char *op, int image,
			    struct pst_error *err);
/*
 * Hold what serves @op against ref, on inputs made of @seed: 0 or -EDOM; *@error is the worst
 * relative error. From any thread.
 */
PST_API int pst_worker_check(struct pst_worker *worker, const char *op, uint64_t seed,
			     double *error, struct pst_error *err);

/* Control: asking and ordering penstockd and penstock.ko (penstock/ioctl.h) */

struct pst_control;

/*
 * @door: a daemon's socket, or /dev/penstock; NULL: $PENSTOCK_SOCKET or the usual socket, and
 * the module for what the daemon does not serve, or when there is no daemon. -ECONNREFUSED,
 * -ENOENT: there is neither.
 */
PST_API int pst_control_open(const char *door, struct pst_control **out, struct pst_error *err);
PST_API void pst_control_close(struct pst_control *control); /* NULL is fine */
/*
 * As ioctl(2) with PST_IOC_*: @cmd is PST_CMD_*, @arg its struct. 0 or -errno as penstock/ioctl.h
 * says, with the door's sentence in @err; also -ECONNRESET when the daemon is gone (open again).
 */
PST_API int pst_control_call(struct pst_control *control, uint32_t cmd, void *arg,
			     struct pst_error *err);

#ifdef __cplusplus
}
#endif

#endif /* PENSTOCK_H */
