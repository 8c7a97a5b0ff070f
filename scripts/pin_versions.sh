#!/usr/bin/env bash
# Writes constraints.txt: one version of every package that the project's environment can hold, on
# every supported Python, within pyproject.toml and constraints.in. Pins that still fit stay;
# --upgrade moves all of them to the newest.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=build/pin-versions
[ -x "$tool/bin/uv" ] || { .venv/bin/python -m venv "$tool" && "$tool/bin/pip" install --quiet uv; }
"$tool/bin/uv" pip compile --quiet --universal --python-version 3.10 --no-python-downloads \
  --extra server --extra plot --extra bench --extra zstd --group dev --group docs \
  --no-annotate --custom-compile-command 'make constraints' "$@" \
  --output-file constraints.txt pyproject.toml constraints.in >/dev/null
