#!/usr/bin/env bash
# What can be done with the Rust client: missing, setup, gen, fresh, lint, test, driver or engine.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
crate="$root/clients/rust"
rust_min=88
export KVBLOCK="${KVBLOCK:-$root/.venv/bin/kvblock}"
export PYTHON="${PYTHON:-$root/.venv/bin/python}"

missing() {
  local version
  if ! command -v cargo > /dev/null; then
    echo "rust: cargo is not installed"
  else
    version="$(cargo --version | cut -d ' ' -f 2 | cut -d . -f 2)"
    if [ "$version" -lt "$rust_min" ]; then
      echo "rust: cargo is older than 1.$rust_min"
    fi
  fi
  if ! command -v cc > /dev/null; then
    echo "rust: no C compiler and linker (cc)"
  fi
}

gen() {
  cargo run --quiet --locked --package kvblock-stubs -- "$root/protos" "${1:-$crate/src/generated}"
}

fresh() {
  local folder
  folder="$(mktemp -d)"
  trap "rm -rf '$folder'" EXIT
  gen "$folder"
  diff -r "$folder" "$crate/src/generated" > /dev/null || {
    echo "error: clients/rust/src/generated is not what protos/ gives; run scripts/languages/rust.sh gen" >&2
    return 1
  }
}

cd "$crate"
case "${1:-}" in
  missing) missing | head -n 1 ;;
  setup)
    if ! command -v cc > /dev/null; then
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev > /dev/null
    fi
    cargo fetch --quiet --locked
    ;;
  gen) gen ;;
  fresh) fresh ;;
  lint)
    cargo fmt --all --check
    cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --package kvblock
    ;;
  test) cargo test --quiet --locked ;;
  driver)
    cargo build --quiet --locked --package kvblock-conformance
    echo "$crate/target/debug/kvblock-conformance"
    ;;
  engine)
    cargo build --quiet --locked --example engine
    echo "$crate/target/debug/examples/engine"
    ;;
  *)
    echo "usage: rust.sh missing|setup|gen|fresh|lint|test|driver|engine" >&2
    exit 2
    ;;
esac
