#!/usr/bin/env bash
# Builds the Node client and runs it against a live server, and so the first program of docs/languages.md.
set -euo pipefail
cd "$(dirname "$0")/.."
client=examples/clients/node

if ! node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' 2>/dev/null; then
  echo "test-node: needs Node 20 or newer (node and npm on the PATH)" >&2
  exit 1
fi
(cd "$client" && npm ci --no-fund --no-audit --ignore-scripts && npm run build)
bash scripts/with-server.sh node "$client/dist/main.js" {} examples/intents/train.csv examples/intents/test.csv

first="$client/dist/first.cjs"
sed -n '/^```js$/,/^```$/p' docs/languages.md | sed '1d;$d' >"$first"
printed=$(bash scripts/with-server.sh bash -c 'GRAFT_SERVER=$1 node "$2"' _ {} "$first")
echo "$printed"
for expected in "version 1: " "the lock stays shut: unlock_problem, " "why was I charged twice?: "; do
  case "$printed" in
    *"$expected"*) ;;
    *) echo "test-node: the first program does not print '$expected'" >&2; exit 1 ;;
  esac
done
