#!/usr/bin/env bash
# Generates Go from proto/, from the SQL and from docs/openapi.yaml, with the tools that tools/go.mod
# pins. With --check it fails when that changes any file.
set -euo pipefail
cd "$(dirname "$0")/.."

tool() { go tool -modfile=tools/go.mod "$@"; }
sums() { git ls-files -z -co --exclude-standard | xargs -0 sha256sum 2>/dev/null || true; }

before=$(sums)
protoc --proto_path=proto \
  --plugin="$(tool -n protoc-gen-go)" --go_out=. --go_opt=module=github.com/medirecord/medirecord \
  --plugin="$(tool -n protoc-gen-go-grpc)" --go-grpc_out=. --go-grpc_opt=module=github.com/medirecord/medirecord \
  proto/*/v1/*.proto
tool sqlc generate
go test -count=1 -run '^TestGenerated$' ./client -update

if [ "${1:-}" = --check ] && ! diff <(echo "$before") <(sums) >&2; then
  echo "These files are not what their sources make. Run make gen, and commit them." >&2
  exit 1
fi
