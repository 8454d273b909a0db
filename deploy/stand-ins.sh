#!/usr/bin/env bash
# Builds local images under the names that deploy/Dockerfile and docker-compose.yml use, for machines that reach no image
# registry. They are made of what the machine has: its apt sources, its Go toolchain, its certificates.
#
#     deploy/stand-ins.sh [--force] [IMAGE...]    builds those that are missing (with --force all of them)
#     deploy/stand-ins.sh --remove                removes them; images of the same names from a registry are left alone
#
# IMAGE is postgres:15, golang:1.26-bookworm or debian:bookworm-slim (which the other two are built on); default: all.
# Runs as root, for debootstrap. DOCKER names the client, if it is not docker.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
readonly here suite=bookworm base=debian:bookworm-slim label=raftproxy.stand-in
docker=${DOCKER:-docker}
work=

say() { printf 'stand-ins: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
exists() { "$docker" image inspect "$1" >/dev/null 2>&1; }

cleanup() {
	if [ -n "$work" ]; then
		rm -rf --one-file-system "$work"
	fi
}

# apt_sources prints lines for sources.list: where this machine gets the suite and its updates from.
apt_sources() {
	# The fields are apt's, not the shell's.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
		awk -v suite="$suite" '$2 ~ "^" suite "(-|$)" && $3 == "main" { print "deb", $1, $2, $3 }' | sort -u
}

# use_proxy passes on apt's proxy, if it has one, to all that download here.
use_proxy() {
	local proxy=
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
		export http_proxy=$proxy
	fi
}

# build makes an image of a directory, with its RUN lines on the machine's own network. Without buildx the old builder is
# the one that all clients and daemons have.
build() {
	local image=$1 dir=$2
	if ! "$docker" buildx version >/dev/null 2>&1; then
		export DOCKER_BUILDKIT=0
	fi
	"$docker" build --network host --build-arg http_proxy --tag "$image" "$dir" >"$work/log" 2>&1 || {
		tail -n 20 "$work/log" >&2
		die "$image could not be built"
	}
}

build_base() {
	[ "$(id -u)" = 0 ] || die "run as root: debootstrap needs it"
	command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
	local sources root=$work/root mirror
	sources=$(apt_sources)
	mirror=$(awk -v suite="$suite" '$3 == suite { print $2; exit }' <<<"$sources")
	[ -n "$mirror" ] || die "apt on this machine has no source for $suite"

	debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$work/log" 2>&1 || {
		tail -n 20 "$work/log" >&2
		die "debootstrap failed"
	}
	printf '%s\n' "$sources" >"$root/etc/apt/sources.list"
	printf 'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n' >"$root/etc/apt/apt.conf.d/90stand-in"
	printf 'path-exclude %s/*\n' /usr/share/doc /usr/share/info /usr/share/locale /usr/share/man >"$root/etc/dpkg/dpkg.cfg.d/90stand-in"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
		cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
	fi
	find "$root/usr/share/doc" "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/man" \
		"$root/var/cache/apt" "$root/var/lib/apt/lists" -type f -delete
	: >"$root/etc/hostname"
	: >"$root/etc/resolv.conf"

	tar --create --numeric-owner --one-file-system --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' --directory "$root" . |
		"$docker" import --change "LABEL $label=yes" --change 'CMD ["bash"]' - "$base" >/dev/null
	rm -rf --one-file-system "$root"
}

build_postgres() {
	local dir=$work/postgres
	mkdir "$dir"
	cp "$here/stand-ins/postgres.Dockerfile" "$dir/Dockerfile"
	cp "$here/stand-ins/postgres-entrypoint.sh" "$dir/"
	build postgres:15 "$dir"
}

build_golang() {
	local dir=$work/golang goroot
	command -v go >/dev/null || die "no go on this machine to make an image of"
	[[ $(go env GOVERSION) == go1.26* ]] || die "this machine has $(go env GOVERSION), the image is of go1.26"
	goroot=$(go env GOROOT)
	mkdir -p "$dir/go"
	cp "$here/stand-ins/golang.Dockerfile" "$dir/Dockerfile"
	tar --create --directory "$goroot" --exclude=./test --exclude=./doc --exclude=./api . | tar --extract --directory "$dir/go"
	build golang:1.26-bookworm "$dir"
}

# ensure builds one image, if it is missing or all are wanted anew.
ensure() {
	local image=$1 make=$2 started=$SECONDS
	if [ -z "$force" ] && exists "$image"; then
		return
	fi
	"$make"
	say "$image built in $((SECONDS - started)) s"
}

remove() {
	local image
	for image in postgres:15 golang:1.26-bookworm "$base"; do
		if [ "$("$docker" image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null)" = yes ]; then
			"$docker" image rm "$image" >/dev/null
			say "$image removed"
		fi
	done
}

force=
images=()
for arg; do
	case $arg in
	--force) force=yes ;;
	--remove) remove; exit ;;
	postgres:15 | golang:1.26-bookworm | "$base") images+=("$arg") ;;
	*) die "$arg is unknown: see the head of $0" ;;
	esac
done
[ ${#images[@]} -gt 0 ] || images=(postgres:15 golang:1.26-bookworm "$base")

trap cleanup EXIT
work=$(mktemp -d)
use_proxy
ensure "$base" build_base
for image in "${images[@]}"; do
	case $image in
	postgres:15) ensure "$image" build_postgres ;;
	golang:1.26-bookworm) ensure "$image" build_golang ;;
	esac
done
