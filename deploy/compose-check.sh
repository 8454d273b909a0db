#!/usr/bin/env bash
# Starts docker-compose.yml for real and looks whether it keeps its promises. One line a check; the exit code is 0 only if
# all of them held. Removes what it started, also after a failure or Ctrl-C. docs/docker.md describes it.
#
#     deploy/compose-check.sh [--images auto|local] [--state DIR]
#
#     --images local   never ask an image registry: what is missing is built by deploy/stand-ins.sh
#     --state DIR      keep the images of a Docker daemon that had to be started in DIR, for the next run
#
# DOCKERD_FLAGS: flags for that daemon, instead of trying what this machine permits.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly project=raftproxy-check-$$ nodes='1 2 3'
readonly client_timeout=30 healthy_timeout=180 daemon_timeout=60
images=auto
state=
keep_state=
daemon_pid=
forwarding=
forward_policy=
bridges_before=
started=
compose=()
passed=0
failed=0

say() { printf '%s\n' "$*"; }
die() { say "compose-check: $*" >&2; exit 1; }

# check NAME EXPECTED COMMAND...: the command must succeed and print what is expected.
check() {
	local name=$1 expected=$2 output
	shift 2
	if output=$("$@" 2>&1) && [ "$output" = "$expected" ]; then
		passed=$((passed + 1))
		say "ok    $name"
	else
		failed=$((failed + 1))
		say "FAIL  $name: expected '${expected//$'\n'/ / }', got '${output//$'\n'/ / }'"
	fi
}

# eventually EXPECTED COMMAND...: prints the command's output once it is what is expected, or the last one after 20 s.
eventually() {
	local expected=$1 output='' until=$((SECONDS + 20))
	shift
	until output=$("$@" 2>&1) && [ "$output" = "$expected" ]; do
		[ "$SECONDS" -lt "$until" ] || break
		sleep 0.2
	done
	printf '%s' "$output"
}

# --- the daemon -------------------------------------------------------------------------------------------------------

