#!/usr/bin/env bash
# Compares the contract with that of the last release, the newest protos/released/vX.Y.Z.binpb: what its clients
# rely on must still be there. Until 1.0 a minor release may break it; the comparison is with the last release all
# the same, so that a break is seen and written into the changelog, never with main.
set -euo pipefail
cd "$(dirname "$0")/.."

# Kept in the tree, since a clone need not have the tags.
released=$({ find protos/released -name 'v*.binpb' 2>/dev/null || true; } | sort --version-sort | tail -n 1)
if [ -z "$released" ]; then
  echo "no released contract in protos/released yet: nothing to compare with"
  exit 0
fi
echo "comparing the contract with $released"
"${VENV:-.venv}/bin/buf" breaking --against "$released"
