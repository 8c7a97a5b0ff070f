#!/usr/bin/env bash
# Generates the Python stubs of protos/kvblock/v1 into the given source root, in place of those
# that are there. Protos without a service get no *_pb2_grpc files.
set -euo pipefail
out=$(realpath "${1:?usage: gen_stubs.sh DIRECTORY}")
cd "$(dirname "$0")/.."
# protoc finds its mypy plugins through PATH.
PATH=$PWD/.venv/bin:$PATH

all=(protos/kvblock/v1/*.proto)
mapfile -t services < <(grep -lE '^service ' "${all[@]}")
rm -f "$out"/kvblock/v1/*_pb2.py{,i} "$out"/kvblock/v1/*_pb2_grpc.py{,i}
python -m grpc_tools.protoc -Iprotos \
  --python_out="$out" --mypy_out="quiet:$out" "${all[@]}"
python -m grpc_tools.protoc -Iprotos \
  --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" "${services[@]}"
