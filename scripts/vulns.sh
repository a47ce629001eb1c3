#!/usr/bin/env bash
# Looks our dependencies up in the Go vulnerability database, where it can be reached.
set -euo pipefail
if ! curl -fsS --max-time 10 -o /dev/null https://vuln.go.dev/index/db.json; then
  echo "skipped: https://vuln.go.dev cannot be reached from here" >&2
  exit 0
fi
exec go tool -modfile=tools/go.mod govulncheck ./...
