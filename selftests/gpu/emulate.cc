/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/gpu/emulate.h"
#include "kernels/cuda/cuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif
#ifdef ADDRESS_SANITIZER
extern "C" void __sanitizer_start_switch_fiber(void **save, const void *bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void *save, const void **bottom, size_t *size);
#endif

#define MOST_THREADS 1024
#define STACK	     (256u << 10)
#define MOST_COPIES  256 /* that a thread has begun and not waited for */
#define PAGE	     4096u

struct uint3 blockIdx, blockDim, gridDim, threadIdx;

/* All variables that a source declares __shared__. */
extern unsigned char shared_begin[] __asm__("__start_emulate_shared");
extern unsigned char shared_end[] __asm__("__stop_emulate_shared");
__attribute__((section("emulate_shared"), used)) static unsigned char one_at_least;

struct copy {
	uint32_t to, n, size;
	const void *from;
	unsigned int group;
};

/* A place where threads wait for each other. */
struct meeting {
	unsigned int came, round;
	const char *what;
	int line;
};

/* Where something goes on: a stack pointer, below which the registers lie that a call keeps. */
#if defined(__x86_64__)
struct place {
	void *sp;
};

/* Signal masks stay as they are, for which swapcontext() would ask the kernel each time. */
extern "C" void emulate_switch(struct place *from, const struct place *to);
__asm__(".pushsection .text\n"
	".globl emulate_switch\n"
	".hidden emulate_switch\n"
	".type emulate_switch, @function\n"
	"emulate_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq (%rsi), %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size emulate_switch, . - emulate_switch\n"
	".popsection\n");

/* As if @main had been called, and had called emulate_switch() at once. */
static void place_begin(struct place *p, unsigned char *stack, size_t size, void (*main)(void))
{
	void **top = (void **)(stack + size) - 2;

	top[0] = (void *)main;
	top[1] = NULL;
	memset(top - 6, 0, 6 * sizeof(*top));
	p->sp = top - 6;
}
#else
struct place {
	ucontext_t context;
};

static void emulate_switch(struct place *from, const struct place *to)
{
	swapcontext(&from->context, &to->context);
}

static void place_begin(struct place *p, unsigned char *stack, size_t size, void (*main)(void))
{
	getcontext(&p->context);
	p->context.uc_stack.ss_sp = stack;
	p->context.uc_stack.ss_size = size;
	makecontext(&p->context, main, 0);
}
#endif

struct fiber {
	struct place place;
	unsigned char *stack;
	void *fake_stack;
	unsigned int index;
	bool done;
	const struct meeting *waits_at;
	unsigned int waits_for; /* the round that must be over */
	struct copy copy[MOST_COPIES];
	unsigned int ncopies, groups;
};

struct warp {
	struct meeting meeting;
	void *lane[32];
};

static struct {
	emulate_fn *fn;
	void *const *params;
	unsigned int threads, done;
	struct fiber *fiber[MOST_THREADS], *now;
	struct warp warp[MOST_THREADS / 32];
	struct meeting barrier;
	struct place main;
	void *main_fake_stack;
	const void *main_stack;
	size_t main_stack_size;
	unsigned char *shared_pages, *shared;
	size_t shared_mapped;
	uint32_t shared_bytes;
	uint64_t seed, launches;
	bool no_fp8;
} emu;

