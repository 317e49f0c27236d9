/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/screen.h"
#include "tools/ctl/print.h"
#include "tools/ctl/text.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The alternate screen without a cursor; and back. */
#define ENTER "\33[?1049h\33[?25l\33[2J"
#define LEAVE "\33[?25h\33[?1049l"

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE};
#define ENDING (sizeof(ending) / sizeof(*ending))

static struct termios before, during;
static volatile sig_atomic_t is_open, changed;

bool screen_possible(void)
{
	const char *term = getenv("TERM");

	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term &&
	       strcmp(term, "dumb");
}

/* What follows is called by signal handlers too. */
static void say(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n < 0 && errno != EINTR)
			return;
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
}

static void enter(void)
{
	/* in the background this stops us until we are in front again */
	tcsetattr(STDIN_FILENO, TCSADRAIN, &during);
	say(ENTER, strlen(ENTER));
	is_open = 1;
}

static void leave(void)
{
	if (!is_open)
		return;
	is_open = 0;
	say(LEAVE, strlen(LEAVE));
	tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

/* End, or stop, as the signal does when nobody handles it. */
static void as_usual(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void on_end(int sig)
{
	leave();
	as_usual(sig);
}

static void handle(int sig, void (*fn)(int))
{
	struct sigaction act = {.sa_handler = fn};

	sigfillset(&act.sa_mask);
	sigaction(sig, &act, NULL);
}

static void on_stop(int sig)
{
	int kept = errno;

	leave();
	as_usual(sig);
	handle(sig, on_stop);
	enter();
	changed = 1;
	errno = kept;
}

/* After a stop that could not be handled somebody else may have had the terminal. */
static void on_continue(int sig)
{
	int kept = errno;

	(void)sig;
	if (is_open)
		enter();
	changed = 1;
	errno = kept;
}

static void on_size(int sig)
{
	(void)sig;
	changed = 1;
}

static void handle_all(void)
{
	struct sigaction now;

	for (size_t i = 0; i < ENDING; i++)
		/* somebody's own way to end, or none at all, stays */
		if (!sigaction(ending[i], NULL, &now) && now.sa_handler == SIG_DFL)
			handle(ending[i], on_end);
	handle(SIGTSTP, on_stop);
	handle(SIGCONT, on_continue);
	handle(SIGWINCH, on_size);
}

int screen_open(void)
{
	sigset_t size;

	if (tcgetattr(STDIN_FILENO, &before))
		return -errno;
	during = before;
	during.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	during.c_cc[VMIN] = 1;
	during.c_cc[VTIME] = 0;
	/* seen in screen_key() only, so that none is missed between a look and a wait */
	sigemptyset(&size);
	sigaddset(&size, SIGWINCH);
	sigaddset(&size, SIGTSTP);
	sigprocmask(SIG_BLOCK, &size, NULL);
	handle_all();
	fflush(stdout);
	enter();
	return 0;
}

void screen_close(void)
{
	sigset_t all, kept;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &kept);
	leave();
	sigprocmask(SIG_SETMASK, &kept, NULL);
}

void screen_size(unsigned int *width, unsigned int *height)
{
	struct winsize ws;

	*width = 80;
	*height = 24;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) || !ws.ws_col || !ws.ws_row)
		return;
	*width = ws.ws_col;
	*height = ws.ws_row;
}

void screen_line(unsigned int y, unsigned int width, const char *clean, enum tone tone)
{
	size_t fits = text_fit(clean, width);
	char cut[1024];

	snprintf(cut, sizeof(cut), "%.*s", (int)fits, clean);
	printf("\33[%u;1H%s%s%*s%s", y + 1, tone_begin(tone), cut, (int)(width - text_width(cut)),
	       "", tone_end(tone));
}

void screen_show(void)
{
	fflush(stdout);
}

int screen_key(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned char key;
	sigset_t none;
	int rc;

	sigemptyset(&none);
	rc = changed ? -1 : ppoll(&p, 1, &t, &none);
	if (changed || rc < 0) {
		changed = 0;
		return -EINTR;
	}
	if (!rc)
		return 0;
	return read(STDIN_FILENO, &key, 1) == 1 ? key : -EIO;
}
