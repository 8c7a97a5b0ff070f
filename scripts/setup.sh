#!/usr/bin/env bash
# Makes .venv with kvblock (editable), its extras and the development tools, at the versions of
# constraints.txt. PYTHON names the interpreter. Safe to run again: it only adds what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}

die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# Debian splits ensurepip, which venv needs, from python3 into a package of its own.
install_ensurepip() {
  local package as_root=()
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  command -v apt-get >/dev/null ||
    die "$python lacks the ensurepip module; install the package that holds it, then try again"
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null ||
      die "$python lacks the ensurepip module; run: sudo apt-get install $package"
    as_root=(sudo -n)
  fi
  echo "setup: installing $package, which $python needs to make a virtual environment"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
    die "cannot install $package; install it by hand, then try again"
}

command -v "$python" >/dev/null ||
  die "no $python here; install Python 3.10 or newer, or name one: make setup PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  die "kvblock needs Python 3.10 or newer, but $python is $("$python" -V 2>&1);" \
    "name another: make setup PYTHON=..."

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  "$python" -c 'import ensurepip' 2>/dev/null || install_ensurepip
  echo "setup: making .venv with $("$python" -V)"
  "$python" -m venv --clear .venv
fi

echo "setup: installing kvblock and its tools into .venv (about a minute the first time)"
pip=(.venv/bin/python -m pip --disable-pip-version-check)
# Debian's pip knows neither dependency groups nor build constraints.
"${pip[@]}" install --quiet --constraint constraints.txt pip
"${pip[@]}" install --quiet --constraint constraints.txt --build-constraint constraints.txt \
  --editable '.[server,plot,bench,zstd]' --group dev
echo "setup: done, .venv/bin/kvblock is ready"
