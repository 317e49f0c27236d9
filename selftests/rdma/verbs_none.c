/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs fabric on a machine without RDMA: it is not there, and says why and what helps. */
#include "rdma/cause.h"
#include "selftests/lib/test.h"

#include <unistd.h>

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
	/* the libraries are there, the kernel's part is not */
	if (access("/sys/class/infiniband_verbs", F_OK) && !strstr(err.text, "this build is") &&
	    !strstr(err.text, pst_cause_row(PST_CAUSE_VERBS_LIBRARY)->what))
		EXPECT_TRUE(strstr(err.text, pst_cause_row(PST_CAUSE_VERBS_KERNEL)->mend) != NULL);
}

TEST(settings_are_looked_at_first)
{
	struct pst_error err = {0};
	struct pst_fabric *fab;

	EXPECT_EQ(-EINVAL, pst_fabric_open("verbs://10.0.0.1?chunk=x", &fab, &err));
}

TEST_MAIN
