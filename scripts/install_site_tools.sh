#!/usr/bin/env bash
# Installs the generator of the site into .venv, at the version of constraints.txt. Quick when it is
# there already.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "docs: the site's generator needs Python 3.11 or newer: make setup PYTHON=..." >&2
  exit 1
}
.venv/bin/python -c 'import zensical' 2>/dev/null && exit 0
echo "docs: installing the site's generator into .venv"
.venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
  --group docs
