/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in as a library of long ago. */
#define STANDIN_OLD
#include "selftests/gpu/libnvidia-ml.c"
