/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a test: perftest's letters and names where it has them. */
#include "tools/perf/perf.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	LAT = 1, /* write_lat read_lat send_lat */
	BW = 2,	 /* write_bw read_bw send_bw */
	PULL = 4,
	PUSH = 8,
	TOKENS = 16, /* dispatch combine */
	INCAST = 32,
	REG = 64,
	H2D = 128,
	BELL = 256,
	MOVES = LAT | BW | PULL | PUSH | TOKENS | INCAST,
	FABRIC = MOVES | REG,
	GPU = H2D | BELL,
	ANY = FABRIC | GPU,
};

static const struct {
	char letter;
	bool valued;
	const char *name;
} letters[] = {
	{'a', false, "all"},   {'d', true, "ib-dev"},	{'D', true, "duration"},
	{'e', false, "event"}, {'h', false, "help"},	{'n', true, "iters"},
	{'p', true, "port"},   {'q', true, "qp"},	{'Q', true, "cq-mod"},
	{'s', true, "size"},   {'t', true, "tx-depth"},
};

static unsigned int kind_of(const struct perf_test *test)
{
	if (test->run == perf_run_latency)
		return LAT;
	if (test->run == perf_run_bandwidth)
		return BW;
	if (test->run == perf_run_pull)
		return PULL;
	if (test->run == perf_run_push)
		return PUSH;
	if (test->run == perf_run_incast)
		return INCAST;
	if (test->kind == PERF_COPY)
		return H2D;
	if (test->kind == PERF_DOORBELL)
		return BELL;
	return test->run == perf_run_tokens ? TOKENS : REG;
}

/* "-s" becomes "--size", "-s4096" "--size=4096". NULL: out of memory. */
static char *spell_out(const char *word)
{
	char *out = NULL;

	for (size_t i = 0; i < sizeof(letters) / sizeof(*letters); i++) {
		if (word[0] != '-' || word[1] != letters[i].letter)
			continue;
		if (!word[2])
			return asprintf(&out, "--%s", letters[i].name) < 0 ? NULL : out;
		if (letters[i].valued)
			return asprintf(&out, "--%s=%s", letters[i].name, word + 2) < 0 ? NULL
											: out;
	}
	return strdup(word);
}

/* "64K" and the like; 0: no size. */
static uint64_t size_of(const char *text)
{
	static const char units[] = "KMG";
	char *end;
	unsigned long long n;
	const char *unit;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (!isdigit((unsigned char)*text) || errno)
		return 0;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		end++;
		if (n > UINT64_MAX >> 30)
			return 0;
		n <<= 10 * (unit - units + 1);
	}
	return *end ? 0 : n;
}

static int bad_size(const struct perf_plan *plan, const char *option, const char *text)
{
	return usage_error(plan->test->name, "--%s %s: not a size in bytes (64, 64K, 2M)", option,
			   text);
}

uint64_t perf_all_max(const struct perf_plan *plan)
{
	bool sends = plan->test->wire == PERF_ECHO || plan->test->wire == PERF_COUNT;

	return sends ? PST_MSG_MAX : PERF_ALL_MAX;
}

uint64_t perf_iterations(const struct perf_plan *plan, uint64_t size)
{
	uint64_t usual = plan->test->kind == PERF_LATENCY ? 1000 : 5000, most = (2ull << 30) / size;

	if (plan->iters_given)
		return plan->iters;
	/* so that a 99.99th percentile is of ten */
	if (plan->test->kind == PERF_DOORBELL)
		return 100000;
	if (plan->test->kind == PERF_WORK)
		usual = 1000;
	return most < 100 ? 100 : most < usual ? most : usual;
}

uint64_t perf_warm_up(const struct perf_plan *plan, uint64_t iters)
{
	uint64_t most = plan->test->kind == PERF_BANDWIDTH ? plan->depth : 1000;

	if (plan->warm_up_given)
		return plan->warm_up;
	return iters / 10 < most ? iters / 10 + 1 : most;
}

static int take_cpus(struct perf_plan *plan)
{
	char more;

	plan->cpu[0] = -1;
	plan->cpu[1] = -1;
	if (plan->pin && plan->cpus)
		return usage_error(plan->test->name, "--cpu and --pin exclude each other");
	if (plan->pin) {
		plan->cpu[0] = 0;
		plan->cpu[1] = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 1 : 0;
	}
	if (plan->cpus &&
	    (sscanf(plan->cpus, "%d,%d%c", &plan->cpu[0], &plan->cpu[1], &more) == 0 ||
	     strspn(plan->cpus, "0123456789,") != strlen(plan->cpus)))
		return usage_error(plan->test->name, "--cpu %s: not one or two CPUs (0 or 0,1)",
				   plan->cpus);
	return -1;
}

