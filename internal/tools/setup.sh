#!/usr/bin/env bash
# Makes sure that what building and testing need is on this machine: Go, a C compiler, PostgreSQL's server and client
# programs. As root on a Debian it installs what is missing; everybody else is told what to install.
# With the argument "drivers" it installs the drivers of other languages as well, which internal/compat runs through the
# proxy, and gets PostgreSQL's own regression tests. What could not be had is left out of the tests, so that is no failure here.
set -euo pipefail
cd "$(dirname "$0")/../.."

have() { command -v "$1" >/dev/null 2>&1; }
server() { have initdb && have postgres || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
note() { printf 'setup: %s\n' "$*" >&2; }
# A C compiler without the C library's headers, as Debian may have it, is none.
compiler() { have gcc && echo '#include <stdlib.h>' | gcc -x c -fsyntax-only - 2>/dev/null; }
# A fresh machine may still be installing something else.
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >/dev/null; }
install() {
	echo "setup: installing $*"
	[ -n "${updated:-}" ] || apt update
	updated=yes
	apt install -y --no-install-recommends --no-upgrade "$@"
}

essentials() {
	local packages=()
	compiler || packages+=(gcc libc6-dev)
	server || packages+=(postgresql)
	have psql || packages+=(postgresql-client)
	[ ${#packages[@]} -gt 0 ] || return 0
	have apt-get || die "missing here: ${packages[*]} (by Debian's names): install them"
	[ "$(id -u)" = 0 ] || die "missing here: install it with: sudo apt-get install ${packages[*]}"
	install "${packages[@]}"
	server || die 'PostgreSQL was installed, yet initdb is nowhere to be found'
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

node_postgres() {
	have node && (cd internal/compat/testdata &&
		NODE_PATH=/usr/share/nodejs:node/node_modules node -e 'require("pg"), require("pg-cursor")' 2>/dev/null)
}

# one_by_one installs what can be installed of what could not be together.
one_by_one() {
	local name
	for name in "$@"; do
		install "$name" || note "could not install $name"
	done
}

drivers() {
	local packages=() name
	have dpkg-query || { note 'no Debian: drivers that are not here are left out of the tests'; return; }
	have javac || packages+=(default-jdk-headless)
	have bzip2 || packages+=(bzip2)
	for name in libdbd-pg-perl libpostgresql-jdbc-java libpq-dev odbc-postgresql php-cli php-pgsql python3-psycopg \
		python3-psycopg2 python3-pyodbc ruby-pg tcl8.6 tcl8.6-tdbc-postgres unixodbc; do
		installed "$name" || packages+=("$name")
	done
	if [ "$(id -u)" != 0 ]; then
		node_postgres || packages+=(nodejs node-pg)
		[ ${#packages[@]} -eq 0 ] ||
			note "left out of the tests are drivers that could be installed with: sudo apt-get install ${packages[*]}"
		return
	fi
	mkdir -p /usr/share/man/man1 # which Java's packages miss in small images
	[ ${#packages[@]} -eq 0 ] || install "${packages[@]}" || one_by_one "${packages[@]}"
	# Debian's node-pg needs Debian's node. Where another one is, npm has the modules.
	node_postgres || install nodejs node-pg 2>/dev/null && node_postgres ||
		{ have npm && npm ci --silent --no-audit --no-fund --prefix internal/compat/testdata/node; } ||
		note 'could not install node-postgres'
}

have go || die 'Go is missing: install the version that go.mod names, or a newer one'
essentials
if [ "${1:-}" = drivers ]; then
	drivers
	internal/tools/regress.sh
fi
