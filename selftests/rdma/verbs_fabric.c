/* SPDX-License-Identifier: Apache-2.0 */
/* What every fabric does the same, over verbs, between two devices of a guest. */
#define FABRIC_VARIANTS(fixture)                                                              \
	FIXTURE_VARIANT_ADD(fixture, verbs_threads){.url = "verbs://10.0.0.2:0?dev=rxe1"};    \
	FIXTURE_VARIANT_ADD(fixture, verbs_processes){.url = "verbs://10.0.0.2:0?dev=rxe1",   \
						      .process = true};                       \
	FIXTURE_VARIANT_ADD(fixture,                                                          \
			    verbs_polled){.url = "verbs://10.0.0.2:0?dev=rxe1&poll=1&crc=0"}; \
	FIXTURE_VARIANT_ADD(fixture, verbs_rails){                                            \
		.url = "verbs://10.0.0.2,10.0.1.2:0?dev=rxe1,rxe3", .process = true};

#include "selftests/rdma/fabric.c"

__attribute__((constructor)) static void peers_have_devices_of_their_own(void)
{
	pair_peer = "verbs://?dev=rxe0,rxe2";
}