void emulate_fail(const char *fmt, ...)
{
	va_list ap;

	fputs("# emulation: ", stdout);
	if (emu.now)
		printf("block %u,%u,%u thread %u: ", blockIdx.x, blockIdx.y, blockIdx.z,
		       emu.now->index);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

/* Fibers and the loop that runs them. */

static void leave_to(struct fiber *to)
{
#ifdef ADDRESS_SANITIZER
	__sanitizer_start_switch_fiber(&emu.main_fake_stack, to->stack, STACK);
#endif
	emulate_switch(&emu.main, &to->place);
#ifdef ADDRESS_SANITIZER
	__sanitizer_finish_switch_fiber(emu.main_fake_stack, NULL, NULL);
#endif
}

static void leave_to_main(void)
{
	struct fiber *f = emu.now;

#ifdef ADDRESS_SANITIZER
	__sanitizer_start_switch_fiber(&f->fake_stack, emu.main_stack, emu.main_stack_size);
#endif
	emulate_switch(&f->place, &emu.main);
#ifdef ADDRESS_SANITIZER
	__sanitizer_finish_switch_fiber(f->fake_stack, NULL, NULL);
#endif
}

/* A thread of a block, and then of the next. */
static void fiber_main(void)
{
#ifdef ADDRESS_SANITIZER
	__sanitizer_finish_switch_fiber(NULL, &emu.main_stack, &emu.main_stack_size);
#endif
	for (;;) {
		emu.fn(emu.params);
		emu.now->done = true;
		emu.done++;
		leave_to_main();
	}
}

static void wait_for(const struct meeting *m)
{
	emu.now->waits_at = m;
	emu.now->waits_for = m->round;
	leave_to_main();
	emu.now->waits_at = NULL;
}

/* True for the last of @all, who goes on. */
static bool meet(struct meeting *m, unsigned int all, const char *what, int line)
{
	if (m->came && (strcmp(m->what, what) || m->line != line))
		emulate_fail("it is at %s:%d while others wait at %s:%d", what, line, m->what,
			     m->line);
	m->what = what;
	m->line = line;
	if (++m->came < all)
		return false;
	m->came = 0;
	m->round++;
	return true;
}

void emulate_barrier(const char *file, int line)
{
	if (!meet(&emu.barrier, emu.threads, file, line))
		wait_for(&emu.barrier);
}

void emulate_warp(const char *what, void *lane, void (*run)(void *const lane[32]))
{
	struct warp *w = &emu.warp[emu.now->index / 32];

	w->lane[emu.now->index % 32] = lane;
	if (meet(&w->meeting, 32, what, 0))
		run(w->lane);
	else
		wait_for(&w->meeting);
}

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void mix_up(unsigned int *to, unsigned int n, uint64_t state)
{
	for (unsigned int i = n; i > 1; i--) {
		unsigned int j = (unsigned int)((state = mix(state + i)) % i), old = to[i - 1];

		to[i - 1] = to[j];
		to[j] = old;
	}
}

/* An order of 0 .. n-1: as they are, the last first, or mixed. */
static void order(unsigned int *to, unsigned int n)
{
	unsigned int kind = (unsigned int)(emu.seed + emu.launches) % 3;

	for (unsigned int i = 0; i < n; i++)
		to[i] = kind == 1 ? n - 1 - i : i;
	if (kind == 2)
		mix_up(to, n, emu.seed * 31 + emu.launches);
}

/* The same of threads, of which those of a warp stay side by side. */
static void order_threads(unsigned int *to, unsigned int n)
{
	unsigned int warp[MOST_THREADS / 32], lane[32];

	order(warp, n / 32);
	order(lane, 32);
	for (unsigned int i = 0; i < n; i++)
		to[i] = 32 * warp[i / 32] + lane[i % 32];
}

static void begin_fiber(unsigned int i)
{
	struct fiber *f = emu.fiber[i];

	if (!f) {
		f = emu.fiber[i] = (struct fiber *)calloc(1, sizeof(*f));
		f->stack = (unsigned char *)malloc(STACK);
		f->index = i;
		place_begin(&f->place, f->stack, STACK, fiber_main);
	}
	f->done = false;
	f->waits_at = NULL;
	f->ncopies = f->groups = 0;
}

/* Goes on with @f if it can. */
static bool resume(struct fiber *f)
{
	if (f->done || (f->waits_at && f->waits_at->round == f->waits_for))
		return false;
	emu.now = f;
	threadIdx = {f->index, 0, 0};
	leave_to(f);
	emu.now = NULL;
	return true;
}

static void deadlock(void)
{
	for (unsigned int i = 0; i < emu.threads; i++) {
		const struct meeting *m = emu.fiber[i]->waits_at;

		if (!m)
			continue;
		emu.now = emu.fiber[i];
		emulate_fail("it waits at %s:%d for threads that never come (%u are there, %u of "
			     "the block have ended)",
			     m->what, m->line, m->came, emu.done);
	}
}

/*
 * Every thread once, as long as it can; or, in every other launch or so, every warp until all its
 * threads wait for other warps. False if no thread could do anything.
 */
static bool run_all(const unsigned int *threads)
{
	bool eager = mix(emu.seed + emu.launches) % 2, any = false, more;

	for (unsigned int first = 0; first < emu.threads; first += eager ? 32 : emu.threads) {
		unsigned int n = eager ? 32 : emu.threads;

		do {
			more = false;
			for (unsigned int i = 0; i < n; i++)
				more = resume(emu.fiber[threads[first + i]]) || more;
			any = any || more;
		} while (eager && more);
	}
	return any;
}

static void run_block(const unsigned int *threads)
{
	memset(shared_begin, 0xff, (size_t)(shared_end - shared_begin));
	memset(emu.shared, 0xff, emu.shared_bytes);
	memset(&emu.barrier, 0, sizeof(emu.barrier));
	memset(emu.warp, 0, sizeof(emu.warp));
	emu.done = 0;
	for (unsigned int i = 0; i < emu.threads; i++)
		begin_fiber(i);
	while (emu.done < emu.threads)
		if (!run_all(threads))
			deadlock();
	for (unsigned int i = 0; i < emu.threads; i++)
		if (emu.fiber[i]->ncopies)
			emulate_fail("thread %u ended with %u copies it never waited for", i,
				     emu.fiber[i]->ncopies);
}

/* As much as the launch says, up to a page that cannot be touched. */
static void map_shared(uint32_t bytes)
{
	size_t need = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;

	if (bytes % 16)
		emulate_fail("%u bytes of shared memory do not end on 16", bytes);
	if (emu.shared_mapped < need) {
		if (emu.shared_mapped)
			munmap(emu.shared_pages, emu.shared_mapped);
		emu.shared_pages = (unsigned char *)mmap(NULL, need, PROT_READ | PROT_WRITE,
							 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (emu.shared_pages == MAP_FAILED)
			emulate_fail("no memory");
		mprotect(emu.shared_pages + need - PAGE, PAGE, PROT_NONE);
		emu.shared_mapped = need;
	}
	emu.shared = emu.shared_pages + emu.shared_mapped - PAGE - bytes;
	emu.shared_bytes = bytes;
}

/* Block @i of all. */
static void place_block(size_t i)
{
	blockIdx.x = (unsigned int)(i % gridDim.x);
	blockIdx.y = (unsigned int)(i / gridDim.x % gridDim.y);
	blockIdx.z = (unsigned int)(i / gridDim.x / gridDim.y);
}

void emulate_launch(emulate_fn *fn, const struct pst_cuda_launch *l, void *const *params)
{
	size_t blocks = (size_t)l->grid[0] * l->grid[1] * l->grid[2];
	unsigned int threads[MOST_THREADS], *block;

	if (!blocks || blocks > 1u << 24 || !l->block || l->block % 32 || l->block > MOST_THREADS)
		emulate_fail("a launch of %zu blocks of %u threads", blocks, l->block);
	block = (unsigned int *)malloc(blocks * sizeof(*block));
	emu.fn = fn;
	emu.params = params;
	emu.threads = l->block;
	gridDim = {l->grid[0], l->grid[1], l->grid[2]};
	blockDim = {l->block, 1, 1};
	map_shared(l->shared);
	order_threads(threads, emu.threads);
	order(block, (unsigned int)blocks);
	for (size_t i = 0; i < blocks; i++) {
		place_block(block[i]);
		run_block(threads);
	}
	emu.launches++;
	free(block);
}

void emulate_seed(uint64_t seed)
{
	emu.seed = seed;
	emu.launches = 0;
}

unsigned char *emulate_shared(void)
{
	return emu.shared;
}

/* @size bytes of shared memory, on as many. */
static unsigned char *shared_of(const char *what, uint32_t at, uint32_t size)
{
	uint32_t from = at - EMULATE_SHARED_BASE;

	if (at % size)
		emulate_fail("%s: the address in shared memory ends in %#x and not on %u bytes",
			     what, at % size, size);
	if (at < EMULATE_SHARED_BASE || from + size > emu.shared_bytes)
		emulate_fail("%s: byte %u of shared memory, of which the launch has %u", what, from,
			     emu.shared_bytes);
	return emu.shared + from;
}

/* Its bytes are NaN until the copy has been waited for; only then is the source read. */
void emulate_cp_async(uint32_t to, const void *from, uint32_t n, uint32_t size)
{
	struct fiber *f = emu.now;

	if ((uintptr_t)from % size)
		emulate_fail("cp.async: the address ends in %#x and not on %u bytes",
			     (unsigned int)((uintptr_t)from % size), size);
	if (n > size)
		emulate_fail("cp.async: %u bytes of %u", n, size);
	if (f->ncopies == MOST_COPIES)
		emulate_fail("cp.async: more than %d copies begun", MOST_COPIES);
	memset(shared_of("cp.async", to, size), 0xff, size);
	f->copy[f->ncopies++] = {to, n, size, from, f->groups};
}

void emulate_cp_async_commit(void)
{
	emu.now->groups++;
}

void emulate_cp_async_wait(int but)
{
	struct fiber *f = emu.now;
	unsigned int left = 0;

	for (unsigned int i = 0; i < f->ncopies; i++) {
		struct copy *c = &f->copy[i];

		if (c->group + (unsigned int)but >= f->groups) {
			f->copy[left++] = *c;
			continue;
		}
		memset(shared_of("cp.async", c->to, c->size), 0, c->size);
		memcpy(shared_of("cp.async", c->to, c->size), c->from, c->n);
	}
	f->ncopies = left;
}

static void run_ballot(void *const lane[32])
{
	uint32_t all = 0;

	for (int i = 0; i < 32; i++)
		all |= (uint32_t)(*(uint32_t *)lane[i] != 0) << i;
	for (int i = 0; i < 32; i++)
		*(uint32_t *)lane[i] = all;
}

uint32_t __ballot_sync(uint32_t mask, bool mine)
{
	uint32_t r = mine;

	if (mask != 0xffffffffu)
		emulate_fail("__ballot_sync: only whole warps are emulated");
	emulate_warp("__ballot_sync", &r, run_ballot);
	return r;
}

struct load {
	uint32_t row, r[4];
};

/* Element @c of row @r of matrix @m, of which lane 8 m + r gave the address. */
static uint16_t matrix_element(void *const lane[32], int m, int r, int c)
{
	uint16_t h;

	memcpy(&h, shared_of("ldmatrix", ((struct load *)lane[8 * m + r])->row, 16) + 2 * c,
	       sizeof(h));
	return h;
}

static void run_ldmatrix(void *const lane[32])
{
	for (int i = 0; i < 32; i++)
		for (int m = 0; m < 4; m++) {
			uint16_t low = matrix_element(lane, m, i / 4, i % 4 * 2);
			uint16_t high = matrix_element(lane, m, i / 4, i % 4 * 2 + 1);

			((struct load *)lane[i])->r[m] = low | (uint32_t)high << 16;
		}
}

static void run_ldmatrix_trans(void *const lane[32])
{
	for (int i = 0; i < 32; i++)
		for (int m = 0; m < 4; m++) {
			uint16_t low = matrix_element(lane, m, i % 4 * 2, i / 4);
			uint16_t high = matrix_element(lane, m, i % 4 * 2 + 1, i / 4);

			((struct load *)lane[i])->r[m] = low | (uint32_t)high << 16;
		}
}

void ldmatrix(uint32_t r[4], uint32_t row)
{
	struct load l = {row, {0, 0, 0, 0}};

	emulate_warp("ldmatrix", &l, run_ldmatrix);
	memcpy(r, l.r, sizeof(l.r));
}

void ldmatrix_trans(uint32_t r[4], uint32_t row)
{
	struct load l = {row, {0, 0, 0, 0}};

	emulate_warp("ldmatrix.trans", &l, run_ldmatrix_trans);
	memcpy(r, l.r, sizeof(l.r));
}

struct mma {
	float *d;
	const uint32_t *a;
	uint32_t b[2];
};

static float half_of(uint32_t r, int high)
{
	return __uint_as_float(high ? r & 0xffff0000u : r << 16);
}

/* PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". */
static void mma_operands(void *const lane[32], float a[16][16], float b[16][8])
{
	for (int i = 0; i < 32; i++) {
		const struct mma *m = (const struct mma *)lane[i];

		for (int e = 0; e < 8; e++)
			a[i / 4 + (e & 2 ? 8 : 0)][i % 4 * 2 + (e & 1) + (e & 4 ? 8 : 0)] =
				half_of(m->a[e / 2], e & 1);
		for (int e = 0; e < 4; e++)
			b[i % 4 * 2 + (e & 1) + (e & 2 ? 8 : 0)][i / 4] =
				half_of(m->b[e / 2], e & 1);
	}
}

/* The order in which a tensor core adds is not published; here it is that of k, rounded once. */
static void run_mma(void *const lane[32])
{
	float a[16][16], b[16][8];

	mma_operands(lane, a, b);
	for (int i = 0; i < 32; i++) {
		for (int e = 0; e < 4; e++) {
			int row = i / 4 + (e & 2 ? 8 : 0), col = i % 4 * 2 + (e & 1);
			float *d = &((struct mma *)lane[i])->d[e];
			double sum = *d;

			for (int k = 0; k < 16; k++)
				sum += (double)a[row][k] * b[k][col];
			*d = (float)sum;
		}
	}
}

void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
	struct mma m = {d, a, {b0, b1}};

	emulate_warp("mma", &m, run_mma);
}

void load_shared8(uint32_t r[2], uint32_t at)
{
	memcpy(r, shared_of("ld.shared.v2", at, 8), 8);
}

void load_shared16(uint32_t r[4], uint32_t at)
{
	memcpy(r, shared_of("ld.shared.v4", at, 16), 16);
}

/* Nearest, ties to even, of what a double holds without rounding. */
static uint32_t bf16_of_double(double d)
{
	float f = (float)d;
	uint32_t u = __float_as_uint(f);

	if (f != f)
		return 0x7fff;
	/* what the float lost decides where it is half way */
	if ((u & 0xffff) == 0x8000 && (double)f != d)
		u += (fabs(d) > fabs((double)f)) ? 1 : -1u;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t d = 0;

	for (int i = 0; i < 2; i++)
		d |= bf16_of_double((double)half_of(a, i) * half_of(b, i) + half_of(c, i))
		     << 16 * i;
	return d;
}

uint32_t bytes_of(uint32_t a, uint32_t b, uint32_t which)
{
	uint64_t from = a | (uint64_t)b << 32;
	uint32_t d = 0;

	for (int i = 0; i < 4; i++)
		d |= (uint32_t)(from >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
	return d;
}

bool has_fp8(void)
{
	return !emu.no_fp8;
}

void emulate_fp8(int has)
{
	emu.no_fp8 = !has;
}

/* arXiv:2209.05433, table 1: bias 7, no infinity. */
static double of_e4m3(uint32_t code)
{
	uint32_t exponent = code >> 3 & 15, fraction = code & 7;
	double sign = code & 0x80 ? -1 : 1;

	if (exponent == 15 && fraction == 7)
		return NAN;
	if (!exponent)
		return sign * ldexp(fraction, -9);
	return sign * ldexp(8 + fraction, (int)exponent - 10);
}

/* The nearest of all codes; the even one of two that are. */
static uint32_t to_e4m3(float f)
{
	uint32_t best = 0;
	double d = fabs(f);

	if (f != f)
		return 0x7f;
	for (uint32_t code = 1; code < 0x7f; code++) {
		double now = fabs(of_e4m3(code) - d), before = fabs(of_e4m3(best) - d);

		if (now < before || (now == before && !(code & 1)))
			best = code;
	}
	if (d > 448)
		best = 0x7e;
	return best | (__float_as_uint(f) >> 31) << 7;
}

static void need_fp8(const char *what)
{
	if (emu.no_fp8)
		emulate_fail("%s: the GPU has no instructions for e4m3", what);
}

uint32_t fp8x2_of(float low, float high)
{
	need_fp8("cvt.e4m3x2");
	return to_e4m3(low) | to_e4m3(high) << 8;
}

/* PTX ISA, "Matrix Fragments for mma.m16n8k32", 8 bit. */
static void run_mma_e4m3(void *const lane[32])
{
	double a[16][32], b[32][8];

	for (int i = 0; i < 32; i++) {
		const struct mma *m = (const struct mma *)lane[i];

		for (int e = 0; e < 16; e++)
			a[i / 4 + (e & 4 ? 8 : 0)][i % 4 * 4 + (e & 3) + (e & 8 ? 16 : 0)] =
				of_e4m3(m->a[e / 4] >> 8 * (e % 4) & 0xff);
		for (int e = 0; e < 8; e++)
			b[i % 4 * 4 + (e & 3) + (e & 4 ? 16 : 0)][i / 4] =
				of_e4m3(m->b[e / 4] >> 8 * (e % 4) & 0xff);
	}
	for (int i = 0; i < 32; i++) {
		for (int e = 0; e < 4; e++) {
			int row = i / 4 + (e & 2 ? 8 : 0), col = i % 4 * 2 + (e & 1);
			float *d = &((struct mma *)lane[i])->d[e];
			double sum = *d;

			for (int k = 0; k < 32; k++)
				sum += a[row][k] * b[k][col];
			*d = (float)sum;
		}
	}
}

void mma_e4m3(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
	struct mma m = {d, a, {b0, b1}};

	need_fp8("mma.e4m3");
	emulate_warp("mma.e4m3", &m, run_mma_e4m3);
}
