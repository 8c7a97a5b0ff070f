#!/usr/bin/env bash
# Puts promtool of Debian's prometheus package into .venv/bin, for the test that lints the metrics.
# Nothing is installed besides. Where that is not possible it says so: the test is skipped then.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v promtool >/dev/null || [ -x .venv/bin/promtool ]; then exit 0; fi
missing() {
  echo "test: $1, so the metrics are not linted; to have it: apt-get install prometheus" >&2
  exit 0
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing "no promtool here"

echo "test: fetching promtool, which lints the metrics"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt-get gives up its rights for a download, and writes to this directory all the same.
chmod 0777 "$work"
apt=(apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=10)
download() { (cd "$work" && "${apt[@]}" download prometheus >/dev/null 2>&1); }
if ! download; then
  # On a fresh machine the lists of packages are missing.
  [ "$(id -u)" -eq 0 ] && "${apt[@]}" update >/dev/null 2>&1 && download ||
    missing "promtool cannot be fetched"
fi
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool ||
  missing "the prometheus package has no promtool"
install -m 0755 "$work/usr/bin/promtool" .venv/bin/promtool
