#!/usr/bin/env bash
# How long will it take before the first thing happens? From what is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
cores=$(nproc)
minutes=0
why=()
if ! compgen -G "${XDG_CACHE_HOME:-$HOME/.cache}/steward-lab/*" >/dev/null; then
  minutes=$((minutes + 28 / cores))
  why+=("to compile, once for this machine: Kubernetes, etcd, CoreDNS and helm")
fi
target=${CARGO_TARGET_DIR:-target}
[ -x "$target/debug/lab" ] || { minutes=$((minutes + 4 / cores)); why+=("to compile: the lab"); }
[ -x "$target/debug/steward-controller" ] || { minutes=$((minutes + 5 / cores)); why+=("to compile: Steward"); }
if [ "$minutes" = 0 ]; then
  echo "everything is compiled: it starts within seconds"
else
  printf 'about %d minutes on %d cores before it starts:\n' "$minutes" "$cores"
  printf '  %s\n' "${why[@]}"
fi
