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

# verbs needs headers to be built, and libraries only when it is opened
rdma-has-verbs := $(shell echo '\#include <rdma/rdma_cma.h>' | $(CC) -E - >/dev/null 2>&1 && echo yes)
ifneq ($(rdma-has-verbs),)
rdma-y += \
	rdma/verbs/async.c \
	rdma/verbs/cause.c \
	rdma/verbs/cm.c \
	rdma/verbs/connect.c \
	rdma/verbs/cq.c \
	rdma/verbs/dev.c \
	rdma/verbs/frame.c \
	rdma/verbs/grant.c \
	rdma/verbs/issue.c \
	rdma/verbs/lib.c \
	rdma/verbs/link.c \
	rdma/verbs/rail.c \
	rdma/verbs/region.c \
	rdma/verbs/setup.c \
	rdma/verbs/verbs.c \
	# EOL
else
rdma-y += rdma/verbs/none.c
endif
