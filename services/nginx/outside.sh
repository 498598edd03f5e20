#!/bin/bash
# mt5-nginx-outside A.B.C.D/N: the blocks that hold every IPv4 address outside of one, a line each.
set -euo pipefail

refuse() {
    echo "mt5-nginx: $1 is not an IPv4 network such as 10.77.2.0/24" >&2
    exit 2
}

dotted() { # of a number
    echo "$(($1 >> 24)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"
}

given=${1:-nothing}
[[ $given =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})/([0-9]{1,2})$ ]] || refuse "$given"
address=0
for octet in "${BASH_REMATCH[@]:1:4}"; do
    ((10#$octet < 256)) || refuse "$given"
    address=$((address << 8 | 10#$octet))
done
length=$((10#${BASH_REMATCH[5]}))
((1 <= length && length <= 32)) || refuse "$given"
((address & (1 << 32 - length) - 1)) && refuse "$given"

# At each step the half that the network is not in.
for ((bits = 1; bits <= length; bits++)); do
    other=$(((address >> 32 - bits ^ 1) << 32 - bits))
    echo "$(dotted $other)/$bits"
done
