# SPDX-License-Identifier: Apache-2.0
kernels-y := \
	kernels/registry.c \
	# EOL

# built twice, for float and for double
kernels-ref := \
	# EOL
