#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each (default 60s), one after the other.
set -euo pipefail

readonly time=${1:-60s}
cd "$(dirname "$0")/../.."

grep -rho --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . >/dev/null || { echo 'fuzz: no targets'; exit 1; }
grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
		echo "== $(dirname "$file") $target for $time"
		# Without the bound the search for a shorter input may take all of the time.
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$(dirname "$file")" </dev/null
	done
done
