#!/usr/bin/env bash
# Compares protos/ with the last commit on main, and, when that is the one checked out, with the
# commit before it too, so that the check says something on main itself. A commit that is not
# there (shallow clone, first commit) or has no protos yet is no base to break.
set -euo pipefail
cd "$(dirname "$0")/.."

is_commit() { git rev-parse --quiet --verify "$1^{commit}" >/dev/null; }

is_commit HEAD || { echo "check_breaking: no git history here" >&2; exit 1; }
main=HEAD
for name in refs/remotes/origin/main refs/heads/main; do
  if is_commit "$name"; then main=$name; break; fi
done
bases=("$main")
if [ "$(git rev-parse "$main^{commit}")" = "$(git rev-parse HEAD)" ]; then bases+=("HEAD~1"); fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for base in "${bases[@]}"; do
  if ! is_commit "$base" || [ -z "$(git ls-tree "$base" protos/)" ]; then
    echo "check_breaking: no protos to compare with in $base"
    continue
  fi
  old=$work/$(git rev-parse "$base^{commit}")
  mkdir -p "$old"
  git archive "$base" protos | tar -x -C "$old"
  .venv/bin/buf breaking protos --against "$old/protos"
  echo "check_breaking: nothing in protos/ breaks a client of $base"
done
