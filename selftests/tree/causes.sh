#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every cause of failure that can be made to happen here (HERE in rdma/cause.h) is named by a test
# that does so, as PST_CAUSE_NAME; one that takes hardware (HARDWARE) is named by none.
. selftests/lib/ktap.sh

# rows TOP: "NAME HERE" or "NAME HARDWARE" of the table in the tree at TOP
rows()
{
	tr -s '\\\n\t ' ' ' <"$1/rdma/cause.h" | grep -oE 'X\([A-Z][A-Z0-9_]*, ?[A-Z0-9]+, ?[A-Z]+,' |
		sed -E 's/X\(([A-Z0-9_]*), ?[A-Z0-9]+, ?([A-Z]+),/\1 \2/'
}

# named TOP: the causes that tests name outside of comments. That of the table itself names some
# for their words alone.
named()
{
	(cd "$1" && find selftests -name '*.[ch]' ! -path selftests/rdma/cause.c -exec cat {} +) |
		sed -E 's|/\*.*\*/||; /^[ \t]*(\/\*\|\*)/d' | grep -oE 'PST_CAUSE_[A-Z0-9_]+' |
		sed 's/^PST_CAUSE_//' | sort -u
}

# wrong TOP: what breaks the rule, a line each
wrong()
{
	named "$1" >"$tmp/named"
	rows "$1" | while read -r name where; do
		case $where:$(grep -qx "$name" "$tmp/named" && echo named) in
		HERE:named | HARDWARE:) ;;
		# it is what nothing has when nothing failed
		HERE:) [ "$name" = NONE ] || echo "$name: HERE, and no test makes it happen" ;;
		HARDWARE:named) echo "$name: HARDWARE, and a test makes it happen" ;;
		*) echo "$name: $where is neither HERE nor HARDWARE" ;;
		esac
	done
}

several_rows()
{
	[ "$(rows . | wc -l)" -gt 5 ] && [ "$(rows . | wc -l)" -eq "$(grep -cE '^	X\(' rdma/cause.h)" ]
}

found()
{
	wrong "$tmp/top" >"$tmp/found"
	grep -qx "$1" "$tmp/found" || { cat "$tmp/found"; return 1; }
}

check "the table is read whole" several_rows
check "each cause has its test, or needs hardware" none wrong .

# A tree with one row of each kind, and no tests; then with a test.
mkdir -p "$tmp/top/rdma" "$tmp/top/selftests/rdma"
printf '#define PST_CAUSES(X) \\\n\tX(NONE, 0, HERE, "", "", "") \\\n\tX(CUT, EIO, HERE, "a", "b", "c") \\\n' \
	>"$tmp/top/rdma/cause.h"
printf '\tX(BURNT_2, \\\n\t  EIO, HARDWARE, "a", \\\n\t  "b", "c") \\\n\tX(ODD, EIO, THERE, "", "", "")\n' \
	>>"$tmp/top/rdma/cause.h"
printf '/* PST_CAUSE_CUT */\nint PST_CAUSE_CUTTER;\n' >"$tmp/top/selftests/rdma/a.c"
printf 'EXPECT_EQ(PST_CAUSE_CUT, 1);\n' >"$tmp/top/selftests/rdma/cause.c"
check "a cause without a test is found" found "CUT: HERE, and no test makes it happen"
check "a row of another kind is found" found "ODD: THERE is neither HERE nor HARDWARE"
check "hardware without a test is fine" refused "ODD" found "BURNT_2.*"
printf 'EXPECT_EQ(PST_CAUSE_CUT, 1);\nEXPECT_EQ(PST_CAUSE_BURNT_2, 1);\n' >"$tmp/top/selftests/rdma/a.c"
check "hardware with a test is found" found "BURNT_2: HARDWARE, and a test makes it happen"
check "a cause with a test is fine" refused "ODD" found "CUT:.*"
finish
