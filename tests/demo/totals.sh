#!/usr/bin/env bash
# totals.sh COMMAND...: runs `cargo test` of all packages and adds up the results of all
# test programs into target/logs/totals.txt, with what the failed ones said: it stands at
# the end, whatever is cut from the middle of a long log.
#
# The crates' own tests run beside those of package `tests` that need no pods: both wait
# often. What runs pods comes after them and alone: it has deadlines.
set -uo pipefail
cd "$(dirname "$0")/../.."
logs=${CARGO_TARGET_DIR:-target}/logs
mkdir -p "$logs"
# Always all packages: other ones would be compiled with other features.
command=("$@")
cargo_test() { "${command[@]}" "$@"; }

cargo_test --no-run 2>&1 | tee "$logs/compile.log"
code=${PIPESTATUS[0]}
if [ "$code" != 0 ]; then
  echo "tests: none ran, something does not compile" | tee "$logs/totals.txt"
  exit "$code"
fi
clusters=() crates=(--lib --bins)
for name in $(sed -nE 's,^ *Executable tests/([a-z0-9_]+)(\.rs|/main\.rs) .*,\1,p' "$logs/compile.log" | sort -u); do
  case $name in
    e2e) ;;
    api_* | chart | clients_* | expressions | lab | layering | managed_fields) clusters+=(--test "$name") ;;
    *) crates+=(--test "$name") ;;
  esac
done

echo "The crates' own tests run as well; what they say comes when they have ended."
# In a process group of its own, to be ended as a whole.
set -m
cargo_test "${crates[@]}" > "$logs/crates-test.log" 2>&1 &
beside=$!
set +m
trap 'kill -TERM -- -$beside 2>/dev/null; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cargo_test "${clusters[@]}" 2>&1 | tee "$logs/cargo-test.log"
code=${PIPESTATUS[0]}
wait "$beside" || code=$?
trap - EXIT
tee -a "$logs/cargo-test.log" < "$logs/crates-test.log"
cargo_test --test e2e 2>&1 | tee -a "$logs/cargo-test.log"
ended=${PIPESTATUS[0]}
[ "$ended" = 0 ] || code=$ended

awk -v code="$code" '
  /^test result:/ { programs++; for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) passed += $i; if ($(i+1) ~ /^failed/) failed += $i; if ($(i+1) ~ /^ignored/) ignored += $i } }
  /panicked at / && said < 30 { why = why "\n  " $0; said++; rest = 6; next }
  rest > 0 { rest--; if (/stack backtrace|^note: /) rest = 0; else why = why "\n    " substr($0, 1, 600) }
  /^test .* \.\.\. FAILED/ { names = names "\n  failed: " $2 }
  END { printf "tests: %d passed, %d failed, %d ignored in %d test programs%s%s\n", passed, failed, ignored, programs, (code && !failed ? " (something was killed)" : ""), (names ? names "\nwhat was said:" why : "") }
' "$logs/cargo-test.log" | tee "$logs/totals.txt"
exit "$code"
