#!/usr/bin/env bash
# Keeps the contract as it is as that of a release, protos/released/vX.Y.Z.binpb, and heads what is unreleased in
# CHANGELOG.md with the version and today's date. From then on `make proto-breaking` compares with it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-}

refuse() {
  echo "release-protos: $*" >&2
  exit 1
}

[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] ||
  refuse "which version? make release-protos VERSION=0.1.0 (not '$version'): three numbers with dots between them"
kept=protos/released/v$version.binpb
[ ! -e "$kept" ] || refuse "$kept is there already: a released contract is never written anew"
newest=$({ find protos/released -name 'v*.binpb' 2>/dev/null || true; } | sort --version-sort | tail -n 1)
[ "$(printf '%s\n' "$newest" "$kept" | sort --version-sort | tail -n 1)" = "$kept" ] ||
  refuse "$version is not newer than $newest, the last release"
grep -q '^## \[Unreleased\]$' CHANGELOG.md || refuse "CHANGELOG.md has no section '## [Unreleased]'"

bash scripts/proto-breaking.sh ||
  echo "release-protos: the release breaks what is named above: CHANGELOG.md must say so" >&2
mkdir -p protos/released
"${VENV:-.venv}/bin/buf" build --exclude-source-info --output "$kept"
if ! grep -q "^## \[$version\]" CHANGELOG.md; then
  sed -i "s/^## \[Unreleased\]\$/&\n\n## [$version] - $(date -u +%F)/" CHANGELOG.md
fi
echo "release-protos: kept $kept, and headed its section in CHANGELOG.md; commit both"