static int take_routing(struct perf_plan *plan)
{
	const char *r = plan->routing;
	char *end;

	plan->zipf = 1;
	if (!strcmp(r, "uniform"))
		plan->routing_kind = ROUTING_UNIFORM;
	else if (!strncmp(r, "zipf", 4) && (!r[4] || r[4] == ':')) {
		plan->routing_kind = ROUTING_ZIPF;
		if (r[4])
			plan->zipf = strtod(r + 5, &end);
		if (r[4] && (!r[5] || *end || !(plan->zipf >= 0) || plan->zipf > 10))
			return usage_error(plan->test->name,
					   "--routing %s: the exponent is not between 0 and 10", r);
	} else if (!strncmp(r, "trace:", 6) && r[6]) {
		plan->routing_kind = ROUTING_TRACE;
		plan->trace = r + 6;
	} else
		return usage_error(plan->test->name,
				   "--routing %s: not uniform, zipf, zipf:EXPONENT or trace:FILE",
				   r);
	return -1;
}

static int take_size(struct perf_plan *plan, const char *size)
{
	bool lat = plan->test->kind == PERF_LATENCY, sends = perf_all_max(plan) == PST_MSG_MAX;

	plan->size = lat				 ? 2
		     : sends				 ? PST_MSG_MAX
		     : plan->test->kind == PERF_REGISTER ? 256u << 20
		     : plan->test->kind == PERF_COPY	 ? 16u << 20
							 : 65536;
	if (size) {
		plan->size = size_of(size);
		if (!plan->size)
			return bad_size(plan, "size", size);
	}
	if (sends && plan->size > PST_MSG_MAX)
		return usage_error(plan->test->name,
				   "--size %s: a message has %d bytes at most; write_bw and "
				   "write_lat move more",
				   size, PST_MSG_MAX);
	if (plan->size > PERF_SIZE_MAX && plan->test->kind != PERF_REGISTER)
		return usage_error(plan->test->name, "--size %s: 1 GiB at most", size);
	return -1;
}

/* What contradicts, or makes no sense in this test. */
static int check(const struct perf_plan *plan)
{
	const char *name = plan->test->name;

	if (plan->hosts.count && perf_alone(plan->test))
		return usage_error(name, "'%s': there is no peer in this test",
				   plan->hosts.item[0]);
	if (plan->all && plan->size_given)
		return usage_error(name, "--all and --size exclude each other");
	if (plan->duration > 0 && plan->iters_given)
		return usage_error(name, "--iters and --duration exclude each other");
	if (plan->iters_given && !plan->iters)
		return usage_error(name, "--iters 0: not even once");
	if (plan->poll && plan->event)
		return usage_error(name, "--poll and --event exclude each other");
	if (plan->event && plan->test->wire == PERF_WRITE_BACK)
		return usage_error(name, "--event: write_lat looks at memory, it cannot sleep; "
					 "send_lat can");
	if (plan->topk > plan->experts && kind_of(plan->test) == TOKENS)
		return usage_error(name, "--topk %u: there are %u experts", plan->topk,
				   plan->experts);
	if (plan->hosts.count > 8)
		return usage_error(name, "more than 8 hosts");
	if (plan->hosts.count > 1 && kind_of(plan->test) != TOKENS)
		return usage_error(name, "'%s': one host is enough; rails are one word, A,B",
				   plan->hosts.item[1]);
	if (plan->self && !strcmp(plan->fabric, "verbs") && !plan->hosts.count)
		return usage_error(name, "--self over verbs needs HOST, the address of the RDMA "
					 "device (ip addr)");
	return -1;
}

static int check_fabric(const struct perf_plan *plan)
{
	static const char *const local[] = {"localhost", "127.0.0.1", "::1"};
	bool here = false;

	if (strcmp(plan->fabric, "shm"))
		return strcmp(plan->fabric, "tcp") && strcmp(plan->fabric, "verbs")
			       ? usage_error(plan->test->name, "--fabric %s: not shm, tcp or verbs",
					     plan->fabric)
			       : -1;
	for (size_t h = 0; h < plan->hosts.count; h++) {
		for (size_t i = 0; i < 3; i++)
			here |= !strcmp(plan->hosts.item[h], local[i]);
		if (!here)
			return usage_error(
				plan->test->name,
				"'%s': over shm there is only localhost; --fabric tcp or "
				"verbs reaches other hosts",
				plan->hosts.item[h]);
	}
	return -1;
}

