#!/usr/bin/env bash
# Compares the contract with that of the last release (the newest tag vX.Y.Z that is an ancestor): what its
# clients rely on must still be there. Until 1.0 a minor release may break it; the comparison is with the last
# release tag all the same, so that a break is seen and written into the changelog, never with main.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*.[0-9]*.[0-9]*' 2>/dev/null || true)
if [ -z "$tag" ]; then
  echo "no release tag yet: nothing to compare the contract with"
  exit 0
fi
echo "comparing the contract with $tag"

# As archives: buf needs no clone, and works in a worktree and a shallow checkout.
release=$(mktemp -d)
trap 'rm -rf "$release"' EXIT
git archive "$tag" buf.yaml protos | tar -x -C "$release"
"${VENV:-.venv}/bin/buf" breaking --against "$release"
