/* SPDX-License-Identifier: Apache-2.0 */
/* check_launch.h - which kernels the tests of a gpu-check have launched, in all their processes. */
#ifndef PST_CHECK_LAUNCH_H
#define PST_CHECK_LAUNCH_H

/* Before the first test is forked. */
void check_launch_begin(void);

/* How many kernels of cuda.h were never launched; says which. */
int check_launch_end(void);

#endif /* PST_CHECK_LAUNCH_H */
