/* SPDX-License-Identifier: Apache-2.0 */
/* Peers are killed under load, between two devices of a guest; make soak does so for long. */
#define ONLY_VERBS

#include "selftests/rdma/kills.c"
