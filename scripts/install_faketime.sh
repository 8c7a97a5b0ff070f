#!/usr/bin/env bash
# Installs Debian's libfaketime for the torture, which moves the server's wall clock with it. Where
# that is not possible it says so: the torture runs without jumps of the wall clock.
set -euo pipefail

compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "torture: no libfaketime here, so the wall clock will not jump; to have it: apt-get install faketime"
  exit 0
fi
echo "torture: installing faketime, with which the server's wall clock jumps"
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends faketime >/dev/null; }; then
  echo "torture: faketime cannot be installed, so the wall clock will not jump" >&2
fi
