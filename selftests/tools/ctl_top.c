/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstockctl top in a pseudo-terminal, whose screen is kept by a small interpreter of what it may
 * send: the alternate screen, the cursor, clearing, colours. Anything else fails the test.
 */
#include "selftests/control/fakehost.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <termios.h>
#include <time.h>

#define WIDE 220
#define HIGH 80

struct screen {
	char cell[HIGH][WIDE + 1]; /* '#' for what is not ASCII */
	bool bold[HIGH];
	unsigned int width, height, x, y;
	bool alternate, hidden, colour;
	unsigned int frames; /* times that the first cell was written */
	/* until then frames for the size before may be under way; what they have too much is cut */
	unsigned int strict;
	char pending[32]; /* an unfinished sequence */
	size_t npending;
};

static struct fakedoor door;

FIXTURE(top)
{
	int tty, slave;
	pid_t shell, job; /* who leads the session, and the program; 0: ended */
	int report, hold; /* how the job fares, from the shell, which stays until hold is closed */
	struct termios before;
	struct screen s;
};

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void clear(struct screen *s)
{
	for (unsigned int y = 0; y < HIGH; y++) {
		memset(s->cell[y], ' ', WIDE);
		s->cell[y][WIDE] = 0;
		s->bold[y] = false;
	}
}

/* One whole sequence: what stands behind ESC [. */
static void obey(struct screen *s, const char *body, char final)
{
	unsigned int y, x, n;

	if (final == 'h' || final == 'l') {
		bool on = final == 'h';

		if (!strcmp(body, "?1049"))
			s->alternate = on;
		else if (!strcmp(body, "?25"))
			s->hidden = !on;
		else
			goto unknown;
		return;
	}
	if (final == 'J' && !strcmp(body, "2")) {
		clear(s);
		return;
	}
	if (final == 'H' && sscanf(body, "%u;%u%n", &y, &x, &n) == 2 && !body[n]) {
		ASSERT_TRUE(y >= 1 && y <= HIGH && x >= 1 && x <= WIDE);
		ASSERT_TRUE((y <= s->height && x <= s->width) || s->frames < s->strict);
		s->y = y - 1;
		s->x = x - 1;
		return;
	}
	if (final == 'm' && (!strcmp(body, "0") || !strcmp(body, "1") || !strcmp(body, "31") ||
			     !strcmp(body, "33"))) {
		s->colour = true;
		if (!strcmp(body, "1"))
			s->bold[s->y] = true;
		return;
	}
unknown:
	printf("# ESC [ %s %c\n", body, final);
	test_failed = true;
}

static void put_char(struct screen *s, unsigned char c)
{
	if ((c & 0xc0) == 0x80)
		return;
	ASSERT_TRUE(c >= 0x20 && c != 0x7f);
	/* what goes over the edge would wrap, and spoil the next line */
	ASSERT_TRUE(s->x < s->width || (s->frames < s->strict && s->x < WIDE));
	if (!s->x && !s->y)
		s->frames++;
	s->cell[s->y][s->x++] = c < 0x80 ? (char)c : '#';
}

static void interpret(struct screen *s, const char *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = data[i];

		if (!s->npending && c != '\33') {
			put_char(s, (unsigned char)c);
			continue;
		}
		ASSERT_LT(s->npending, sizeof(s->pending) - 1);
		s->pending[s->npending++] = c;
		s->pending[s->npending] = 0;
		if (s->npending == 2)
			ASSERT_EQ('[', c);
		if (s->npending > 2 && c >= '@' && c <= '~') {
			s->pending[s->npending - 1] = 0;
			s->npending = 0;
			obey(s, s->pending + 2, c);
		}
	}
}

/* Take in what it says until @done, for 30 s at most. */
#define UNTIL(self, what, done)                                                \
	do {                                                                   \
		double end_ = now_ms() + 30000;                                \
		while (!(done)) {                                              \
			if (now_ms() > end_) {                                 \
				show(&(self)->s);                              \
				printf("# in 30 s it was not so: %s\n", what); \
				_exit(TEST_FAIL);                              \
			}                                                      \
			take_in(self, 20);                                     \
		}                                                              \
	} while (0)

static void take_in(struct fixture_top *self, int ms)
{
	struct pollfd p = {.fd = self->tty, .events = POLLIN};
	char data[4096];
	ssize_t n;

	if (poll(&p, 1, ms) != 1)
		return;
	n = read(self->tty, data, sizeof(data));
	if (n > 0)
		interpret(&self->s, data, (size_t)n);
}

static void show(const struct screen *s)
{
	for (unsigned int y = 0; y < s->height; y++)
		printf("# |%.*s|\n", (int)s->width, s->cell[y]);
}

