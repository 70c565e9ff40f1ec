#!/usr/bin/env bash
# Generates the Python stubs in client/graft/v1 from protos/. CI runs it and requires a clean git status.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
out=client/graft/v1
rm -f $out/*_pb2.py $out/*_pb2.pyi $out/*_pb2_grpc.py $out/*_pb2_grpc.pyi
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc \
  --proto_path=protos \
  --python_out=client --mypy_out=quiet:client \
  --grpc_python_out=client --mypy_grpc_out=quiet:client \
  protos/graft/v1/*.proto
