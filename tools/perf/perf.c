/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-perf: what a fabric gives to the traffic of a Mixture-of-Experts model. */
#include "tools/perf/perf.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <string.h>

const struct perf_test perf_tests[] = {
	{"write_bw", "RDMA_Write BW Test", "bandwidth of one-sided writes", PERF_BANDWIDTH,
	 PERF_PASSIVE, perf_run_bandwidth},
	{"write_lat", "RDMA_Write Latency Test", "latency of one-sided writes", PERF_LATENCY,
	 PERF_WRITE_BACK, perf_run_latency},
	{"read_bw", "RDMA_Read BW Test", "bandwidth of one-sided reads", PERF_BANDWIDTH,
	 PERF_PASSIVE, perf_run_bandwidth},
	{"read_lat", "RDMA_Read Latency Test", "latency of one-sided reads", PERF_LATENCY,
	 PERF_PASSIVE, perf_run_latency},
	{"send_bw", "Send BW Test", "bandwidth of small messages", PERF_BANDWIDTH, PERF_COUNT,
	 perf_run_bandwidth},
	{"send_lat", "Send Latency Test", "latency of small messages", PERF_LATENCY, PERF_ECHO,
	 perf_run_latency},
	{"pull", "Pull of experts", "one-sided reads of whole experts from a server", PERF_WORK,
	 PERF_PASSIVE, perf_run_pull},
	{"push", "Push of gradients", "writes of whole gradients that the server sums", PERF_WORK,
	 PERF_SUM, perf_run_push},
	{"dispatch", "Dispatch of tokens", "tokens from engines to the experts' workers", PERF_WORK,
	 PERF_ANSWER, perf_run_tokens},
	{"combine", "Combine of tokens", "tokens back from the workers, and their sum", PERF_WORK,
	 PERF_RETURN, perf_run_tokens},
	{"incast", "Incast", "many writers to one server", PERF_BANDWIDTH, PERF_PASSIVE,
	 perf_run_incast},
	{"register", "Registration", "time to register memory, by chunk and page size",
	 PERF_REGISTER, PERF_PASSIVE, perf_run_register},
	{"h2d", "Copies between host and GPU",
	 "copies between pinned memory and a GPU's, by its copy engines", PERF_COPY, PERF_PASSIVE,
	 perf_run_h2d},
	{"doorbell", "Doorbell of a GPU",
	 "time to have a GPU answer: resident kernel, launch, graph", PERF_DOORBELL, PERF_PASSIVE,
	 perf_run_doorbell},
};
const size_t perf_ntests = sizeof(perf_tests) / sizeof(*perf_tests);

static void help(FILE *out)
{
	fprintf(out, "Usage: penstock-perf TEST [HOST...] [OPTION...]\n"
		     "       penstock-perf doctor [HOST] [OPTION...]\n"
		     "Measure what a fabric gives. Without HOST it serves clients; with --self it "
		     "is both.\n"
		     "\n");
	for (size_t i = 0; i < perf_ntests; i++)
		fprintf(out, "  %-10s %s\n", perf_tests[i].name, perf_tests[i].help);
	fprintf(out,
		"  %-10s %s\n"
		"\n"
		"Each explains itself: penstock-perf TEST --help\n"
		"Exit status: 0 done, 1 failed, 2 usage.\n",
		"doctor", "check this machine, or the path to HOST, before any work");
}

static int say_error(const char *test, const struct pst_error *err, int rc)
{
	fflush(stdout);
	fprintf(stderr, "penstock-perf %s: %s\n", test, err->text[0] ? err->text : strerror(-rc));
	return EXIT_FAILED;
}

/* How many servers --self needs. */
static unsigned int servers_of(const struct perf_plan *plan)
{
	return plan->test->run == perf_run_tokens ? plan->workers : 1;
}

static int measure(struct perf_plan *plan, struct pst_error *err)
{
	struct perf_self self = {.key_fd = -1};
	struct perf_report report;
	int rc = 0, code;

	if (plan->self)
		rc = perf_self_start(plan, servers_of(plan), &self, err);
	if (!rc)
		rc = perf_pin(plan->cpu[0], err);
	if (!rc)
		rc = perf_report_open(plan, &report, err);
	if (!rc) {
		rc = plan->test->run(plan, &report, err);
		if (rc > 0)
			rc = -EIO;
		code = perf_report_close(&report, !rc);
		rc = rc ? rc : code;
	}
	perf_self_stop(&self);
	return rc;
}

static int run(int argc, char **argv, const struct perf_test *test)
{
	struct perf_plan plan = {0};
	struct pst_error err = {0};
	int rc = perf_options(argc, argv, test, &plan);

	if (rc >= 0)
		goto free_plan;
	perf_clock_start();
	if (!plan.hosts.count && !plan.self && !perf_alone(test))
		rc = perf_serve(&plan, plan.url[0], -1, &err);
	else
		rc = measure(&plan, &err);
	if (rc < 0)
		rc = say_error(test->name, &err, rc);
free_plan:
	perf_plan_free(&plan);
	return rc;
}

int main(int argc, char **argv)
{
	options_program = "penstock-perf";
	setlocale(LC_CTYPE, "");
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		help(stdout);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "doctor"))
		return perf_doctor(argc - 1, argv + 1);
	for (size_t i = 0; i < perf_ntests; i++)
		if (!strcmp(argv[1], perf_tests[i].name))
			return run(argc - 1, argv + 1, &perf_tests[i]);
	fprintf(stderr, "penstock-perf: unknown test '%s'; see penstock-perf --help\n", argv[1]);
	return EXIT_USAGE;
}
