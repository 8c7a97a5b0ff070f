#!/usr/bin/env bash
# Fails when the committed stubs are not what protos/ gives now.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/gen_stubs.sh "$fresh"
if ! diff -r --brief --exclude=__pycache__ --exclude=__init__.py --exclude=columns.py --exclude=steps.py \
  clients/python/kvblock/v1 "$fresh/kvblock/v1"; then
  echo "check_stubs: the stubs do not match protos/; run: make gen" >&2
  exit 1
fi
echo "check_stubs: the stubs match protos/"
