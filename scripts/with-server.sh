#!/usr/bin/env bash
# Runs a command against a server of its own: with-server.sh COMMAND [ARGUMENT ...], where the argument {} stands
# for the server's HOST:PORT. Its store is a temporary folder; both are gone afterwards. SERVER names the server's
# command (.venv/bin/graft-server, from the current folder).
set -euo pipefail
server=${SERVER:-${VENV:-.venv}/bin/graft-server}
start_within_s=120 # exporting an encoder for the first time takes most of a minute on a slow machine

work=$(mktemp -d)
pid=
finish() {
  local status=$?
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
  fi
  if [ "$status" -ne 0 ]; then
    echo "--- the server said:" >&2
    tail -n 50 "$work/log" >&2 || true
  fi
  rm -rf "$work"
}
trap finish EXIT

: >"$work/out" # there before it is read
"$server" serve --listen 127.0.0.1:0 --store "$work/store" >"$work/out" 2>"$work/log" &
pid=$!

address=
for ((tick = 0; tick < start_within_s * 10; tick++)); do
  address=$(sed -n 's/^listening on //p' "$work/out")
  [ -z "$address" ] || break
  kill -0 "$pid" 2>/dev/null || { echo "the server ended before it listened" >&2; exit 1; }
  sleep 0.1
done
[ -n "$address" ] || { echo "the server did not listen within $start_within_s s" >&2; exit 1; }

"${@/#\{\}/$address}"
