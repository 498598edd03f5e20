#!/bin/bash
# Makes the cluster where there is none, gives the roles the passwords of the secrets, and becomes
# PostgreSQL. What it is given is given to that, too: -c shared_buffers=128MB
set -euo pipefail

own=/usr/local/lib/mt5-postgres
run=/var/run/postgresql
volume=/var/lib/postgresql
secrets=(postgres_password mt5_owner_password mt5_backup_password mt5_exporter_password)

die() {
    echo "postgres: $*" >&2
    exit 1
}

[ "$(id -u)" -ne 0 ] || die "PostgreSQL does not run as root"
for secret in "${secrets[@]}"; do
    file=/run/secrets/$secret
    [ -r "$file" ] || die "the secret $secret is missing"
    # A second line would be part of the password for one program and not for another.
    [[ "$(<"$file")" =~ ^[[:print:]]{12,}$ ]] ||
        die "the secret $secret is not one line of 12 or more printable characters"
done

# Two servers on one volume destroy it, and PostgreSQL's own lock does not reach over containers.
# The lock lasts as long as anything that this shell becomes or starts.
exec 9>"$volume/lock"
flock --wait "${LOCK_WAIT_S:-30}" 9 || die "another server, or a restore, uses this volume"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ ! -e "$PGDATA" ] || die "$PGDATA is there and is no cluster: look at it, and move it away"
    unfinished=$PGDATA.unfinished
    rm -rf "$unfinished"
    mkdir -p "$(dirname "$PGDATA")"
    # No locale: text is sorted by its bytes, so that no other C library can break an index.
    initdb --pgdata="$unfinished" --username=postgres --pwfile=/run/secrets/postgres_password \
        --auth=scram-sha-256 --encoding=UTF8 --no-locale --data-checksums >/dev/null
    mv "$unfinished" "$PGDATA"
    sync "$(dirname "$PGDATA")"
    echo "postgres: made a new cluster" >&2
fi
server=$(postgres --version | grep -oE '[0-9]+' | head -n 1)
cluster=$(<"$PGDATA/PG_VERSION")
[ "$cluster" = "$server" ] || die "the data is of PostgreSQL $cluster, and this is $server"

sed -e "s|@services@|$SERVICES_NETWORK|" -e "s|@monitoring@|$MONITORING_NETWORK|" \
    "$own/pg_hba.conf" >"$run/pg_hba.conf"
settings=(-c "config_file=$own/postgresql.conf" -c "hba_file=$run/pg_hba.conf")

# Nobody else has this volume, so whatever process it names is gone.
rm -f "$PGDATA/postmaster.pid"
private=$run/private
mkdir -p -m 0700 "$private"
trap 'pg_ctl --pgdata="$PGDATA" --mode=fast --silent stop; exit 1' INT TERM ERR
pg_ctl --pgdata="$PGDATA" --silent --wait --timeout=86400 start \
    --options="${settings[*]} -c listen_addresses= -c unix_socket_directories=$private"
psql --host="$private" --username=postgres --dbname=postgres --no-psqlrc --quiet \
    --set=ON_ERROR_STOP=1 --output=/dev/null --file="$own/roles.sql"
pg_ctl --pgdata="$PGDATA" --mode=fast --silent --wait stop
trap - INT TERM ERR

exec postgres -D "$PGDATA" "${settings[@]}" "$@"
