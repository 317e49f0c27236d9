#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Manual pages are well formed.
. selftests/lib/ktap.sh

pages=$(ls doc/man/*.[1-9] 2>/dev/null)
for page in $pages; do
	if command -v mandoc >/dev/null 2>&1; then
		check "$page" none mandoc -T lint -W warning "$page"
	else
		skip "$page" "no mandoc" "tools/deps.sh check"
	fi
done
check "there are manual pages" test -n "$pages"
finish
