# SPDX-License-Identifier: Apache-2.0
rdma-y := \
	# EOL
