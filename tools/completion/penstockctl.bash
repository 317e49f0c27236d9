# SPDX-License-Identifier: Apache-2.0
# Completion of penstockctl(1) for bash.

# Ids and names of what "penstockctl LIST" shows, from the columns given: __penstockctl_ids pools 1 2
__penstockctl_ids()
{
	local list=$1 columns
	shift
	columns=$(printf '$%s, ' "$@")
	penstockctl "${socket[@]}" "$list" 2>/dev/null |
		awk "NR > 1 && \$1 ~ /^[0-9]+\$/ { print ${columns%, } }"
}

__penstockctl_devices()
{
	penstockctl "${socket[@]}" devices 2>/dev/null |
		awk '$1 ~ /^[0-9]+$/ { print $1, $2 ":" n[$2]++ }'
}

_penstockctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local i word command='' words=0 typed='' offered='' socket=()
	local plain='info devices pools kernels workers servers experts tables events top power'
	local groups='kernel worker pool expert'
	local types='lost started died hung drained stopped kernel-loaded kernel-refused kernel-bound
		kernel-taken-back device xid limit pool reloaded'

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		--socket) socket=(--socket "${COMP_WORDS[++i]}") ;;
		--past | --layer | --top | --interval | --device | --threads | --url | --timeout | --node | \
			--cap | --clock) ((++i)) ;;
		--type) typed=1 ;;
		-*) ;;
		*)
			case " $groups " in
			*" $command "*) command="$command $word" ;;
			*) [[ $command ]] && ((++words)) || command=$word ;;
			esac
			;;
		esac
	done

	case $prev in
	--socket)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--type) offered=$types ;;
	--device) offered=$(__penstockctl_devices) ;;
	--past | --layer | --top | --interval | --threads | --url | --timeout | --node | --cap | --clock)
		return
		;;
	esac
	if [[ ! $offered && $cur == -* ]]; then
		offered='--socket --json --help'
		case $command in
		'') offered+=' --version' ;;
		experts) offered+=' --layer --top' ;;
		events) offered+=' --follow --past --type' ;;
		top) offered+=' --interval --once' ;;
		power) offered+=' --cap --clock --reset' ;;
		'kernel load') offered+=' --slower' ;;
		'worker start') offered+=' --device --threads --url' ;;
		'worker drain') offered+=' --timeout' ;;
		'pool create') offered+=' --huge --lock --node' ;;
		esac
	elif [[ ! $offered ]]; then
		case $command in
		'') offered="$plain $groups" ;;
		kernel) offered='load bind rollback unload' ;;
		worker) offered='start drain stop' ;;
		pool) offered='create destroy' ;;
		expert) offered='place pin unpin evict' ;;
		events) [[ ! $typed ]] || offered=$types ;;
		power) ((words)) || offered=$(__penstockctl_devices) ;;
		'kernel load')
			compopt -o filenames 2>/dev/null
			((words > 1)) || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
			;;
		'kernel '*) ((words)) || offered=$(__penstockctl_ids kernels 1) ;;
		'worker drain' | 'worker stop') ((words)) || offered=$(__penstockctl_ids workers 1) ;;
		'pool destroy') ((words)) || offered=$(__penstockctl_ids pools 1 2) ;;
		'expert '*) ((words == 2)) && offered=$(__penstockctl_ids workers 1) ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$offered" -- "$cur")
}

complete -F _penstockctl penstockctl
