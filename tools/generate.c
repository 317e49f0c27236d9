/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/peers.h"
#include "tools/penstock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_all(struct pst_generator *gen, uint32_t max, int show, char *text, size_t *n,
		     struct pst_error *err)
{
	unsigned char byte;
	int rc = 0;

	for (*n = 0; *n < max; ++*n) {
		rc = pst_generator_next(gen, &byte, err);
		if (rc <= 0)
			break;
		text[*n] = (char)byte;
		if (show) {
			putchar(byte);
			fflush(stdout);
		}
	}
	if (show)
		putchar('\n');
	return rc < 0 ? rc : 0;
}

static int generate(const struct pst_generate_options *o, uint32_t max, const char *json)
{
	int show = !json || strcmp(json, "-"), rc;
	struct pst_generator *gen = NULL;
	struct pst_error err = {0};
	char *text = malloc((size_t)max + 1);
	double begin = 0;
	size_t n = 0;

	if (!text) {
		snprintf(err.text, sizeof(err.text), "no memory for %u tokens", max);
		return say_error("generate", &err);
	}
	rc = pst_generator_open(o, &gen, &err);
	if (!rc) {
		if (show)
			fwrite(o->prompt, 1, o->prompt_bytes, stdout);
		begin = seconds_now();
		rc = write_all(gen, max, show, text, &n, &err);
		begin = seconds_now() - begin;
	}
	pst_generator_close(gen);
	if (rc < 0)
		rc = say_error("generate", &err);
	else if (json)
		rc = write_json(
			"generate", json,
			json_pack("{s:o, s:o, s:I, s:I, s:f, s:f, s:f, s:f, s:I}", "prompt",
				  json_text(o->prompt, o->prompt_bytes), "text", json_text(text, n),
				  "prompt_tokens", (json_int_t)o->prompt_bytes, "tokens",
				  (json_int_t)n, "seconds", begin, "tokens_per_second",
				  begin > 0 ? (double)n / begin : 0.0, "temperature",
				  o->temperature, "top_p", o->top_p, "seed", (json_int_t)o->seed));
	free(text);
	return rc;
}

int cmd_generate(int argc, char **argv)
{
	struct pst_generate_options o;
	struct opt_list words = {0};
	struct peers peers = {0};
	uint32_t max = 256;
	const char *json = NULL;
	int rc;

	pst_generate_defaults(&o);
	o.prompt = "\n";
	const struct option_row rows[] = {
		{"", NULL, OPT_TITLE, NULL, 0, 0,
		 "Continue a text with the model in DIR: a checkpoint (config.json and\n"
		 "model*.safetensors), or a directory of checkpoints, of which the last is taken.",
		 NULL},
		{"prompt", "TEXT", OPT_TEXT, &o.prompt, 0, 0,
		 "text to continue (default a newline)", NULL},
		{"max-tokens", "N", OPT_U32, &max, 0, 1 << 30,
		 "write N bytes at most (default 256)", NULL},
		{"temperature", "T", OPT_REAL, &o.temperature, 0, 100,
		 "0: always the likeliest (default 0.8)", NULL},
		{"top-p", "P", OPT_REAL, &o.top_p, 1e-9, 1,
		 "draw from the likeliest that sum to P (default 0.95)", NULL},
		{"seed", "N", OPT_U64, &o.seed, 0, 0, "the same seed writes the same (default 1)",
		 NULL},
		{"context", "N", OPT_U32, &o.context, 0, 1 << 30,
		 "bytes to look back on (default 0: the rows it was trained on)", NULL},
		{"threads", "N", OPT_U32, &o.host.threads, 0, 4096,
		 "threads that compute (default 0: all cores)", NULL},
		{"device", "D", OPT_TEXT, &o.host.device, 0, 0,
		 "what computes here: cpu (default), cuda:N, or WORKERS,ENGINE", NULL},
		{"workers", "N", OPT_U32, &o.workers, 1, 256,
		 "expert workers, as threads of this process (default 1)", &peers.workers},
		{"servers", "N", OPT_U32, &o.servers, 1, 256,
		 "parameter servers, as threads of this process (default 1)", &peers.servers},
		{"fabric", "NAME", OPT_TEXT, &o.fabric, 0, 0,
		 "shm, tcp or verbs, with settings if need be: tcp?timeout=5000", NULL},
		{"server-at", "URL...", OPT_LIST, &peers.server_at, 0, 0,
		 "servers that run already: tcp://HOST[:PORT], or HOST[:PORT]", NULL},
		{"worker-at", "URL...", OPT_LIST, &peers.worker_at, 0, 0,
		 "workers that run already", NULL},
		{"daemon", "[=SOCKET]", OPT_MAYBE, &o.peers.daemon, 0, 0,
		 "workers, and servers if it has any, are those that penstockd keeps", NULL},
		{"listen-host", "HOST[,HOST]", OPT_TEXT, &o.peers.listen_host, 0, 0,
		 "address of this host for what is started here, several for rails", NULL},
		{"key", "FILE", OPT_TEXT, &o.peers.key, 0, 0,
		 "what all share over tcp and verbs: penstock-ps(8) says how to make it", NULL},
		{"connect-timeout", "MS", OPT_U32, &o.peers.connect_timeout_ms, 1, 1e9,
		 "wait so long for servers and workers to appear (default 20000)", NULL},
		{"json", "FILE", OPT_TEXT, &json, 0, 0, "what was written, as JSON; - for stdout",
		 NULL},
	};

	rc = parse_options(argc, argv, "generate", "DIR [OPTION...]", rows,
			   sizeof(rows) / sizeof(*rows), &words);
	if (rc < 0 && words.count != 1)
		rc = usage_error("generate", words.count ? "more than one DIR" : "DIR is missing");
	if (rc < 0)
		rc = take_peers("generate", &peers, &o.peers, &o.servers, &o.workers);
	if (rc < 0) {
		o.checkpoint = words.item[0];
		o.prompt_bytes = strlen(o.prompt);
		rc = generate(&o, max, json);
	}
	free_peers(&peers);
	free_list(&words);
	return rc;
}
