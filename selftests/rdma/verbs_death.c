/* SPDX-License-Identifier: Apache-2.0 */
/* The peer dies, at any moment: as on every fabric, between two devices of a guest. */
#define KILLS 10
#define FABRIC_VARIANTS(fixture)                                                   \
	FIXTURE_VARIANT_ADD(fixture, verbs){.url = "verbs://10.0.0.2:0?dev=rxe1"}; \
	FIXTURE_VARIANT_ADD(fixture,                                               \
			    verbs_rails){.url = "verbs://10.0.0.2,10.0.1.2:0?dev=rxe1,rxe3"};

#include "selftests/rdma/fabric_death.c"

__attribute__((constructor)) static void peers_have_devices_of_their_own(void)
{
	pair_peer = "verbs://?dev=rxe0,rxe2";
}