__attribute__((format(printf, 3, 4))) static void add_setting(char *to, size_t size,
							      const char *fmt, ...)
{
	size_t n = strlen(to);
	va_list ap;

	n += (size_t)snprintf(to + n, size - n, "%c", n ? '&' : '?');
	va_start(ap, fmt);
	vsnprintf(to + n, size - n, fmt, ap);
	va_end(ap);
}

static void make_settings(struct perf_plan *plan)
{
	char *to = plan->settings;
	size_t size = sizeof(plan->settings);

	*to = 0;
	if (plan->timeout_ms)
		add_setting(to, size, "timeout=%u", plan->timeout_ms);
	if (plan->no_crc)
		add_setting(to, size, "crc=0");
	if (plan->dev)
		add_setting(to, size, "dev=%s", plan->dev);
	if (plan->key)
		add_setting(to, size, "key=%s", plan->key);
	if (plan->set)
		add_setting(to, size, "%s", plan->set);
}

/* Hosts as a URL has them: IPv6 addresses in brackets. */
static void put_hosts(const char *hosts, char *out, size_t size)
{
	size_t n = 0;

	*out = 0;
	while (*hosts && n < size) {
		int len = (int)strcspn(hosts, ",");
		bool bare = *hosts != '[' && memchr(hosts, ':', (size_t)len);

		n += (size_t)snprintf(out + n, size - n, bare ? "[%.*s]" : "%.*s", len, hosts);
		hosts += len;
		if (*hosts && n < size)
			n += (size_t)snprintf(out + n, size - n, ",");
		hosts += *hosts == ',';
	}
}

void perf_url(const struct perf_plan *plan, const char *host, unsigned int port, char *url)
{
	char hosts[300];

	put_hosts(host, hosts, sizeof(hosts));
	if (!strcmp(plan->fabric, "shm"))
		snprintf(url, PERF_URL_MAX, "shm://perf-%u%s", port, plan->settings);
	else
		snprintf(url, PERF_URL_MAX, "%.8s://%s:%u%s", plan->fabric, hosts, port,
			 plan->settings);
}

/* Threads that spin while others wait for their CPU show the scheduler, not the fabric. */
static void make_room(struct perf_plan *plan)
{
	uint32_t threads =
		plan->engines + plan->self * (kind_of(plan->test) == TOKENS ? plan->workers : 1);

	if (!(kind_of(plan->test) & (TOKENS | INCAST)) || plan->poll || plan->event ||
	    (long)threads <= sysconf(_SC_NPROCESSORS_ONLN))
		return;
	plan->event = 1;
	plan->crowded = true;
}

static void make_urls(struct perf_plan *plan)
{
	make_settings(plan);
	plan->nurls = plan->hosts.count ? (unsigned int)plan->hosts.count : 1;
	for (unsigned int i = 0; i < plan->nurls; i++)
		perf_url(plan,
			 plan->hosts.count ? plan->hosts.item[i]
			 : plan->bind	   ? plan->bind
					   : "0.0.0.0",
			 plan->port, plan->url[i]);
}

/* "cuda:N" */
static int take_device(struct perf_plan *plan)
{
	unsigned int n;
	char more;

	if (!plan->device)
		return -1;
	if (sscanf(plan->device, "cuda:%4u%c", &n, &more) != 1 ||
	    !isdigit((unsigned char)plan->device[5]))
		return usage_error(plan->test->name,
				   "--device %s: not cuda:N with N from nvidia-smi -L",
				   plan->device);
	plan->ordinal = (int)n;
	return -1;
}

static int finish(struct perf_plan *plan, const char *size, const char *page)
{
	int rc = take_cpus(plan);

	if (rc < 0)
		rc = take_routing(plan);
	if (rc < 0)
		rc = take_device(plan);
	if (rc < 0)
		rc = take_size(plan, size);
	if (rc < 0 && page) {
		plan->page = size_of(page);
		if (plan->page & (plan->page - 1) || plan->page < 4096 || plan->page > 1u << 30)
			rc = usage_error(plan->test->name, "--pages %s: not 4K, 2M or 1G", page);
	}
	if (rc < 0)
		rc = check(plan);
	if (rc < 0)
		rc = check_fabric(plan);
	if (rc < 0) {
		make_room(plan);
		make_urls(plan);
	}
	/* the key of --self comes to it */
	if (rc < 0 && strlen(plan->settings) + sizeof(plan->key_path) + 8 > PERF_SET_MAX)
		rc = usage_error(plan->test->name, "more settings than fit into a URL");
	return rc;
}

/* A row, and the tests in which it means something. */
struct perf_option {
	struct option_row row;
	unsigned int tests;
};

