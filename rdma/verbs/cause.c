/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the codes of libibverbs mean, as rows of the table in cause.h.
 *
 * Codes of a completion: InfiniBand specification, volume 1, section 11.6.2.
 */
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <sys/resource.h>

static const uint32_t wc_causes[] = {
	[IBV_WC_SUCCESS] = PST_CAUSE_NONE,
	[IBV_WC_LOC_LEN_ERR] = PST_CAUSE_LOC_LEN,
	[IBV_WC_LOC_QP_OP_ERR] = PST_CAUSE_LOC_QP_OP,
	[IBV_WC_LOC_EEC_OP_ERR] = PST_CAUSE_LOC_EEC_OP,
	[IBV_WC_LOC_PROT_ERR] = PST_CAUSE_LOC_PROT,
	[IBV_WC_WR_FLUSH_ERR] = PST_CAUSE_FLUSHED,
	[IBV_WC_MW_BIND_ERR] = PST_CAUSE_MW_BIND,
	[IBV_WC_BAD_RESP_ERR] = PST_CAUSE_BAD_RESP,
	[IBV_WC_LOC_ACCESS_ERR] = PST_CAUSE_LOC_ACCESS,
	[IBV_WC_REM_INV_REQ_ERR] = PST_CAUSE_REM_INV_REQ,
	[IBV_WC_REM_ACCESS_ERR] = PST_CAUSE_REM_ACCESS,
	[IBV_WC_REM_OP_ERR] = PST_CAUSE_REM_OP,
	[IBV_WC_RETRY_EXC_ERR] = PST_CAUSE_RETRY_EXC,
	[IBV_WC_RNR_RETRY_EXC_ERR] = PST_CAUSE_RNR_RETRY_EXC,
	[IBV_WC_LOC_RDD_VIOL_ERR] = PST_CAUSE_LOC_RDD_VIOL,
	[IBV_WC_REM_INV_RD_REQ_ERR] = PST_CAUSE_REM_INV_RD_REQ,
	[IBV_WC_REM_ABORT_ERR] = PST_CAUSE_REM_ABORT,
	[IBV_WC_INV_EECN_ERR] = PST_CAUSE_INV_EECN,
	[IBV_WC_INV_EEC_STATE_ERR] = PST_CAUSE_INV_EEC_STATE,
	[IBV_WC_FATAL_ERR] = PST_CAUSE_FATAL,
	[IBV_WC_RESP_TIMEOUT_ERR] = PST_CAUSE_RESP_TIMEOUT,
	[IBV_WC_GENERAL_ERR] = PST_CAUSE_GENERAL,
	[IBV_WC_TM_ERR] = PST_CAUSE_TM,
	[IBV_WC_TM_RNDV_INCOMPLETE] = PST_CAUSE_TM_RNDV,
};

uint32_t pst_verbs_wc_cause(enum ibv_wc_status status)
{
	const unsigned int i = status;

	return i < sizeof(wc_causes) / sizeof(wc_causes[0]) ? wc_causes[i] : PST_CAUSE_COUNT;
}

uint32_t pst_verbs_errno_cause(int error)
{
	struct rlimit limit;

	/* The kernel's rdma cgroup says EAGAIN, and nothing else in making an object does. */
	if (error == EAGAIN)
		return PST_CAUSE_RDMA_CGROUP;
	if (error == ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &limit) &&
	    limit.rlim_cur != RLIM_INFINITY)
		return PST_CAUSE_MEMLOCK;
	if (error == EOPNOTSUPP || error == EPROTONOSUPPORT)
		return PST_CAUSE_NOT_OFFERED;
	return error == ENOMEM ? PST_CAUSE_DEVICE_FULL : PST_CAUSE_DEVICE_REFUSED;
}
