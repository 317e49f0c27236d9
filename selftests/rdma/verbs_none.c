/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs fabric on a machine without RDMA: it is not there, and says why and what helps. */
#include "rdma/fabric.h"
#include "selftests/lib/test.h"

TEST(no_device_is_enodev_in_words)
{
	struct pst_fabric *fab = NULL;
	struct pst_error err = {0};
	int rc = pst_fabric_open("verbs://10.0.0.1", &fab, &err);

	if (!rc) {
		pst_fabric_close(fab);
		SKIP("this machine has RDMA", "a machine without it");
	}
	EXPECT_EQ(-ENODEV, rc);
	EXPECT_TRUE(fab == NULL);
	EXPECT_TRUE(strstr(err.text, "verbs") != NULL);
	EXPECT_TRUE(strstr(err.text, "to mend it: ") != NULL);
}

TEST(settings_are_looked_at_first)
{
	struct pst_error err = {0};
	struct pst_fabric *fab;

	EXPECT_EQ(-EINVAL, pst_fabric_open("verbs://10.0.0.1?chunk=x", &fab, &err));
}

TEST_MAIN
