#!/usr/bin/env bash
# Makes sure that what building and testing need is on this machine: Go, a C compiler, PostgreSQL's server and client
# programs. As root on a Debian it installs what is missing; everybody else is told what to install.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }
server() { have initdb && have postgres || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

have go || die 'Go is missing: install the version that go.mod names, or a newer one'

packages=()
have gcc || packages+=(gcc libc6-dev)
server || packages+=(postgresql)
have psql || packages+=(postgresql-client)
[ ${#packages[@]} -gt 0 ] || exit 0

have apt-get || die "missing here: ${packages[*]} (by Debian's names): install them"
[ "$(id -u)" = 0 ] || die "missing here: install it with: sudo apt-get install ${packages[*]}"
echo "setup: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
server || die 'PostgreSQL was installed, yet initdb is nowhere to be found'
