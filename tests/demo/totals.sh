#!/usr/bin/env bash
# totals.sh COMMAND...: runs `cargo test`, passes its output on, and adds up the
# results of all test programs into target/logs/totals.txt, with what the failed ones
# said: it stands at the end, whatever is cut from the middle of a long log.
set -uo pipefail
logs=${CARGO_TARGET_DIR:-target}/logs
mkdir -p "$logs"
"$@" 2>&1 | tee "$logs/cargo-test.log"
code=${PIPESTATUS[0]}
awk -v code="$code" '
  /^test result:/ { programs++; for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) passed += $i; if ($(i+1) ~ /^failed/) failed += $i; if ($(i+1) ~ /^ignored/) ignored += $i } }
  /panicked at / && said < 30 { why = why "\n  " $0; said++; rest = 6; next }
  rest > 0 { rest--; if (/stack backtrace|^note: /) rest = 0; else why = why "\n    " substr($0, 1, 600) }
  /^test .* \.\.\. FAILED/ { names = names "\n  failed: " $2 }
  END { printf "tests: %d passed, %d failed, %d ignored in %d test programs%s%s\n", passed, failed, ignored, programs, (code && !failed ? " (something did not compile or was killed)" : ""), (names ? names "\nwhat was said:" why : "") }
' "$logs/cargo-test.log" | tee "$logs/totals.txt"
exit "$code"
