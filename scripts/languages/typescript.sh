#!/usr/bin/env bash
# What can be done with the TypeScript client: missing, setup, gen, fresh, lint, test, driver,
# engine; and package, which makes what would be published.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/clients/typescript
export KVBLOCK=${KVBLOCK:-$root/.venv/bin/kvblock}

missing() {
  local version
  command -v npm >/dev/null || { echo "npm is not installed"; return 1; }
  version=$(node --version 2>/dev/null) || { echo "node is not installed"; return 1; }
  node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 5) ? 0 : 1)' ||
    { echo "Node 20.5 or newer is needed, and this is $version"; return 1; }
}

# The modules of the lock file. Their install scripts are not run: none of them is needed.
setup() {
  missing >&2
  cd "$here"
  if ! cmp -s package-lock.json node_modules/.kvblock-lock; then
    npm ci --ignore-scripts --no-audit --no-fund --silent >&2
    cp package-lock.json node_modules/.kvblock-lock
  fi
}

# Writes the stubs of protos/ to a folder.
stubs() {
  cd "$here"
  npx --no-install buf generate --output "$1" >&2
}

gen() {
  setup
  rm -rf "$here/src/generated"
  stubs "$here"
}

fresh() {
  setup
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  stubs "$copy"
  diff -r "$copy/src/generated" "$here/src/generated" >&2 ||
    { echo "typescript: the stubs are not those of protos/; run: $0 gen" >&2; return 1; }
}

lint() {
  setup
  cd "$here"
  npx --no-install biome check --error-on-warnings .
  npx --no-install tsc --project tsconfig.tools.json --noEmit
}

build() {
  setup
  cd "$here"
  npx --no-install tsc --project tsconfig.tools.json >&2
}

# The npm package, as it would be published; prints its path.
package() {
  setup
  cd "$here"
  rm -rf dist
  npx --no-install tsc >&2
  npm pack --silent --pack-destination dist >/dev/null
  echo "$here/dist/$(cd dist && ls kvblock-*.tgz)"
}

run_tests() {
  build
  node --test --test-concurrency=2 build/test/
}

case "${1:-}" in
  missing) missing || true ;;
  setup | gen | fresh | lint | package) "$1" ;;
  test) run_tests ;;
  driver) build; echo "node $here/build/driver/main.js" ;;
  engine) build; echo "node $here/build/sample/engine.js" ;;
  *) echo "usage: typescript.sh missing|setup|gen|fresh|lint|test|driver|engine|package" >&2; exit 2 ;;
esac
