# SPDX-License-Identifier: Apache-2.0
rdma-y := \
	rdma/fabric.c \
	rdma/shm.c \
	rdma/shm_connect.c \
	rdma/shm_cq.c \
	rdma/shm_grant.c \
	rdma/shm_link.c \
	rdma/shm_ring.c \
	rdma/shm_setup.c \
	rdma/shm_sock.c \
	# EOL