static bool on_screen(const struct screen *s, const char *text)
{
	for (unsigned int y = 0; y < s->height; y++)
		if (strstr(s->cell[y], text))
			return true;
	return false;
}

static unsigned int line_of(const struct screen *s, const char *text)
{
	for (unsigned int y = 0; y < s->height; y++)
		if (strstr(s->cell[y], text))
			return y;
	return UINT_MAX;
}

static void resize(struct fixture_top *self, unsigned int width, unsigned int height)
{
	struct winsize ws = {.ws_col = (unsigned short)width, .ws_row = (unsigned short)height};

	self->s.width = width;
	self->s.height = height;
	self->s.strict = self->s.frames ? self->s.frames + 3 : 0;
	clear(&self->s);
	ASSERT_EQ(0, ioctl(self->tty, TIOCSWINSZ, &ws));
}

/* The program, in a process group of its own in front of the terminal, as by a shell. */
static pid_t start_job(const char *path, const char *interval)
{
	pid_t job = fork();

	if (job) {
		setpgid(job, job);
		tcsetpgrp(0, job);
		return job;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(0, getpid());
	signal(SIGTTOU, SIG_DFL);
	execl(path, path, "top", "--interval", interval, NULL);
	_exit(127);
}

/* Tells its process, and whenever it stops or ends. A terminal whose session ended is reset. */
static void be_shell(struct fixture_top *self, const char *path, const char *interval, int report,
		     int hold)
{
	int status;
	pid_t job;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	ioctl(self->slave, TIOCSCTTY, 0);
	for (int fd = 0; fd < 3; fd++)
		dup2(self->slave, fd);
	signal(SIGTTOU, SIG_IGN);
	job = start_job(path, interval);
	if (write(report, &job, sizeof(job)) < 0)
		_exit(1);
	do {
		if (waitpid(job, &status, WUNTRACED) != job ||
		    write(report, &status, sizeof(status)) < 0)
			_exit(1);
	} while (WIFSTOPPED(status));
	_exit(read(hold, &status, 1) < 0);
}

static void start(struct fixture_top *self, const char *interval)
{
	char path[PATH_MAX], *at;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	int report[2], hold[2];

	ASSERT_GT(n, 0);
	path[n] = 0;
	at = strstr(path, "/selftests/tools/");
	ASSERT_NE(NULL, at);
	strcpy(at, "/penstockctl");
	ASSERT_EQ(0, pipe2(report, O_CLOEXEC));
	ASSERT_EQ(0, pipe2(hold, O_CLOEXEC));
	self->shell = fork();
	if (!self->shell) {
		close(hold[1]);
		be_shell(self, path, interval, report[1], hold[0]);
	}
	close(report[1]);
	close(hold[0]);
	self->report = report[0];
	self->hold = hold[1];
	ASSERT_EQ((ssize_t)sizeof(self->job), read(report[0], &self->job, sizeof(self->job)));
	fakedoor_go(&door);
}

FIXTURE_SETUP(top)
{
	char socket[128];

	setenv("LC_ALL", "C.UTF-8", 1);
	setenv("TERM", "xterm-256color", 1);
	unsetenv("NO_COLOR");
	snprintf(socket, sizeof(socket), "%s/socket", test_tmpdir());
	setenv("PENSTOCK_SOCKET", socket, 1);
	door.grow = 1000;
	fakehost_open(&door, socket);
	self->tty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	ASSERT_GE(self->tty, 0);
	ASSERT_EQ(0, grantpt(self->tty));
	ASSERT_EQ(0, unlockpt(self->tty));
	self->slave = open(ptsname(self->tty), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ASSERT_GE(self->slave, 0);
	ASSERT_EQ(0, tcgetattr(self->slave, &self->before));
	resize(self, 80, 24);
}

static void expect_restored(struct fixture_top *self)
{
	struct termios now;

	EXPECT_FALSE(self->s.alternate);
	EXPECT_FALSE(self->s.hidden);
	ASSERT_EQ(0, tcgetattr(self->slave, &now));
	EXPECT_EQ(self->before.c_lflag, now.c_lflag);
	EXPECT_EQ(self->before.c_iflag, now.c_iflag);
	EXPECT_EQ(self->before.c_oflag, now.c_oflag);
	EXPECT_EQ(0, memcmp(self->before.c_cc, now.c_cc, sizeof(now.c_cc)));
}

/* How it stopped or ended, having read what it said until then. */
static int wait_for(struct fixture_top *self)
{
	struct pollfd p = {.fd = self->report, .events = POLLIN};
	double end = now_ms() + 30000;
	int status;

	while (poll(&p, 1, 0) != 1) {
		ASSERT_LT(now_ms(), end);
		take_in(self, 20);
	}
	ASSERT_EQ((ssize_t)sizeof(status), read(self->report, &status, sizeof(status)));
	while (poll(&(struct pollfd){.fd = self->tty, .events = POLLIN}, 1, 0) == 1)
		take_in(self, 0);
	if (!WIFSTOPPED(status))
		self->job = 0;
	return status;
}

FIXTURE_TEARDOWN(top)
{
	if (self->job) {
		ASSERT_EQ(1, write(self->tty, "q", 1));
		EXPECT_EQ(0, wait_for(self));
	}
	expect_restored(self);
	close(self->hold);
	close(self->report);
	ASSERT_EQ(self->shell, waitpid(self->shell, NULL, 0));
	fakedoor_pause(&door);
	fakedoor_close(&door);
	close(self->slave);
	close(self->tty);
}

static void await_frame(struct fixture_top *self)
{
	unsigned int frames = self->s.frames;

	UNTIL(self, "another frame", self->s.frames > frames + 1);
}

static void expect_sections(const struct screen *s)
{
	static const char *const heading[] = {"penstockd ", "rows/s", "DEVICE ", "WORKER",
					      "NODE ",	    "SERVER", "TABLE ",	 "EVENT "};
	unsigned int before = 0;

	for (size_t i = 0; i < sizeof(heading) / sizeof(*heading); i++) {
		unsigned int y = line_of(s, heading[i]);

		if (y == UINT_MAX || (i && y <= before)) {
			printf("# '%s' is at line %d\n", heading[i], (int)y);
			test_failed = true;
		}
		before = y;
	}
}

TEST_F(top, eighty_by_twenty_four)
{
	start(self, "0.05");
	await_frame(self);
	EXPECT_TRUE(self->s.alternate);
	EXPECT_TRUE(self->s.hidden);
	EXPECT_TRUE(self->s.colour);
	expect_sections(&self->s);
	EXPECT_TRUE(on_screen(&self->s, "612/755 GiB  301/400 W  3650 MHz  61 #C  ok"));
	EXPECT_TRUE(on_screen(&self->s, "throttled"));
	EXPECT_TRUE(self->s.bold[line_of(&self->s, "WORKER")]);
	/* what is wrong comes first */
	EXPECT_LT(line_of(&self->s, "failed"), line_of(&self->s, "serving"));
	EXPECT_TRUE(strncmp(self->s.cell[1], "0 rows/s", 8));
	if (test_failed)
		show(&self->s);
}

TEST_F(top, what_has_no_room_is_counted)
{
	static struct pst_cmd_worker_stat many[40];

	for (uint32_t i = 0; i < 40; i++) {
		many[i] = *(struct pst_cmd_worker_stat *)fake_at(&door, PST_CMD_WORKER_STAT)->row;
		many[i].id = i + 1;
		memset(many[i].out_url, 'u', sizeof(many[i].out_url));
	}
	fake_at(&door, PST_CMD_WORKER_STAT)->row = many;
	fake_at(&door, PST_CMD_WORKER_STAT)->rows = 40;
	start(self, "0.05");
	await_frame(self);
	expect_sections(&self->s);
	EXPECT_TRUE(on_screen(&self->s, " of 40"));
	resize(self, 200, 64);
	UNTIL(self, "all forty", on_screen(&self->s, "   40  serving"));
	await_frame(self);
	EXPECT_FALSE(on_screen(&self->s, " of 40"));
	if (test_failed)
		show(&self->s);
}

TEST_F(top, a_small_window_and_a_large_one)
{
	start(self, "0.05");
	await_frame(self);
	EXPECT_FALSE(on_screen(&self->s, "96-Core"));
	resize(self, 40, 10);
	UNTIL(self, "it says so", on_screen(&self->s, "penstockctl top needs 80x24, this window"));
	resize(self, 200, 60);
	UNTIL(self, "the whole name", on_screen(&self->s, "AMD EPYC 9654 96-Core Processor"));
	await_frame(self);
	expect_sections(&self->s);
	EXPECT_TRUE(on_screen(&self->s, "device 4 (NVIDIA H200) slows down: 87 C"));
	EXPECT_TRUE(on_screen(&self->s, "worker 1 is process 4711"));
}

/* Also while it waits for a long time. */
TEST_F(top, a_new_size_is_seen_at_once)
{
	start(self, "3600");
	UNTIL(self, "a frame", on_screen(&self->s, "EVENT "));
	resize(self, 120, 30);
	UNTIL(self, "another", on_screen(&self->s, "EVENT "));
	ASSERT_EQ(1, write(self->tty, " ", 1));
	UNTIL(self, "a third, with rates",
	      on_screen(&self->s, " k rows/s") || on_screen(&self->s, " M rows/s"));
}

TEST_F(top, rows_move)
{
	char first[WIDE + 1];

	start(self, "0.02");
	await_frame(self);
	strcpy(first, self->s.cell[1]);
	UNTIL(self, "another rate", strcmp(first, self->s.cell[1]));
}

TEST_F(top, events_arrive)
{
	struct pst_event e = {.size = sizeof(e),
			      .type = PST_EVENT_HUNG,
			      .time_ns = 1700000000000000000ull,
			      .id = 2,
			      .text = "worker 2 said nothing for 30 s"};

	start(self, "0.02");
	await_frame(self);
	fakedoor_pause(&door);
	fakedoor_event(&door, &e);
	fakedoor_go(&door);
	UNTIL(self, "the event", on_screen(&self->s, "worker 2 said nothing for 30 s"));
}

TEST_F(top, a_daemon_that_goes_and_comes)
{
	start(self, "0.02");
	await_frame(self);
	fakedoor_pause(&door);
	fakedoor_close(&door);
	UNTIL(self, "it says so", on_screen(&self->s, "to start one: penstockd"));
	EXPECT_FALSE(on_screen(&self->s, "WORKER"));
	fakedoor_open(&door, getenv("PENSTOCK_SOCKET"));
	fakedoor_go(&door);
	UNTIL(self, "it is back", on_screen(&self->s, "WORKER"));
	await_frame(self);
	expect_sections(&self->s);
}

TEST_F(top, no_colours_where_they_are_not_wanted)
{
	setenv("NO_COLOR", "1", 1);
	start(self, "0.02");
	await_frame(self);
	expect_sections(&self->s);
	EXPECT_FALSE(self->s.colour);
}

/* Without what it takes to draw it prints, as into a pipe. */
TEST_F(top, a_dumb_terminal)
{
	char data[16384];
	size_t n = 0;

	setenv("TERM", "dumb", 1);
	start(self, "0.02");
	for (;;) {
		struct pollfd p[] = {{.fd = self->tty, .events = POLLIN},
				     {.fd = self->report, .events = POLLIN}};

		ASSERT_GT(poll(p, 2, 30000), 0);
		if (p[0].revents)
			n += (size_t)read(self->tty, data + n, sizeof(data) - 1 - n);
		else if (p[1].revents)
			break;
	}
	EXPECT_EQ(0, wait_for(self));
	data[n] = 0;
	EXPECT_NE(NULL, strstr(data, "slows down: 87 C"));
	EXPECT_EQ(NULL, strchr(data, '\33'));
}

FIXTURE(end)
{
	int unused;
};
FIXTURE_VARIANT(end)
{
	int sig;
};
FIXTURE_VARIANT_ADD(end, term){SIGTERM};
FIXTURE_VARIANT_ADD(end, hup){SIGHUP};
FIXTURE_VARIANT_ADD(end, int){SIGINT};
FIXTURE_VARIANT_ADD(end, quit){SIGQUIT};
FIXTURE_VARIANT_ADD(end, abort){SIGABRT};
FIXTURE_SETUP(end)
{
	(void)self;
}
FIXTURE_TEARDOWN(end)
{
	(void)self;
}

/* ... by a signal the terminal is as before, and the process ended as by that signal. */
TEST_F(end, by_a_signal)
{
	struct fixture_top top = {0};
	int status;

	setup_top(&top, NULL);
	start(&top, "0.05");
	await_frame(&top);
	kill(top.job, variant->sig);
	status = wait_for(&top);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(variant->sig, WTERMSIG(status));
	teardown_top(&top, NULL);
}

/* Even when it waits for a daemon that never answers. */
TEST_F(top, end_while_the_daemon_is_silent)
{
	int status;

	start(self, "0.02");
	await_frame(self);
	fakedoor_pause(&door);
	door.mute = true;
	fakedoor_go(&door);
	ASSERT_EQ(1, write(self->tty, "\3", 1)); /* ^C */
	status = wait_for(self);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

TEST_F(top, stop_and_go_on)
{
	int status;

	start(self, "0.05");
	await_frame(self);
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(1, write(self->tty, "\32", 1)); /* ^Z */
		status = wait_for(self);
		ASSERT_TRUE(WIFSTOPPED(status));
		EXPECT_EQ(SIGTSTP, WSTOPSIG(status));
		expect_restored(self);
		clear(&self->s);
		kill(-self->job, SIGCONT);
		UNTIL(self, "it is taken again", self->s.alternate);
		await_frame(self);
		expect_sections(&self->s);
	}
}

TEST_MAIN
