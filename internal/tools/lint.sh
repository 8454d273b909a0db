#!/usr/bin/env bash
# Runs golangci-lint in the one version that the rules are written for. Where that is not on this machine, it is built
# from its module into bin/, which takes some minutes.
set -euo pipefail

readonly version=2.15.0
cd "$(dirname "$0")/../.."

right_version() { [ -x "$1" ] && "$1" version 2>/dev/null | grep -q "version v\?$version "; }

lint=
for candidate in bin/golangci-lint "$(command -v golangci-lint || true)" "$(go env GOPATH)/bin/golangci-lint"; do
	if [ -n "$candidate" ] && right_version "$candidate"; then
		lint=$candidate
		break
	fi
done
if [ -z "$lint" ]; then
	echo "lint: building golangci-lint $version"
	GOBIN=$PWD/bin GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$version"
	lint=bin/golangci-lint
fi
exec "$lint" run "$@" ./...