/* Which given option means nothing here? */
static int check_given(const struct perf_plan *plan, const struct perf_option *opt, size_t n,
		       const int *given)
{
	for (size_t i = 0; i < n; i++)
		if (given[i] && !(opt[i].tests & kind_of(plan->test)))
			return usage_error(plan->test->name, "--%s means nothing here",
					   opt[i].row.name);
	return -1;
}

static int parse(int argc, char **argv, struct perf_plan *p, const struct perf_option *opt,
		 size_t n)
{
	struct option_row rows[64];
	char synopsis[64], intro[128];
	int given[64] = {0}, rc;
	size_t shown = 0;

	snprintf(synopsis, sizeof(synopsis), "%s[OPTION...]", perf_alone(p->test) ? "" : "[HOST] ");
	snprintf(intro, sizeof(intro), "Measure %s.%s", p->test->help,
		 perf_alone(p->test) ? "" : " Without HOST it serves, whatever the test.");
	rows[shown++] = (struct option_row){"", NULL, OPT_TITLE, NULL, 0, 0, intro, NULL};
	for (size_t i = 0; i < n; i++) {
		rows[shown] = opt[i].row;
		rows[shown++].given = &given[i];
	}
	rc = parse_options(argc, argv, p->test->name, synopsis, rows, shown, &p->hosts);
	for (size_t i = 0; i < n; i++)
		if (opt[i].row.given)
			*opt[i].row.given = given[i];
	/* a server is told by its clients; it takes what it is given with */
	if (rc < 0 && (p->hosts.count || p->self || perf_alone(p->test)))
		rc = check_given(p, opt, n, given);
	return rc;
}

