#!/usr/bin/env bash
# Installs Debian's redis-server for the benchmarks, without starting a service. Where that is not
# possible it says so: the benchmarks run without the comparison.
set -euo pipefail

command -v redis-server >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "bench: no redis-server here, so no comparison with it; to have it: apt-get install redis-server"
  exit 0
fi
echo "bench: installing redis-server to compare with"
# A policy-rc.d that answers 101 keeps the package from starting its service.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends redis-server >/dev/null; }; then
  echo "bench: redis-server cannot be installed, so no comparison with it" >&2
fi
