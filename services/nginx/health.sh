#!/bin/bash
# Whether a worker of nginx and the resolvers answer; `mt5-nginx-health resolvers` asks these alone.
set -euo pipefail

answers() { # a resolver, at an address and a port
    # One question, for A of "health.invalid", which it answers by itself.
    exec 4<>"/dev/udp/$1/$2"
    printf '\0\7\1\0\0\1\0\0\0\0\0\0\6health\7invalid\0\0\1\0\1' >&4
    # Its number, that it is an answer, and NXDOMAIN.
    [[ $(timeout 3 head -c 4 <&4 | od -An -tx1) == " 00 07 8"?" "?3 ]]
}

answers 127.0.0.1 5353
answers 127.0.0.53 53
[[ ${1:-} == resolvers ]] && exit

exec 3<>/dev/tcp/127.0.0.1/8081
printf 'GET /health HTTP/1.0\r\n\r\n' >&3
read -r -t 3 status <&3
[[ $status == "HTTP/1.1 200"* ]]
