#!/usr/bin/env bash
# Puts PostgreSQL's own regression tests into bin/regress, from Debian's source package of the server that is installed: a
# test runs their queries through the proxy. Where they cannot be had it is left out, so that is no failure here.
set -euo pipefail
cd "$(dirname "$0")/../.."

note() { printf 'regress: %s\n' "$*" >&2; }
leave() { note "$*: PostgreSQL's regression tests are left out"; exit 0; }

readonly into=bin/regress
[ ! -e "$into/parallel_schedule" ] || exit 0
command -v apt-get >/dev/null || leave 'no Debian'
version=
for initdb in /usr/lib/postgresql/*/bin/initdb; do
	[ ! -x "$initdb" ] || version=$(basename "${initdb%/bin/initdb}")
done
[ -n "$version" ] || leave 'no server of a Debian package'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
note "fetching the source of postgresql-$version"
# Sources come from where packages come from: the newest of all, or else what one of the places has.
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u | sed 's/^/deb-src /' >"$work/all"
fetch() {
	local options=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
		-o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
	rm -rf "$work/lists" "$work"/postgresql-*
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
	apt-get "${options[@]}" update && (cd "$work" && apt-get "${options[@]}" source --download-only "postgresql-$version")
} >/dev/null 2>&1
found=
cp "$work/all" "$work/sources.list"
if fetch; then
	found=yes
else
	while [ -z "$found" ] && read -r line; do
		echo "$line" >"$work/sources.list"
		! fetch || found=yes
	done <"$work/all"
fi
[ -n "$found" ] || leave 'no source'

mkdir -p "$work/regress" bin
tar -xf "$work"/postgresql-"$version"_*.orig.tar.* -C "$work/regress" --strip-components=4 --wildcards \
	'*/src/test/regress/sql/*.sql' '*/src/test/regress/data/*' '*/src/test/regress/parallel_schedule'
chmod -R a+rX "$work/regress"
rm -rf "$into"
mv "$work/regress" "$into"
