#!/bin/bash
# Runs nginx, the resolver that it asks, and the filter of its error log. When one of them ends, all do.
set -euo pipefail

errors=/tmp/errors
tls=/etc/nginx/tls
declare -A parts

filter_errors() {
    rm -f "$errors"
    mkfifo -m 600 "$errors"
    LC_ALL=C sed -u -E -f /usr/local/share/mt5-nginx/error_log.sed <"$errors" >&2 &
    parts[$!]="the filter of the error log"
}

resolve() {
    # Forwards to Docker's resolver and remembers nothing. An answer with an address outside the
    # services' network becomes NXDOMAIN: a slot's name without a task may be forwarded to an outside
    # server, and that may have an answer to everything.
    local blocks block outside=()
    blocks=$(mt5-nginx-subnet outside "$SERVICES_SUBNET")
    for block in $blocks; do
        outside+=("--bogus-nxdomain=$block")
    done
    dnsmasq --keep-in-foreground --conf-file=/dev/null --log-facility=- --pid-file= \
        --listen-address=127.0.0.1 --bind-interfaces --port=5353 --cache-size=0 --no-hosts \
        --no-resolv --server=127.0.0.11 --filter-AAAA --local=/invalid/ --dns-forward-max=1000 \
        "${outside[@]}" &
    parts[$!]="the resolver"
}

know_nothing() {
    # Names that Docker does not know go to the servers of the container's `dns` setting. Where that
    # is this one, they do not leave the container, and no outside server is waited for.
    dnsmasq --keep-in-foreground --conf-file=/dev/null --log-facility=- --pid-file= \
        --listen-address=127.0.0.53 --bind-interfaces --port=53 --cache-size=0 --no-hosts \
        --no-resolv --local=/#/ &
    parts[$!]="the resolver of unknown names"
}

install_certificate() {
    # From secrets into the volume that nginx reads. Whoever reads between the two renames finds a pair
    # that does not fit, which the watch below does not take up.
    umask 027
    for part in key certificate; do
        cat "/run/secrets/$part.pem" >"$tls/.$part.pem"
        mv "$tls/.$part.pem" "$tls/$part.pem"
    done
    echo "mt5-nginx: the certificate is installed"
}

watch_certificate() {
    # A renewed certificate is taken up by a reload, which ends no stream.
    local seen now said
    seen=$(stat -c %i:%Z "$tls"/*.pem)
    while sleep 5; do
        now=$(stat -c %i:%Z "$tls"/*.pem)
        [[ $now == "$seen" ]] && continue
        seen=$now
        if said=$(nginx -e stderr -t -q 2>&1); then
            echo '{"event":"certificate_taken_up","service":"nginx"}'
            kill -HUP "$nginx"
        else
            echo "mt5-nginx: what is in $tls now is not taken up: $said" >&2
        fi
    done
}

await_resolvers() {
    # nginx asks for the replicas as it starts. Where nobody answers it asks again seconds later, and
    # until then each request would end in a 503.
    until mt5-nginx-health resolvers 2>/dev/null; do
        require_parts
        sleep 0.05
    done
}

require_parts() {
    local part
    for part in "${!parts[@]}"; do
        if ! kill -0 "$part" 2>/dev/null; then
            echo "mt5-nginx: ${parts[$part]} has ended, and so does all" >&2
            [[ -z ${nginx:-} ]] && exit 1
            kill -TERM "$nginx" 2>/dev/null || true
            wait "$nginx" || true
            exit 1
        fi
    done
}

serve() {
    nginx -e stderr -g 'daemon off;' 2>"$errors" &
    nginx=$!
    parts[$nginx]=nginx
}

stop() {
    # Listeners close at once. Requests have STOP_S to end; streams would not end by themselves.
    trap '' QUIT TERM INT HUP
    kill -QUIT "$nginx" 2>/dev/null || true
    sleep "$STOP_S" &
    wait -n "$nginx" $! || true
    kill -TERM "$nginx" 2>/dev/null || true
    wait "$nginx" || true
    exit 0
}

if [[ ${1:-} == install-certificate ]]; then
    install_certificate
    exit
fi
if ! [[ -r $tls/certificate.pem && -r $tls/key.pem ]]; then
    echo "mt5-nginx: there is no certificate in $tls: make certs" >&2
    exit 1
fi
# Every name would resolve to nothing, and each request would end in a 503.
read -ra addresses < <(hostname -I)
if ! mt5-nginx-subnet holds "$SERVICES_SUBNET" "${addresses[@]}"; then
    echo "mt5-nginx: SERVICES_SUBNET is $SERVICES_SUBNET, and I am not in it: ${addresses[*]}" >&2
    exit 1
fi
filter_errors
resolve
know_nothing
await_resolvers
serve
watch_certificate &
parts[$!]="the watch of the certificate"
trap stop QUIT TERM INT
trap 'kill -HUP "$nginx"' HUP

while true; do
    # A signal ends the wait as well.
    wait -n "${!parts[@]}" || true
    require_parts
done
