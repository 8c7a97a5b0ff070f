#!/usr/bin/env bash
# Puts promtool and prometheus of Debian's prometheus package into .venv/bin, for the tests that lint
# the metrics, test the alerts and run the dashboard's queries. Nothing is installed besides. Where
# that is not possible it says so: those tests are skipped then.
set -euo pipefail
cd "$(dirname "$0")/.."

here() { command -v "$1" >/dev/null || [ -x ".venv/bin/$1" ]; }
if here promtool && here prometheus; then exit 0; fi
missing() {
  echo "test: $1, so tests of metrics, alerts and dashboard are skipped;" \
    "to have them: apt-get install prometheus" >&2
  exit 0
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing "no promtool here"

echo "test: fetching promtool and prometheus, for metrics, alerts and dashboard"
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
for program in promtool prometheus; do
  dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" "./usr/bin/$program" ||
    missing "the prometheus package has no $program"
  install -m 0755 "$work/usr/bin/$program" ".venv/bin/$program"
done
