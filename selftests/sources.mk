# SPDX-License-Identifier: Apache-2.0
# Programs: selftests/AREA/NAME.c becomes $(O)/selftests/AREA/NAME.
selftests-programs := \
	# EOL
