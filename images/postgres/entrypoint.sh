#!/bin/bash
# Starts PostgreSQL, and makes its cluster first where PGDATA has none. What can be said from outside is what the official
# image lets one say: POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_INITDB_WALDIR,
# POSTGRES_HOST_AUTH_METHOD, each but the last two also as NAME_FILE; scripts in /docker-entrypoint-initdb.d; PGDATA.
set -Eeuo pipefail
shopt -s nullglob

SCRIPTS=/docker-entrypoint-initdb.d
# A cluster is made in this folder of PGDATA and moved up when it is whole: one that was cut off is begun anew, and never
# taken for a cluster.
MAKING=.initializing

refuse() {
    printf '%s\n%s\n' "$1" "$2" >&2
    exit 1
}

# NAME, or what the file NAME_FILE holds, or else a default.
take() {
    local name=$1 file_name=${1}_FILE value
    if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
        refuse "Both $name and $file_name are set." "Leave one of them out."
    elif [[ -n ${!file_name:-} ]]; then
        [[ -r ${!file_name} ]] || refuse "$file_name names ${!file_name}, which cannot be read." \
            "Mount it, readable for uid $(id -u)."
        value=$(< "${!file_name}")
    else
        value=${!name:-${2:-}}
    fi
    export "$name=$value"
    unset "$file_name"
}

step_down() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 0700 "$PGDATA"
    find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres:postgres {} +
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR"
        chmod 0700 "$POSTGRES_INITDB_WALDIR"
        find "$POSTGRES_INITDB_WALDIR" \! -user postgres -exec chown postgres:postgres {} +
    fi
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$0" "$@"
}

check_data() {
    [[ $(id -u) == 999 ]] || refuse "PostgreSQL is to run as uid $(id -u), which this image does not know." \
        "Start the container as root or as 999:999."
    mkdir -p "$PGDATA" 2> /dev/null || true
    [[ -w $PGDATA ]] || refuse "$PGDATA cannot be written to by uid 999." "Give the volume to 999:999."
    if [[ -s $PGDATA/PG_VERSION ]]; then
        local major
        major=$(< "$PGDATA/PG_VERSION")
        [[ $major == "$PG_MAJOR" ]] || refuse "$PGDATA holds data of PostgreSQL $major, and this is PostgreSQL $PG_MAJOR." \
            "Start the image of $major, or move the data by dump and restore."
    fi
}

take_environment() {
    take POSTGRES_PASSWORD
    take POSTGRES_USER postgres
    take POSTGRES_DB "$POSTGRES_USER"
    take POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
}

make_cluster() {
    local data=$PGDATA
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        refuse "There is no password for the superuser $POSTGRES_USER." "Set POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD."
    fi
    if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
        echo "POSTGRES_HOST_AUTH_METHOD is trust: whoever reaches this server is its superuser." >&2
    fi
    if [[ -d $data/$MAKING ]]; then
        echo "The first start was cut off; it begins anew." >&2
        find "$data" -mindepth 1 -delete
    fi
    local -a there
    mapfile -t there < <(find "$data" -mindepth 1 -maxdepth 1 \! -name lost+found)
    [[ ${#there[@]} == 0 ]] || refuse "$data holds files that are no cluster." "Give PGDATA an empty folder."
    export PGDATA=$data/$MAKING
    install -d -m 0700 "$PGDATA"
    local -a options=()
    [[ -z ${POSTGRES_INITDB_WALDIR:-} ]] || options+=(--waldir="$POSTGRES_INITDB_WALDIR")
    # The password comes from a pipe: no command line and no file has it. The arguments are words, as a shell splits them.
    eval "options+=($POSTGRES_INITDB_ARGS)"
    initdb --no-instructions --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${options[@]}"
    printf '\nhost all all all %s\n' "$POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
    fill_cluster "$@"
    # PG_VERSION last: with it, it is a cluster.
    find "$PGDATA" -mindepth 1 -maxdepth 1 \! -name PG_VERSION -exec mv -t "$data" {} +
    mv "$PGDATA/PG_VERSION" "$data/"
    rmdir "$PGDATA"
    export PGDATA=$data
    sync -f "$data"
}

# Nobody gets in from outside meanwhile, and the health check does not either.
fill_cluster() {
    local socket=/tmp/.first-start
    install -d -m 0700 "$socket"
    export PGHOST=$socket PGPASSWORD=$POSTGRES_PASSWORD PGUSER=$POSTGRES_USER
    pg_ctl --silent --wait start --options="-c listen_addresses='' -c unix_socket_directories=$socket -c log_min_messages=fatal -c jit=off"
    if [[ $POSTGRES_DB != postgres ]]; then
        # Names come as variables, which psql quotes.
        psql_ --dbname=postgres --set=name="$POSTGRES_DB" <<< 'CREATE DATABASE :"name";'
    fi
    local script
    for script in "$SCRIPTS"/*; do
        echo "Running $script." >&2
        case $script in
            *.sh)
                # One that may not be executed is read in, so that it sees and sets what this script does.
                if [[ -x $script ]]; then "$script"; else . "$script"; fi ;;
            *.sql) psql_ --file="$script" ;;
            *.sql.gz) gzip -dc "$script" | psql_ ;;
            *.sql.xz) xz -dc "$script" | psql_ ;;
            *.sql.zst) zstd -dc "$script" | psql_ ;;
            *) echo "$script is neither a script of a shell nor of SQL, and is left out." >&2 ;;
        esac
    done
    pg_ctl --silent --wait --mode=fast stop
    rm -rf "$socket"
    unset PGHOST PGPASSWORD PGUSER
}

psql_() {
    local -a database=(--dbname="$POSTGRES_DB")
    [[ " $* " != *" --dbname="* ]] || database=()
    psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 "${database[@]}" "$@"
}

if [[ ${1:-} == -* ]]; then set -- postgres "$@"; fi
if [[ ${1:-} == postgres && " $* " != *" --version "* && " $* " != *" --help "* ]]; then
    if [[ $(id -u) == 0 ]]; then step_down "$@"; fi
    check_data
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        take_environment
        make_cluster
    fi
    # The server needs none of it, and its environment can be read by whoever may run a program as it.
    unset POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
fi
exec "$@"
