/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's figures over HTTP: whole, in the format that Prometheus reads, and nothing else. */
#include "selftests/control/daemon.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

FIXTURE(metrics)
{
	struct daemon d;
	struct sockaddr_un at;
};

FIXTURE_SETUP(metrics)
{
	char config[256];

	daemon_init(&self->d);
	self->at.sun_family = AF_UNIX;
	snprintf(self->at.sun_path, sizeof(self->at.sun_path), "%s/m", self->d.folder);
	snprintf(config, sizeof(config), "[daemon]\nmetrics = unix:%s\n", self->at.sun_path);
	daemon_configure(&self->d, config);
	daemon_run(&self->d);
}

FIXTURE_TEARDOWN(metrics)
{
	struct stat st;

	EXPECT_EQ(0, daemon_stop(&self->d));
	EXPECT_EQ(-1, stat(self->at.sun_path, &st));
}

static int dial(const struct fixture_metrics *self)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT_EQ(0, connect(fd, (const struct sockaddr *)&self->at, sizeof(self->at)));
	return fd;
}

/* All that comes until the other side closes; to be freed. */
static char *hear(int fd)
{
	size_t len = 0, size = 1 << 20;
	char *text = malloc(size);
	ssize_t n;

	while (len < size - 1 && (n = recv(fd, text + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fd);
	return text;
}

static char *ask(const struct fixture_metrics *self, const char *request)
{
	int fd = dial(self);

	ASSERT_EQ((ssize_t)strlen(request), send(fd, request, strlen(request), MSG_NOSIGNAL));
	return hear(fd);
}

#define GET "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void expect_said(const char *answer, const char *what)
{
	if (strstr(answer, what))
		return;
	test_say(__FILE__, __LINE__, "lacks \"%s\": %.2000s", what, answer);
	test_failed = true;
}

TEST_F(metrics, figures)
{
	char *answer = ask(self, GET);

	EXPECT_EQ(0, strncmp(answer, "HTTP/1.1 200 ", 13));
	expect_said(answer, "text/plain; version=0.0.4; charset=utf-8");
	expect_said(answer, "\npenstock_build_info{version=\"" PST_VERSION "\"} 1\n");
	expect_said(answer, "\n# TYPE penstock_worker_rows_total counter\n");
	expect_said(answer, "\npenstock_device_info{device=\"1\",kind=\"cpu\",node=\"");
	expect_said(answer, "\npenstock_experts 0\n");
	expect_said(answer, "\npenstock_events_total{type=\"started\"} 0\n");
	free(answer);
}

/* What changes is there the next time. */
TEST_F(metrics, a_pool_is_told_of)
{
	struct pst_control *control = daemon_connect(&self->d);
	struct pst_cmd_pool_create c = {
		.size = sizeof(c), .bytes = 1 << 20, .node = PST_ANY, .name = "one"};
	struct pst_error err = {0};
	char line[64], *answer;

	ASSERT_OK(pst_control_call(control, PST_CMD_POOL_CREATE, &c, &err), &err);
	answer = ask(self, GET);
	snprintf(line, sizeof(line), "\npenstock_pool_bytes{pool=\"%u\",node=\"", c.out_id);
	expect_said(answer, line);
	free(answer);
	pst_control_close(control);
}

/* Prometheus' own judge, where it is installed. */
TEST_F(metrics, promtool_finds_nothing)
{
	char *answer, *body;
	FILE *judge;

	if (system("command -v promtool >/dev/null"))
		SKIP("no promtool", "apt-get install -y prometheus");
	answer = ask(self, "GET /metrics HTTP/1.0\r\n\r\n");
	body = strstr(answer, "\r\n\r\n");
	ASSERT_TRUE(body != NULL);
	judge = popen("promtool check metrics", "w");
	ASSERT_TRUE(judge != NULL);
	fputs(body + 4, judge);
	EXPECT_EQ(0, pclose(judge));
	free(answer);
}

TEST_F(metrics, nothing_else)
{
	static const struct {
		const char *request, *answer;
	} cases[] = {
		{"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 404 "},
		{"GET /metrics/../etc/passwd HTTP/1.0\r\n\r\n", "HTTP/1.1 404 "},
		{"POST /metrics HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 405 "},
		{"HEAD /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *answer = ask(self, cases[i].request);

		if (strncmp(answer, cases[i].answer, 9 + 4)) {
			test_say(__FILE__, __LINE__, "%s: %s", cases[i].request, answer);
			test_failed = true;
		}
		free(answer);
	}
}

/* Those who say nothing, half a line, or noise hold nobody up. */
TEST_F(metrics, bad_clients)
{
	enum { MANY = 20 };
	static const char *const said[] = {"", "GET /met", "\x16\x03\x01\x02",
					   "GET /metrics HTTP/1.1\r\nA:"};
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct pst_control *control;
	struct pst_error err = {0};
	int fd[MANY];
	char *answer;

	for (int i = 0; i < MANY; i++) {
		fd[i] = dial(self);
		send(fd[i], said[i % 4], strlen(said[i % 4]), MSG_NOSIGNAL);
	}
	answer = ask(self, GET);
	EXPECT_EQ(0, strncmp(answer, "HTTP/1.1 200 ", 13));
	free(answer);
	control = daemon_connect(&self->d);
	ASSERT_OK(pst_control_call(control, PST_CMD_INFO, &info, &err), &err);
	pst_control_close(control);
	for (int i = 0; i < MANY; i++)
		close(fd[i]);
}

/* Over TCP, at an address of this host; one that is taken is said, and does not matter. */
TEST(a_taken_address)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);
	int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char config[128], *says;
	struct daemon d;

	ASSERT_EQ(0, bind(taken, (struct sockaddr *)&at, sizeof(at)));
	ASSERT_EQ(0, listen(taken, 1));
	ASSERT_EQ(0, getsockname(taken, (struct sockaddr *)&at, &len));
	snprintf(config, sizeof(config), "[daemon]\nmetrics = 127.0.0.1:%u\n", ntohs(at.sin_port));
	daemon_start(&d, config);
	WAIT_FOR(daemon_said(&d, "no metrics at 127.0.0.1:"));
	EXPECT_TRUE(daemon_said(&d, "Address already in use"));
	EXPECT_EQ(0, daemon_stop(&d));
	close(taken);
	daemon_run(&d);
	for (int tries = 0; tries < 500; tries++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!connect(fd, (struct sockaddr *)&at, sizeof(at))) {
			send(fd, GET, sizeof(GET) - 1, MSG_NOSIGNAL);
			says = hear(fd);
			EXPECT_EQ(0, strncmp(says, "HTTP/1.1 200 ", 13));
			free(says);
			break;
		}
		close(fd);
		usleep(10000);
	}
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST_MAIN
