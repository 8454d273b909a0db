#!/bin/sh
# First process of the stand-in for postgres:15. It honours what docker-compose.yml and docs/docker.md ask of the official
# image: POSTGRES_PASSWORD, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA, and
# scripts in /docker-entrypoint-initdb.d. Not one line more.
set -eu

case "${1-}" in
'' | -*) set -- postgres "$@" ;;
esac
if [ "$1" != postgres ]; then
	exec "$@"
fi

if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown -R postgres:postgres "$PGDATA"
	chmod 0700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

# create_cluster fills an empty data directory. The server that runs the scripts listens on its unix socket only, so that
# nobody mistakes it for the finished one.
create_cluster() {
	: "${POSTGRES_USER:=postgres}"
	: "${POSTGRES_DB:=$POSTGRES_USER}"
	method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
	if [ -z "${POSTGRES_PASSWORD-}" ] && [ "$method" != trust ]; then
		echo 'postgres: set POSTGRES_PASSWORD' >&2
		exit 1
	fi

	umask 077
	pwfile=$(mktemp)
	printf '%s\n' "${POSTGRES_PASSWORD-}" >"$pwfile"
	# Unquoted on purpose: several arguments in one variable.
	# shellcheck disable=SC2086
	initdb --username="$POSTGRES_USER" ${POSTGRES_PASSWORD:+--pwfile="$pwfile"} --encoding=UTF8 --locale=C.UTF-8 \
		--auth-local=trust ${POSTGRES_INITDB_ARGS-}
	rm -f "$pwfile"
	printf 'host all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
	printf "listen_addresses = '*'\n" >>"$PGDATA/postgresql.conf"

	pg_ctl --wait --options="-c listen_addresses=''" start
	if [ "$POSTGRES_DB" != postgres ]; then
		createdb --username="$POSTGRES_USER" --maintenance-db=postgres -- "$POSTGRES_DB"
	fi
	for script in /docker-entrypoint-initdb.d/*; do
		case "$script" in
		*.sql) psql --no-psqlrc -v ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script" ;;
		*.sh) sh -eu "$script" ;;
		esac
	done
	pg_ctl --wait --mode=fast stop
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	create_cluster
fi
exec "$@"
