#!/usr/bin/env bash
# Tests the client in one language: fresh stubs, lint, unit tests, the conformance vectors, its page.
# For Python these are the vectors, through both of its clients; the rest is in the other tests.
# With `left-out` and languages it only says that they were not tested, and what is missing for each.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
  local script="scripts/languages/$1.sh"
  if [ "$1" = python ]; then
    return
  elif [ ! -x "$script" ]; then
    echo "there is no $script"
  else
    "$script" missing
  fi
}

if [ "$1" = left-out ]; then
  shift
  echo
  echo "Not run here are the tests of the clients:"
  for language in "$@"; do
    why=$(missing "$language")
    echo "  make test-$language${why:+   (it cannot run here: $why)}"
  done
  exit
fi

language=$1
why=$(missing "$language")
if [ -n "$why" ]; then
  echo "missing: $why" >&2
  exit 1
fi
clients=$language
if [ "$language" = python ]; then
  clients=python,asyncio
else
  for verb in setup fresh lint test; do
    echo "$language: $verb"
    "scripts/languages/$language.sh" "$verb"
  done
fi
echo "$language: vectors and page"
TEST_LANGUAGES=$clients .venv/bin/python -m pytest -n "${WORKERS:-4}" --dist worksteal \
  -o faulthandler_timeout=1500 \
  tests/conformance/test_clients.py tests/languages
