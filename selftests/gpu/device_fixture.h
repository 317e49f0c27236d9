/* SPDX-License-Identifier: Apache-2.0 */
/* device_fixture.h - a GPU that is open when a test begins, and leaves nothing when it ends. */
#ifndef TEST_GPU_DEVICE_FIXTURE_H
#define TEST_GPU_DEVICE_FIXTURE_H

#include "selftests/gpu/device.h"

FIXTURE(gpu)
{
	struct pst_gpu *gpu;
};
FIXTURE_SETUP(gpu)
{
	const struct pst_gpu_options o = {
		.size = sizeof(o), .arena = 16 * MIB, .chunk = 65536, .patience_ms = 200};

	use_standin(2);
	OK(pst_gpu_open(0, &o, &self->gpu, &err));
}
FIXTURE_TEARDOWN(gpu)
{
	if (self->gpu) {
		OK(pst_gpu_close(self->gpu, &err));
		expect_nothing_left();
	}
}

#endif /* TEST_GPU_DEVICE_FIXTURE_H */
