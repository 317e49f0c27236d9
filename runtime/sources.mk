# SPDX-License-Identifier: Apache-2.0
runtime-y := \
	# EOL