install_tools() {
	local missing=()
	docker info >/dev/null 2>&1 || command -v dockerd >/dev/null || missing+=(docker.io iptables)
	docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || missing+=(docker-compose)
	if [ ${#missing[@]} -gt 0 ]; then
		say "installing ${missing[*]}"
		apt_install "${missing[@]}"
	fi
	if docker compose version >/dev/null 2>&1; then
		compose=(docker compose --ansi never -p "$project")
	else
		compose=(docker-compose --ansi never -p "$project")
		# The old compose would run the old client's builder; its own way works with all clients.
		export COMPOSE_DOCKER_CLI_BUILD=0
	fi
}

apt_install() {
	if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
		die "install $* first (by apt this script could do it, as root)"
	fi
	apt-get update -qq >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null 2>&1 ||
		die "apt-get install $* failed"
}

# ensure_daemon uses the Docker daemon that runs, or starts one that touches nothing outside of its own directory but the
# packet filter.
ensure_daemon() {
	if docker info >/dev/null 2>&1; then
		return
	fi
	command -v dockerd >/dev/null || die "no Docker daemon runs and none is installed"
	[ "$(id -u)" = 0 ] || die "no Docker daemon runs, and only root may start one"
	if [ -z "$state" ]; then
		state=$(mktemp -d "${TMPDIR:-/var/tmp}/compose-check.XXXXXX")
	else
		keep_state=yes
		mkdir -p "$state"
		state=$(cd "$state" && pwd)
	fi
	export DOCKER_HOST=unix://$state/docker.sock
	remember_network

	if [ -n "${DOCKERD_FLAGS-}" ]; then
		# shellcheck disable=SC2086
		start_daemon $DOCKERD_FLAGS || { tail -n 5 "$state/log" >&2; die "dockerd $DOCKERD_FLAGS does not start"; }
		return
	fi
	# A daemon finds a storage driver that works by itself. What it can do without are rules in the packet filter.
	start_daemon || start_daemon --iptables=false || { tail -n 5 "$state/log" >&2; die "dockerd does not start"; }
}

# start_daemon FLAGS...: in a session of its own, so that Ctrl-C ends it last, not first.
start_daemon() {
	local until=$((SECONDS + daemon_timeout))
	setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" --host "$DOCKER_HOST" "$@" \
		</dev/null >"$state/log" 2>&1 &
	daemon_pid=$!
	until docker info >/dev/null 2>&1; do
		if ! kill -0 "$daemon_pid" 2>/dev/null || [ "$SECONDS" -ge "$until" ]; then
			stop_daemon
			return 1
		fi
		sleep 0.2
	done
	say "started a Docker daemon of its own${*:+ with $*}"
	# What a run left that was killed.
	docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
	docker volume prune --force >/dev/null
	docker network prune --force >/dev/null
}

stop_daemon() {
	local until=$((SECONDS + 30))
	kill "$daemon_pid" 2>/dev/null || true
	while kill -0 "$daemon_pid" 2>/dev/null; do
		if [ "$SECONDS" -ge "$until" ]; then
			kill -KILL "$daemon_pid" 2>/dev/null || true
		fi
		sleep 0.1
	done
	wait "$daemon_pid" 2>/dev/null || true
	daemon_pid=
}

# A daemon leaves its rules, its bridge and a setting behind. forget_network takes away again what was not there before.
bridges() { ip -o link show type bridge 2>/dev/null | grep -o -w -e docker0 -e 'br-[0-9a-f]\{12\}' || true; }

remember_network() {
	bridges_before=$(bridges)
	forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
	if command -v iptables >/dev/null && ! iptables-save 2>/dev/null | grep -q DOCKER; then
		forward_policy=$(iptables -S FORWARD 2>/dev/null | awk '$1 == "-P" { print $3 }') || true
	fi
}

forget_network() {
	local bridge
	if [ -n "$forward_policy" ]; then
		iptables-save 2>/dev/null | grep -v -e DOCKER -e docker0 -e ' br-[0-9a-f]\{12\}' | iptables-restore
		iptables -P FORWARD "$forward_policy"
	fi
	for bridge in $(bridges); do
		grep -q -x -e "$bridge" <<<"$bridges_before" || ip link delete "$bridge"
	done
	if [ -n "$forwarding" ]; then
		printf '%s' "$forwarding" >/proc/sys/net/ipv4/ip_forward
	fi
}

# --- images and containers --------------------------------------------------------------------------------------------

ensure_images() {
	local image missing=()
	for image in postgres:15 golang:1.26-bookworm; do
		if docker image inspect "$image" >/dev/null 2>&1; then
			continue
		fi
		if [ "$images" = auto ] && timeout 300 docker pull --quiet "$image" >/dev/null 2>&1; then
			continue
		fi
		missing+=("$image")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "building stand-ins for ${missing[*]}"
	command -v debootstrap >/dev/null || apt_install debootstrap
	deploy/stand-ins.sh "${missing[@]}"
}

# export_settings gives docker-compose.yml its variables: ports from the kernel, and this machine's way to Go modules.
export_settings() {
	local name value
	POSTGRES_PASSWORD=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
	export POSTGRES_PASSWORD RAFTPROXY_PORT_1=0 RAFTPROXY_PORT_2=0 RAFTPROXY_PORT_3=0
	export RAFTPROXY_BUILD_NETWORK=${RAFTPROXY_BUILD_NETWORK:-host}
	command -v go >/dev/null || return 0
	for name in GOPROXY GONOPROXY GOSUMDB GONOSUMDB GOPRIVATE GOFLAGS; do
		value=$(go env "$name")
		if [ -n "$value" ]; then
			export "$name=$value"
		fi
	done
}

container() {
	docker ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"
}
health() { docker inspect --format '{{.State.Health.Status}}' "$(container "$1")"; }
exit_code() { docker inspect --format '{{.State.ExitCode}}' "$(container "$1")"; }

# wait_healthy SERVICE...: prints "healthy", or which service is not and why.
wait_healthy() {
	local service status until=$((SECONDS + healthy_timeout))
	for service; do
		until status=$(health "$service") && [ "$status" = healthy ]; do
			if [ "$SECONDS" -ge "$until" ]; then
				say "$service is $status"
				docker inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' "$(container "$service")" | tail -n 3
				"${compose[@]}" logs --tail 10 "$service"
				return 1
			fi
			sleep 0.3
		done
	done
	say healthy
}

# wait_nodes NODE...: prints "ready" once the containers are healthy and the replicas have caught up with a leader.
wait_nodes() {
	local node status until=$((SECONDS + healthy_timeout))
	for node; do
		if ! status=$(wait_healthy "raftproxy$node"); then
			say "$status"
			return 1
		fi
		until node_status "$node" | grep -q '"ready": *true'; do
			if [ "$SECONDS" -ge "$until" ]; then
				node_status "$node"
				return 1
			fi
			sleep 0.3
		done
	done
	say ready
}

node_status() { docker exec "$(container "raftproxy$1")" raftproxy status --json; }

# --- what a client sees -----------------------------------------------------------------------------------------------

# sql NODE STATEMENT: through the published port of a node, from this machine if it has a psql.
sql() {
	local node=$1 address
	local psql=(psql --no-psqlrc --no-align --tuples-only --quiet -v ON_ERROR_STOP=1 --username=postgres -c "$2")
	if command -v psql >/dev/null; then
		address=$(docker port "$(container "raftproxy$node")" 6432)
		PGPASSWORD=$POSTGRES_PASSWORD PGCONNECT_TIMEOUT=10 timeout "$client_timeout" \
			"${psql[@]}" --host="${address%:*}" --port="${address##*:}"
	else
		timeout "$client_timeout" docker exec -e "PGPASSWORD=$POSTGRES_PASSWORD" "$(container "postgres$node")" \
			"${psql[@]}" --host="raftproxy$node" --port=6432
	fi
}

refused_password() {
	local output
	if output=$(POSTGRES_PASSWORD=wrong sql 1 'SELECT 1' 2>&1); then
		say "let in: $output"
		return
	fi
	grep -o 'password authentication failed' <<<"$output" || say "$output"
}

state_hashes() {
	local node
	for node in $nodes; do
		node_status "$node" | grep -o '"state_hash": *"\?[0-9a-zA-Z]*'
	done | sort | uniq | wc -l
}

check_clients() {
	local node
	for node in $nodes; do
		check "a plain statement through node $node" 42 sql "$node" 'SELECT 6 * 7'
	done
	check "a wrong password is refused" 'password authentication failed' refused_password
	check "set through node 1" '' sql 1 "SELECT raftable('check/a', 'one')"
	check "get through node 1, at once" one sql 1 "SELECT raftable('check/a')"
	check "get through node 2" one eventually one sql 2 "SELECT raftable('check/a')"
	check "get through node 3" one eventually one sql 3 "SELECT raftable('check/a')"
	check "a second set, through node 2" '' sql 2 "SELECT raftable('check/b', 'two')"
	check "list through node 3" $'check/a|one\ncheck/b|two' eventually $'check/a|one\ncheck/b|two' sql 3 'SELECT * FROM raftable()'
}

check_stop() {
	"${compose[@]}" stop raftproxy1 >/dev/null 2>&1
	check "node 1 stops with exit code 0" 0 exit_code raftproxy1
	check "set through node 2 while node 1 is away" '' sql 2 "SELECT raftable('check/a', 'three')"
	check "get through node 3 while node 1 is away" three eventually three sql 3 "SELECT raftable('check/a')"
	"${compose[@]}" start raftproxy1 >/dev/null 2>&1
	check "node 1 is ready again" ready wait_nodes 1
	check "node 1 has caught up" three sql 1 "SELECT raftable('check/a')"
}

check_kill() {
	"${compose[@]}" kill -s KILL raftproxy1 raftproxy2 raftproxy3 >/dev/null 2>&1
	"${compose[@]}" start raftproxy1 raftproxy2 raftproxy3 >/dev/null 2>&1
	check "all three are ready after SIGKILL at once" ready wait_nodes 1 2 3
	check "the table survived" $'check/a|three\ncheck/b|two' sql 1 'SELECT * FROM raftable()'
}

check_replace() {
	local node
	for node in $nodes; do
		"${compose[@]}" up -d --no-deps --force-recreate "raftproxy$node" >/dev/null 2>&1
		check "node $node is ready in a new container" ready wait_nodes "$node"
	done
	check "the table survived that too" $'check/a|three\ncheck/b|two' sql 3 'SELECT * FROM raftable()'
	check "delete through node 3" '' sql 3 "SELECT raftable('check/b', NULL)"
	check "node 1 no longer lists it" 'check/a|three' eventually 'check/a|three' sql 1 'SELECT * FROM raftable()'
	check "all nodes have the same state hash" 1 eventually 1 state_hashes
}

# --- the run ----------------------------------------------------------------------------------------------------------

cleanup() {
	local code=$?
	trap - EXIT
	trap '' INT TERM
	set +e
	if [ -n "$started" ]; then
		"${compose[@]}" down --volumes --remove-orphans --timeout 10 >/dev/null 2>&1 || code=1
	fi
	if [ -n "$daemon_pid" ]; then
		stop_daemon
	fi
	forget_network
	if [ -n "$state" ]; then
		# Where containers had the machine's own network, its namespace stays mounted.
		awk -v dir="$state/exec/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | xargs --no-run-if-empty umount
		rm -rf --one-file-system "$state/exec"
		if [ -z "$keep_state" ]; then
			rm -rf --one-file-system "$state"
		fi
	fi
	exit "$code"
}

while [ $# -gt 0 ]; do
	case $1 in
	--images) images=${2-}; shift 2 ;;
	--state) state=${2-}; shift 2 ;;
	*) die "$1 is unknown: see the head of $0" ;;
	esac
done
[[ $images == auto || $images == local ]] || die "--images is auto or local"

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
install_tools
ensure_daemon
ensure_images
export_settings

say "building the image and starting three pairs"
started=yes
log=$("${compose[@]}" up -d --build 2>&1) || { tail -n 20 <<<"$log" >&2; die "docker-compose up failed"; }
check "the three servers are healthy" healthy wait_healthy postgres1 postgres2 postgres3
check "the three nodes are ready" ready wait_nodes 1 2 3
check_clients
check_stop
check_kill
check_replace

say "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
