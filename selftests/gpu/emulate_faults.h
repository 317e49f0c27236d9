/* SPDX-License-Identifier: Apache-2.0 */
/* emulate_faults.h - kernels that are wrong, each in one way, and the emulation sees it. */
#ifndef PST_EMULATE_FAULTS_H
#define PST_EMULATE_FAULTS_H

#include "selftests/gpu/emulate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All take one argument: float out[block]. The first does the same as some, rightly. */
emulate_fn fault_none, fault_barrier_skipped, fault_barriers_differ, fault_lane_missing,
	fault_warps_differ, fault_no_wait, fault_no_barrier_after_wait, fault_never_waited,
	fault_shared_unwritten, fault_static_shared_unwritten, fault_load_unaligned,
	fault_copy_unaligned, fault_copy_beyond_shared, fault_write_beyond_shared,
	fault_copy4_unaligned, fault_load8_unaligned, fault_shared8_unaligned,
	fault_shared16_beyond, fault_no_fp8;

#ifdef __cplusplus
}
#endif

#endif /* PST_EMULATE_FAULTS_H */
