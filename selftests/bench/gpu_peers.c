/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_peers.c - the peers of gpu_peers.py: a child that gets a line for each work and answers with
 * one, "SECONDS NAME" for each peer between tabs, or an empty one.
 */
#include "selftests/bench/gpu.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct peers {
	pid_t pid;
	FILE *to, *from;
};

static void be_script(const char *script, const int in[2], const int out[2])
{
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	for (int i = 0; i < 2; i++)
		close(in[i]), close(out[i]);
	execlp("python3", "python3", script, (char *)NULL);
	_exit(4);
}

static bool start(struct peers *p, const char *script)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC))
		return false;
	if (pipe2(out, O_CLOEXEC)) {
		close(in[0]), close(in[1]);
		return false;
	}
	fflush(stdout);
	p->pid = fork();
	if (!p->pid)
		be_script(script, in, out);
	close(in[0]), close(out[1]);
	p->to = fdopen(in[1], "w");
	p->from = fdopen(out[0], "r");
	return p->pid > 0 && p->to && p->from;
}

/* The first line says what it is, "READY torch 2.11", or why it cannot be. */
struct peers *peers_open(const char *script, char *why, size_t len)
{
	static struct peers p;
	char line[256] = "";

	signal(SIGPIPE, SIG_IGN);
	if (!start(&p, script)) {
		snprintf(why, len, "no child can be started for them");
		return NULL;
	}
	if (!fgets(line, sizeof(line), p.from))
		snprintf(line, sizeof(line), "python3 is not here, or ends at once");
	line[strcspn(line, "\n")] = '\0';
	snprintf(why, len, "%s", strncmp(line, "READY ", 6) ? line : line + 6);
	if (!strncmp(line, "READY ", 6))
		return &p;
	peers_close(&p);
	return NULL;
}

void peers_ask(struct peers *p, const struct bench_work *w, struct bench_row *row)
{
	char line[512], *at = line, *one;

	if (!p || !w->ask[0])
		return;
	fprintf(p->to, "%s\n", w->ask);
	if (fflush(p->to) || !fgets(line, sizeof(line), p->from))
		return;
	line[strcspn(line, "\n")] = '\0';
	while ((one = strsep(&at, "\t")) && row->npeers < BENCH_PEERS) {
		double time = 0;
		char name[48];

		if (sscanf(one, "%lf %47[^\t\"\\]", &time, name) != 2 || time <= 0)
			continue;
		row->peer[row->npeers].time = time;
		snprintf(row->peer[row->npeers++].name, sizeof(name), "%s", name);
	}
}

void peers_close(struct peers *p)
{
	if (!p)
		return;
	fclose(p->to);
	fclose(p->from);
	waitpid(p->pid, NULL, 0);
}
