/* SPDX-License-Identifier: Apache-2.0 */
/* late.h - kernels that behave while they are tried, and later do not. */
#ifndef TEST_LATE_H
#define TEST_LATE_H

#include "kernels/image.h"
#include "kernels/ref/ref.h"

#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>

static bool is_tried;

__attribute__((constructor)) static void look_around(void)
{
	char name[16] = "";

	prctl(PR_GET_NAME, name, 0, 0, 0);
	is_tried = !strcmp(name, "penstock-trial");
}

#endif /* TEST_LATE_H */