static int parse_plan(int argc, char **argv, struct perf_plan *p)
{
	const char *size = NULL, *page = NULL;
	const struct perf_option opt[] = {
		{{"fabric", "NAME", OPT_TEXT, &p->fabric, 0, 0, "shm, tcp or verbs (default shm)",
		  NULL},
		 FABRIC},
		{{"ib-dev", "DEV", OPT_TEXT, &p->dev, 0, 0,
		  "-d: this RDMA device, or A,B: a rail each", NULL},
		 FABRIC},
		{{"device", "cuda:N", OPT_TEXT, &p->device, 0, 0, "this GPU; without it cuda:0",
		  NULL},
		 GPU},
		{{"image", "FILE", OPT_TEXT, &p->image, 0, 0,
		  "kernels for the GPU, in place of those that are built in", NULL},
		 BELL},
		{{"port", "N", OPT_U32, &p->port, 1, 65535, "-p: the server's (default 18515)",
		  NULL},
		 MOVES},
		{{"self", NULL, OPT_FLAG, &p->self, 0, 0, "be the server too, on this machine",
		  NULL},
		 MOVES},
		{{"bind", "HOST", OPT_TEXT, &p->bind, 0, 0,
		  "where a server listens; without it everywhere, or at HOST with --self", NULL},
		 MOVES},
		{{"key", "FILE", OPT_TEXT, &p->key, 0, 0,
		  "what both sides of tcp and verbs must have; --self makes one", NULL},
		 MOVES},
		{{"size", "BYTES", OPT_TEXT, &size, 0, 0,
		  "-s: of one request, with K, M or G; without it as perftest", &p->size_given},
		 LAT | BW | PULL | INCAST | REG | H2D},
		{{"all", NULL, OPT_FLAG, &p->all, 0, 0, "-a: all sizes from 2 to 8 MiB", NULL},
		 LAT | BW | H2D},
		{{"iters", "N", OPT_U64, &p->iters, 0, 0, "-n: how often; without it as perftest",
		  &p->iters_given},
		 ANY},
		{{"duration", "SECONDS", OPT_REAL, &p->duration, 0.01, 1e6,
		  "-D: so long, for each size", NULL},
		 MOVES | GPU},
		{{"warm-up", "N", OPT_U32, &p->warm_up, 0, 1e9,
		  "as often before, not counted; without it a tenth", &p->warm_up_given},
		 MOVES | GPU},
		{{"qp", "N", OPT_U32, &p->links, 1, 128, "-q: links (default 1)", NULL},
		 BW | PULL | PUSH},
		{{"tx-depth", "N", OPT_U32, &p->depth, 1, 65536,
		  "-t: requests under way on a link (default 128)", &p->depth_given},
		 BW | PULL | PUSH | INCAST | H2D},
		{{"cq-mod", "N", OPT_U32, &p->moderation, 1, 1024,
		  "-Q: a completion for so many small requests (default 32)", NULL},
		 BW | INCAST},
		{{"poll", NULL, OPT_FLAG, &p->poll, 0, 0, "spin for completions, as is the default",
		  NULL},
		 MOVES},
		{{"event", NULL, OPT_FLAG, &p->event, 0, 0, "-e: sleep until completions come",
		  NULL},
		 MOVES},
		{{"cpu", "A,B", OPT_TEXT, &p->cpus, 0, 0, "run on CPU A, the server of --self on B",
		  NULL},
		 ANY},
		{{"pin", NULL, OPT_FLAG, &p->pin, 0, 0, "the same as --cpu 0,1", NULL}, ANY},
		{{"pages", "SIZE", OPT_TEXT, &page, 0, 0, "memory in pages of 4K, 2M or 1G", NULL},
		 ANY},
		{{"timeout", "MS", OPT_U32, &p->timeout_ms, 100, 600000,
		  "how long a request may take; without it as the fabric has it", NULL},
		 ANY},
		{{"no-crc", NULL, OPT_FLAG, &p->no_crc, 0, 0, "messages without CRC32C", NULL},
		 FABRIC},
		{{"set", "NAME=VALUE", OPT_TEXT, &p->set, 0, 0,
		  "another setting of the fabric, or several: conns=4&io=epoll", NULL},
		 FABRIC},
		{{"engines", "N", OPT_U32, &p->engines, 1, 64,
		  "engines or writers, a thread each (default 2)", NULL},
		 TOKENS | INCAST},
		{{"workers", "N", OPT_U32, &p->workers, 1, 8, "workers of the experts (default 2)",
		  NULL},
		 TOKENS},
		{{"experts", "N", OPT_U32, &p->experts, 1, 65536, "how many there are (default 16)",
		  NULL},
		 PULL | TOKENS},
		{{"hidden", "N", OPT_U32, &p->hidden, 1, 65536, "width of a token (default 1024)",
		  NULL},
		 PULL | PUSH | TOKENS},
		{{"inter", "N", OPT_U32, &p->inter, 1, 65536,
		  "width inside an expert (default 512)", NULL},
		 PULL | PUSH},
		{{"tokens", "N", OPT_U32, &p->tokens, 1, 65536,
		  "of one step and engine (default 128)", NULL},
		 TOKENS},
		{{"topk", "N", OPT_U32, &p->topk, 1, 64, "experts of a token (default 4)", NULL},
		 TOKENS},
		{{"routing", "HOW", OPT_TEXT, &p->routing, 0, 0,
		  "which experts: uniform, zipf, zipf:EXPONENT, trace:FILE (default uniform)",
		  NULL},
		 PULL | TOKENS},
		{{"seed", "N", OPT_U32, &p->seed, 0, 4294967295.0, "of the routing (default 1)",
		  NULL},
		 PULL | TOKENS},
		{{"chunks", "LIST", OPT_TEXT, &p->chunks, 0, 0,
		  "sizes to register in, the most pieces first: 64M,256M,1G", NULL},
		 REG},
		{{"compare", "FILE", OPT_TEXT, &p->compare, 0, 0,
		  "beside an earlier run: ours by --json, or what perftest printed", NULL},
		 LAT | BW | INCAST | PULL | PUSH | TOKENS},
		{{"json", "FILE", OPT_TEXT, &p->json, 0, 0, "the same as JSON; - for stdout", NULL},
		 ANY},
	};
	int rc = parse(argc, argv, p, opt, sizeof(opt) / sizeof(*opt));

	return rc < 0 ? finish(p, size, page) : rc;
}

int perf_options(int argc, char **argv, const struct perf_test *test, struct perf_plan *plan)
{
	char **word = calloc((size_t)argc + 1, sizeof(*word));
	int rc = word ? -1 : EXIT_FAILED;

	*plan = (struct perf_plan){.test = test,
				   .word = word,
				   .fabric = "shm",
				   .routing = "uniform",
				   .port = PERF_PORT,
				   .links = 1,
				   .depth = 128,
				   .moderation = 32,
				   .engines = 2,
				   .workers = 2,
				   .experts = 16,
				   .hidden = 1024,
				   .inter = 512,
				   .tokens = 128,
				   .topk = 4,
				   .seed = 1};
	for (int i = 0; rc < 0 && i < argc; i++) {
		word[i] = spell_out(argv[i]);
		if (!word[i])
			rc = EXIT_FAILED;
	}
	if (rc < 0)
		rc = parse_plan(argc, word, plan);
	return rc;
}

void perf_plan_free(struct perf_plan *plan)
{
	for (char **w = plan->word; w && *w; w++)
		free(*w);
	free(plan->word);
	free_list(&plan->hosts);
}
