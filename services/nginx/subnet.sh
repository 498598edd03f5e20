#!/bin/bash
# About an IPv4 network:
#   mt5-nginx-subnet outside A.B.C.D/N               the blocks that hold all other addresses, a line each
#   mt5-nginx-subnet holds A.B.C.D/N [ADDRESS...]    whether one of these addresses is in it
set -euo pipefail

refuse() {
    echo "mt5-nginx: $1 is not an IPv4 network such as 10.77.2.0/24" >&2
    exit 2
}

number() { # of a dotted address; nothing of what is none
    [[ $1 =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$ ]] || return 0
    local octet sum=0
    for octet in "${BASH_REMATCH[@]:1}"; do
        ((10#$octet < 256)) || return 0
        sum=$((sum << 8 | 10#$octet))
    done
    echo "$sum"
}

dotted() { # of a number
    echo "$(($1 >> 24)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"
}

question=${1:-}
network=${2:-nothing}
[[ $network =~ ^([0-9.]+)/([0-9]{1,2})$ ]] || refuse "$network"
length=$((10#${BASH_REMATCH[2]}))
first=$(number "${BASH_REMATCH[1]}")
[[ -n $first ]] && ((1 <= length && length <= 32)) || refuse "$network"
host_bits=$(((1 << 32 - length) - 1))
((first & host_bits)) && refuse "$network"

case $question in
outside)
    # At each step the half that the network is not in.
    for ((bits = 1; bits <= length; bits++)); do
        other=$(((first >> 32 - bits ^ 1) << 32 - bits))
        echo "$(dotted $other)/$bits"
    done
    ;;
holds)
    for address in "${@:3}"; do
        one=$(number "$address")
        [[ -n $one ]] && (((one & ~host_bits) == first)) && exit 0
    done
    exit 1
    ;;
*) exit 2 ;;
esac
