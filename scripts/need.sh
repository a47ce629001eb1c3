#!/usr/bin/env bash
# Installs the Debian packages of programs that are missing, or says what to
# install where it may not:  scripts/need.sh postgres=postgresql wrk=wrk
# A name that ends in .so is a module of rsyslog.
set -euo pipefail

there() {
  command -v "$1" >/dev/null || [ -x "${MEDIRECORD_PG_BIN:-/nowhere}/$1" ] ||
    compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null ||
    { [[ $1 == *.so ]] && compgen -G "/usr/lib/*/rsyslog/$1" >/dev/null; }
}

missing=()
for pair in "$@"; do
  there "${pair%%=*}" || missing+=("${pair#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  echo "Please install: ${missing[*]}   (Debian, Ubuntu: sudo apt-get install -y ${missing[*]})" >&2
  exit 1
fi
echo "Installing ${missing[*]} with apt-get" >&2
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
