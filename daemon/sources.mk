# SPDX-License-Identifier: Apache-2.0
# Programs: each is built from the sources in its own list.
daemon-programs := \
	penstock-ps \
	penstock-worker \
	# EOL

penstock-ps-y := \
	daemon/penstock-ps.c \
	daemon/serve.c \
	# EOL

penstock-worker-y := \
	daemon/penstock-worker.c \
	daemon/serve.c \
	# EOL
