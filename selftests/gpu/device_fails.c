/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU that goes wrong, on the stand-in driver: it hangs, is lost, has an error that stays. */
#include "selftests/gpu/device_fixture.h"

/* Errors that stay. */

FIXTURE(sticky)
{
	struct pst_gpu *gpu;
};
FIXTURE_VARIANT(sticky)
{
	const char *op;
	CUresult injected;
	const char *name;
};
FIXTURE_VARIANT_ADD(sticky, fault){"fault", 0, "CUDA_ERROR_ILLEGAL_ADDRESS (700"};
FIXTURE_VARIANT_ADD(sticky, assertion){"assert", 0, "CUDA_ERROR_ASSERT (710"};
FIXTURE_VARIANT_ADD(sticky, launch){"nop", 719, "CUDA_ERROR_LAUNCH_FAILED (719"};
FIXTURE_VARIANT_ADD(sticky, ecc){"nop", 214, "CUDA_ERROR_ECC_UNCORRECTABLE (214"};
FIXTURE_VARIANT_ADD(sticky, unknown){"nop", 999, "CUDA_ERROR_UNKNOWN (999"};
FIXTURE_SETUP(sticky)
{
	use_standin(2);
	OK(pst_gpu_open(0, NULL, &self->gpu, &err));
}
FIXTURE_TEARDOWN(sticky)
{
	(void)self;
}

TEST_F(sticky, one_sentence_for_good)
{
	struct pst_gpu_module *m = module_of(self->gpu, variant->op);
	struct pst_gpu_copies *c;
	struct pst_gpu_event *e;
	struct pst_gpu_stat st;
	char first[PST_ERROR_TEXT], name[64];
	struct pst_gpu *other;
	uint64_t block;
	unsigned int calls = 0;
	int rc;

	OK(pst_gpu_alloc(self->gpu, 512, 0, &block, &err));
	OK(pst_gpu_copies_new(self->gpu, 2, &c, &err));
	OK(pst_gpu_event_new(self->gpu, false, &e, &err));
	s->gpu[0].sticky = variant->injected;
	/* it is seen by whoever asks first after it came */
	rc = launch(self->gpu, kernel_of(m, variant->op), NULL);
	if (!rc)
		rc = pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err);
	EXPECT_EQ(-EIO, rc);
	snprintf(first, sizeof(first), "%s", why());
	snprintf(name, sizeof(name), "fn_%s was launched last", variant->op);
	EXPECT_TRUE(strstr(first, variant->name));
	EXPECT_TRUE(strstr(first, name));
	EXPECT_TRUE(strstr(first, "only a new process"));
	/* whatever is asked next, and the driver is left alone */
	for (int i = 0; i < STANDIN_CALLS; i++)
		calls += s->fn[i].calls;
	EXPECT_FAILS(-EIO, first, pst_gpu_dead(self->gpu, &err));
	EXPECT_FAILS(-EIO, first, pst_gpu_wait(self->gpu, PST_GPU_IN, MS, &err));
	EXPECT_FAILS(-EIO, first, pst_gpu_alloc(self->gpu, 1, 0, &block, &err));
	EXPECT_FAILS(-EIO, first, pst_gpu_event_record(e, PST_GPU_IN, &err));
	EXPECT_FAILS(-EIO, first, pst_gpu_copies_send(c, PST_GPU_IN, &err));
	EXPECT_FAILS(-EIO, first,
		     pst_gpu_register(self->gpu, host_memory(4096, PROT_READ | PROT_WRITE), 4096, 0,
				      -1, &err));
	for (int i = 0; i < STANDIN_CALLS; i++)
		calls -= s->fn[i].calls;
	EXPECT_EQ(0u, calls);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_TRUE(st.dead);
	/* the name of what is gone is still known */
	pst_gpu_event_free(e);
	pst_gpu_copies_free(c);
	pst_gpu_module_unload(m);
	EXPECT_FAILS(-EIO, first, pst_gpu_close(self->gpu, &err));
	/* other GPUs are well */
	OK(pst_gpu_open(1, NULL, &other, &err));
	OK(pst_gpu_close(other, &err));
}

/* What was launched last is known when its module is gone. */
TEST_F(gpu, the_name_outlives_the_module)
{
	struct pst_gpu_module *m = module_of(self->gpu, "nop");

	OK(launch(self->gpu, kernel_of(m, "nop"), NULL));
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	pst_gpu_module_unload(m);
	s->fn[STANDIN_cuStreamQuery].fail_rc = CUDA_ERROR_ILLEGAL_INSTRUCTION;
	s->fn[STANDIN_cuStreamQuery].fail_in = 1;
	EXPECT_FAILS(-EIO, "fn_nop was launched last",
		     pst_gpu_wait(self->gpu, PST_GPU_OUT, MS, &err));
	EXPECT_FAILS(-EIO, "fn_nop", pst_gpu_close(self->gpu, &err));
	self->gpu = NULL;
}

TEST_F(gpu, a_gpu_that_hangs)
{
	struct pst_gpu_module *m = module_of(self->gpu, "hang");
	uint64_t block;

	OK(pst_gpu_alloc(self->gpu, 512, 0, &block, &err));
	OK(launch(self->gpu, kernel_of(m, "hang"), NULL));
	EXPECT_FAILS(-ETIMEDOUT, "fn_hang was launched last",
		     pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, 20, &err));
	/* close does not wait behind it for ever either, and says what stays */
	EXPECT_FAILS(-ETIMEDOUT, "only the end of this process", pst_gpu_close(self->gpu, &err));
	EXPECT_EQ(16 * MIB, (unsigned long long)standin_used(s, 0));
	self->gpu = NULL;
	s->gpu[0].release = 1;
}

/* A stream takes some hundred pieces of work, and the driver would block behind more. */
TEST_F(gpu, a_stream_that_is_full)
{
	struct pst_gpu_module *m = module_of(self->gpu, "hang"), *n = module_of(self->gpu, "nop");
	struct pst_gpu_kernel *nop = kernel_of(n, "nop");
	int rc = 0, posted = 0;

	OK(launch(self->gpu, kernel_of(m, "hang"), NULL));
	while (!rc && posted < 2000) {
		rc = launch(self->gpu, nop, NULL);
		posted += !rc;
	}
	EXPECT_FAILS(-ETIMEDOUT, "room in its stream for compute", rc);
	EXPECT_GT(posted, 500);
	EXPECT_LT(posted, 1000);
	/* others have room, and so has this one when it goes on */
	OK(pst_gpu_launch(self->gpu, PST_GPU_IN, nop, &one_block, NULL, &err));
	s->gpu[0].release = 1;
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	for (int i = 0; i < 2000; i++)
		OK(launch(self->gpu, nop, NULL));
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	pst_gpu_module_unload(m);
	pst_gpu_module_unload(n);
}

TEST_F(gpu, a_gpu_that_is_lost)
{
	struct pst_gpu_module *m = module_of(self->gpu, "hang");

	OK(launch(self->gpu, kernel_of(m, "hang"), NULL));
	s->gpu[0].lost = 1;
	EXPECT_FAILS(-EIO, "dead for this process",
		     pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	pst_gpu_module_unload(m);
	EXPECT_FAILS(-EIO, "CUDA_ERROR_DEVICE_UNAVAILABLE", pst_gpu_close(self->gpu, &err));
	self->gpu = NULL;
}

TEST_MAIN
