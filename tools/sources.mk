# SPDX-License-Identifier: Apache-2.0
tools-programs := \
	# EOL
