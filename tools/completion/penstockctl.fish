# SPDX-License-Identifier: Apache-2.0
# Completion of penstockctl(1) for fish.

# Words of the command line that are no options.
function __penstockctl_words
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $word --socket --past --layer --top --interval --device --threads --url \
                --timeout --node --cap --clock --type
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# The command so far is this.
function __penstockctl_is
    set -l words (__penstockctl_words)
    test "$words" = "$argv"
end

# It begins so.
function __penstockctl_in
    set -l words (__penstockctl_words)
    set -l n (count $argv)
    test (count $words) -ge $n; and test "$words[1..$n]" = "$argv"
end

function __penstockctl_ids
    penstockctl $argv[1] 2>/dev/null | string replace -rf '^ *(\d+) +(.*)' '$1\t$2'
end

function __penstockctl_devices
    penstockctl devices 2>/dev/null | awk '$1 ~ /^[0-9]+$/ { print $2 ":" n[$2]++ "\tdevice " $1 }'
end

complete -c penstockctl -f
complete -c penstockctl -l socket -r -F -d 'the daemon\'s socket'
complete -c penstockctl -l json -d 'print JSON, for programs'
complete -c penstockctl -l help -d 'print the options'
complete -c penstockctl -n '__penstockctl_is' -l version -d 'print the version'

complete -c penstockctl -n '__penstockctl_is' -a info -d 'what the daemon has, and what you may do'
complete -c penstockctl -n '__penstockctl_is' -a devices -d 'CPUs and GPUs'
complete -c penstockctl -n '__penstockctl_is' -a pools -d 'memory that others map'
complete -c penstockctl -n '__penstockctl_is' -a kernels -d 'implementations of ops'
complete -c penstockctl -n '__penstockctl_is' -a workers -d 'what computes experts'
complete -c penstockctl -n '__penstockctl_is' -a servers -d 'what keeps weights'
complete -c penstockctl -n '__penstockctl_is' -a experts -d 'where copies of experts are'
complete -c penstockctl -n '__penstockctl_is' -a tables -d 'weights and their versions'
complete -c penstockctl -n '__penstockctl_is' -a events -d 'what happened'
complete -c penstockctl -n '__penstockctl_is' -a top -d 'all of it, live'
complete -c penstockctl -n '__penstockctl_is' -a power -d 'show or set what a device may draw'
complete -c penstockctl -n '__penstockctl_is' -a kernel -d 'load, bind, roll back, unload'
complete -c penstockctl -n '__penstockctl_is' -a worker -d 'start, drain, stop'
complete -c penstockctl -n '__penstockctl_is' -a pool -d 'create, destroy'
complete -c penstockctl -n '__penstockctl_is' -a expert -d 'place, pin, unpin, evict'

complete -c penstockctl -n '__penstockctl_is kernel' -a load -d 'try an image'
complete -c penstockctl -n '__penstockctl_is kernel' -a bind -d 'let a kernel serve its op'
complete -c penstockctl -n '__penstockctl_is kernel' -a rollback -d 'go back to what it replaced'
complete -c penstockctl -n '__penstockctl_is kernel' -a unload -d 'forget a kernel'
complete -c penstockctl -n '__penstockctl_is worker' -a start -d 'start a worker'
complete -c penstockctl -n '__penstockctl_is worker' -a drain -d 'send its work elsewhere, stop it'
complete -c penstockctl -n '__penstockctl_is worker' -a stop -d 'stop it at once'
complete -c penstockctl -n '__penstockctl_is pool' -a create -d 'make a pool that stays'
complete -c penstockctl -n '__penstockctl_is pool' -a destroy -d 'let a pool go'
complete -c penstockctl -n '__penstockctl_is expert' -a place -d 'bring an expert to a worker'
complete -c penstockctl -n '__penstockctl_is expert' -a pin -d 'bring it, and keep it there'
complete -c penstockctl -n '__penstockctl_is expert' -a unpin -d 'it may go when there is no room'
complete -c penstockctl -n '__penstockctl_is expert' -a evict -d 'let its copy go now'

complete -c penstockctl -n '__penstockctl_in kernel load' -F -l slower -d 'it may be slower'
complete -c penstockctl -n '__penstockctl_in kernel load' -F
for order in bind rollback unload
    complete -c penstockctl -n "__penstockctl_is kernel $order" -a '(__penstockctl_ids kernels)'
end
complete -c penstockctl -n '__penstockctl_in worker start' -x -l device -a '(__penstockctl_devices)'
complete -c penstockctl -n '__penstockctl_in worker start' -x -l threads -d 'that compute'
complete -c penstockctl -n '__penstockctl_in worker start' -x -l url -d 'where it listens'
complete -c penstockctl -n '__penstockctl_in worker drain' -x -l timeout -d 'seconds to wait'
for order in drain stop
    complete -c penstockctl -n "__penstockctl_is worker $order" -a '(__penstockctl_ids workers)'
end
complete -c penstockctl -n '__penstockctl_in pool create' -l huge -d 'in huge pages, or not at all'
complete -c penstockctl -n '__penstockctl_in pool create' -l lock -d 'locked in RAM, or not at all'
complete -c penstockctl -n '__penstockctl_in pool create' -x -l node -d 'on this NUMA node'
complete -c penstockctl -n '__penstockctl_is pool destroy' -a '(__penstockctl_ids pools)'
complete -c penstockctl -n '__penstockctl_in experts' -x -l layer -d 'of this layer only'
complete -c penstockctl -n '__penstockctl_in experts' -x -l top -d 'the N hottest'
complete -c penstockctl -n '__penstockctl_in events' -l follow -d 'go on as they come'
complete -c penstockctl -n '__penstockctl_in events' -x -l past -d 'the last N'
complete -c penstockctl -n '__penstockctl_in events' -x -l type -a 'lost started died hung drained stopped kernel-loaded kernel-refused kernel-bound kernel-taken-back device xid limit pool reloaded'
complete -c penstockctl -n '__penstockctl_in top' -x -l interval -d 'seconds between two looks'
complete -c penstockctl -n '__penstockctl_in top' -l once -d 'once, as plain text'
complete -c penstockctl -n '__penstockctl_is power' -a '(__penstockctl_devices)'
complete -c penstockctl -n '__penstockctl_in power' -x -l cap -d 'draw this at most, in W'
complete -c penstockctl -n '__penstockctl_in power' -x -l clock -d 'MIN-MAX in MHz'
complete -c penstockctl -n '__penstockctl_in power' -l reset -d 'put back what the daemon found'
