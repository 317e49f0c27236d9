# SPDX-License-Identifier: Apache-2.0
rdma-y := \
	rdma/cause.c \
	rdma/crc32c.c \
	rdma/fabric.c \
	rdma/handshake.c \
	rdma/secret.c \
	rdma/shm/connect.c \
	rdma/shm/cq.c \
	rdma/shm/grant.c \
	rdma/shm/link.c \
	rdma/shm/ring.c \
	rdma/shm/setup.c \
	rdma/shm/shm.c \
	rdma/shm/sock.c \
	rdma/url.c \
	# EOL

