#!/usr/bin/env bash
# Runs every fuzz target for as long as the argument says. A crash leaves its
# input in testdata/fuzz, from then on a test like any other.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rE --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file line; do
  target=${line#func }
  echo "== $target in $(dirname "$file")"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-30s}" "$(dirname "$file")" </dev/null
done
