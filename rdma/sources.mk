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
	rdma/tcp/connect.c \
	rdma/tcp/cq.c \
	rdma/tcp/epoll.c \
	rdma/tcp/frame.c \
	rdma/tcp/grant.c \
	rdma/tcp/in.c \
	rdma/tcp/link.c \
	rdma/tcp/out.c \
	rdma/tcp/post.c \
	rdma/tcp/progress.c \
	rdma/tcp/setup.c \
	rdma/tcp/sock.c \
	rdma/tcp/tcp.c \
	rdma/tcp/uring.c \
	rdma/url.c \
	# EOL

