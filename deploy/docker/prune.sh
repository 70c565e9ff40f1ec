#!/usr/bin/env bash
# Takes out of an installed folder what a running server never reads, every compiler first: prune.sh FOLDER VARIANT.
# Then makes sure that what is left can be imported.
set -euo pipefail
prefix=$1
variant=$2
site=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
before=$(du -sm "$prefix" | cut -f1)

# triton comes with torch for CUDA, serves torch.compile only, and carries ptxas, an assembler.
rm -rf "$site"/triton "$site"/triton-*.dist-info
# Headers, static libraries and tools for building extensions.
rm -rf "$site"/torch/include "$site"/torch/share "$site"/torch/test
find "$site"/torch/bin -mindepth 1 ! -name torch_shm_manager -exec rm -rf {} +
rm -rf "$site"/nvidia/*/include "$site"/nvidia/*/*/include "$site"/nvidia/*/bin
find "$site" -name '*.a' -type f -delete
# The tests of the large packages.
for package in numpy scipy sympy networkx; do
  [ ! -d "$site/$package" ] || find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
# TensorRT itself is not in the image; CUDA is not in the CPU's.
rm -f "$site"/onnxruntime/capi/libonnxruntime_providers_tensorrt.so
[ "$variant" != cpu ] || rm -f "$site"/onnxruntime/capi/libonnxruntime_providers_cuda.so

after=$(du -sm "$prefix" | cut -f1)
echo "prune: $before MB -> $after MB"

compilers=$(find "$prefix" \( -name 'gcc*' -o -name 'g++*' -o -name 'cc' -o -name 'c++' -o -name 'clang*' \
  -o -name 'nvcc*' -o -name 'ptxas*' -o -name 'cicc' -o -name 'ld' -o -name 'as' \) -type f -perm /111)
if [ -n "$compilers" ]; then
  printf 'prune: a compiler is left:\n%s\n' "$compilers" >&2
  exit 1
fi
"$prefix/bin/python" -c 'import numpy, onnx, onnxruntime, scipy.optimize, scipy.sparse, tokenizers, torch, transformers
import graft_server.cli, onnxscript'
