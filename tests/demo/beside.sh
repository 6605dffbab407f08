#!/usr/bin/env bash
# Two commands side by side; it fails as soon as one does, and ends the other.
#   beside.sh COMMAND COMMAND
set -euo pipefail
# Each with a process group of its own, to be ended as a whole.
set -m
first=$1 second=$2
# What the first says is told apart by its indentation.
bash -euo pipefail -c "$first" > >(sed -u 's/^/    /') 2>&1 < /dev/null &
one=$!
bash -euo pipefail -c "$second" < /dev/null &
two=$!
end() {
  kill -TERM -- -$one 2>/dev/null || true
  kill -TERM -- -$two 2>/dev/null || true
  wait || true
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
wait -n -p ended $one $two || { code=$?; echo "failed: $([ "$ended" = $one ] && echo "$first" || echo "$second")" >&2; exit $code; }
other=$([ "$ended" = $one ] && echo $two || echo $one)
wait "$other" || { code=$?; echo "failed: $([ "$other" = $one ] && echo "$first" || echo "$second")" >&2; exit $code; }
trap - EXIT
