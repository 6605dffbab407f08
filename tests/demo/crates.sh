#!/usr/bin/env bash
# What keeps the first build short: the lab needs none of our servers, and no crate
# has other features for the lab and the demo's programs than for the tests (it
# would be compiled once more, with all that stands on it).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail() { echo "crates: $1" >&2; exit 1; }

# Names, versions and features, one crate a line; ours have a path.
crates() {
  cargo tree --locked --quiet --prefix none --format '{p} {f}' "$@" \
    | sed 's/ (\*)$//' | { grep -v "($PWD" || true; } | sort -u
}

cargo tree --locked --quiet --prefix none --format '{p}' --edges normal,build --package tests --no-default-features \
  | cut -d ' ' -f 1 | sort -u > "$out/lab"
if grep -xE 'apiservice|storage|apiserver|controller|telemetry|sqlx|libsqlite3-sys|etcd-client|tonic' "$out/lab" >&2; then
  fail "the lab needs the above (tests/Cargo.toml: what only tests need is optional)"
fi

crates --workspace --no-default-features --edges normal,build > "$out/demo"
crates --workspace --edges normal,build,dev > "$out/tests"
if comm -23 "$out/demo" "$out/tests" | grep . >&2; then
  fail "other features than in tests (above): name the missing ones in tests/Cargo.toml"
fi
echo "crates: $(wc -l < "$out/lab") for the lab; $(wc -l < "$out/demo") of others for the demo are compiled once"
