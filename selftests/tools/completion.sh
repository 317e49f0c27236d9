#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# In bash, zsh and fish every command of penstockctl completes, and so does every option of each.
. selftests/lib/ktap.sh

PATH=$(cd "$O" && pwd):$PATH
export PENSTOCK_SOCKET=$tmp/none

"$O/penstockctl" --help | sed -n 's/^  \([a-z]\+\( [a-z]\+\)\?\)  *.*/\1/p' | sed 's/ *$//' >"$tmp/commands"

# offers_bash WORDS: what completes the last of the words, which may be empty
offers_bash()
{
	bash --norc -c '
		source tools/completion/penstockctl.bash
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_penstockctl
		printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}

# An interactive shell is asked with a tab after each of the lines in a file, and what it would
# insert is written down: it takes a second to begin, so there is one for all.
cat >"$tmp/ask.zsh" <<'END'
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell '
PROMPT= RPROMPT=
fpath=('$PWD'/tools/completion $fpath)
autoload -Uz compinit; compinit -u -D
compadd() {
	local -a hits
	if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
		builtin compadd -A hits "$@"
		print -l -- $hits >>'$1'
	fi
	builtin compadd "$@"
}
LISTMAX=0
print ready'
zpty -r -m shell line '*ready*ready*'
while IFS= read -r asked; do
	print -r -- "== $asked" >>$1
	zpty -n -w shell "$asked"$'\t'
	# it drops what it was about to offer when more is typed
	for look in {1..100}; do
		[[ $(tail -n 1 $1) == "== $asked" ]] || break
		sleep 0.02
	done
	zpty -n -w shell $'\x15'"print do''ne"$'\n'
	zpty -r -m shell line '*done*' || exit 1
done <$2
zpty -d shell
END
prepare_zsh()
{
	{
		echo 'penstockctl '
		echo 'penstockctl events --type kernel-'
		sed -n 's/\([a-z]*\) .*/penstockctl \1 /p' "$tmp/commands" | sort -u
		sed 's/.*/penstockctl & --/' "$tmp/commands"
	} >"$tmp/asked"
	timeout 100 zsh -f "$tmp/ask.zsh" "$tmp/zsh" "$tmp/asked"
}

offers_zsh()
{
	awk -v line="== $*" '/^== / { on = $0 == line; next } on { sub(/=$/, ""); print }' "$tmp/zsh" | sort -u
}

offers_fish()
{
	HOME=$tmp fish --no-config -c '
		source tools/completion/penstockctl.fish
		complete -C (string join " " -- $argv)' "$@" | cut -f 1
}

# wanted SHELL WORDS... : OFFERS...: all of these are offered
wanted()
{
	local shell=$1 words=() one
	shift
	while [ "$1" != : ]; do
		words+=("$1")
		shift
	done
	shift
	"offers_$shell" "${words[@]}" >"$tmp/offers"
	for one; do
		grep -qxF -- "$one" "$tmp/offers" && continue
		echo "$shell: ${words[*]} does not complete to $one, but to:"
		cat "$tmp/offers"
		return 1
	done
}

options_of()
{
	"$O/penstockctl" "$@" --help | sed -n 's/^  \(--[a-z]*\).*/\1/p'
}

# shellcheck disable=SC2046 # words
all_options()
{
	local command
	while read -r -a command; do
		wanted "$1" penstockctl "${command[@]}" -- : $(options_of "${command[@]}") || return
	done <"$tmp/commands"
}

for shell in bash zsh fish; do
	if ! command -v "$shell" >/dev/null 2>&1; then
		skip "$shell completes" "no $shell" "tools/deps.sh check"
		continue
	fi
	[ "$shell" != zsh ] || check "zsh answers" prepare_zsh
	# shellcheck disable=SC2046 # words
	check "$shell completes commands" wanted "$shell" penstockctl '' : $(cut -d ' ' -f 1 "$tmp/commands")
	for group in $(sed -n 's/ .*//p' "$tmp/commands" | uniq -d); do
		# shellcheck disable=SC2046 # words
		check "$shell completes commands of the group $group" wanted "$shell" penstockctl "$group" '' : \
			$(sed -n "s/^$group //p" "$tmp/commands")
	done
	check "$shell completes options of every command" all_options "$shell"
	check "$shell completes types of events" wanted "$shell" penstockctl events --type kernel- : \
		kernel-loaded kernel-taken-back
	check "$shell does not offer what there is not" refused "does not complete to bogus" wanted "$shell" \
		penstockctl '' : info bogus
done
finish
