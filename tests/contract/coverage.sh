#!/usr/bin/env bash
# Which test proves which requirement of the wire contract
# (docs/src/reference/contract.md):
#   coverage.sh          checks, and prints the requirements without a test
#   coverage.sh --check  checks
#   coverage.sh --write  checks, and writes docs/src/reference/contract-coverage.md anew
#
# A requirement is tested where a test names its number: in Rust in the comment before the
# function or in its body, in a case (tests/cases), a list of commands (tests/golden) or a
# script (tests/demo) in a comment. Every other one stands in exceptions.txt with its
# reason: `not-applicable: ...` or `missing: ...`. What is built and only lacks its test is
# `missing: a test ...`.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C
pages=docs/src/reference
page=$pages/contract-coverage.md
exceptions=tests/contract/exceptions.txt
number='[RP][0-9]+\.[0-9]+'
mode=${1:---print}
case "$mode" in --print|--check|--write) ;; *) echo "contract: unknown argument $mode" >&2; exit 2 ;; esac
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0
complain() { echo "contract: $1" >&2; bad=1; }

# What there is: number and page, each once and without a gap.
grep -HoE "^- \*\*$number\*\*" "$pages"/contract/*.md | sed -E "s/^([^:]*):- \*\*($number)\*\*$/\2\t\1/" | sort -V > "$out/numbers"
awk -F '\t' '
  { split($1, part, "."); if (part[1] != chapter) { chapter = part[1]; next_one = 1 } }
  part[2] != next_one { print "contract: " $1 " in " $2 " is not the next number after " chapter "." next_one - 1; bad = 1 }
  { next_one = part[2] + 1 }
  END { exit bad }' "$out/numbers" >&2 || bad=1
cut -f1 "$out/numbers" > "$out/all"
grep '^R' "$out/all" > "$out/required"

# What is cited, in code, tests and documents.
texts=(--include='*.rs' --include='*.sh' --include='*.go' --include='*.md' --include='*.steps' --include='*.txt' --include='*.yaml' --include='*.tpl' --include='Makefile')
grep -rnoE "${texts[@]}" --exclude-dir=target "(^|[^A-Za-z0-9_.])$number\b" apiserver apiservice charts controller docs storage telemetry tests README.md Makefile > "$out/cited" || true
sed -E "s/^([^:]*:[0-9]+):.*($number)$/\2\t\1/" "$out/cited" | sort -u > "$out/places"
awk -F '\t' 'NR == FNR { there[$1]; next } !($1 in there) { print "contract: " $2 ": there is no requirement " $1; bad = 1 } END { exit bad }' "$out/all" "$out/places" >&2 || bad=1

# Files that are tests as a whole: in a folder `tests`, or a module for tests only.
grep -rA1 --include='*.rs' -E '^ *#\[cfg\(test\)\]$' apiserver apiservice controller storage telemetry \
  | sed -nE 's/^(.*)\.rs- *(pub(\([a-z]+\))? )?mod ([a-z_]+);$/\1 \4/p' \
  | sed -E 's,/(lib|main|mod) , ,; s, ,/,' > "$out/modules"
cut -f2 "$out/places" | sed 's/:[0-9]*$//' | sort -u > "$out/files"
while IFS= read -r file; do
  case "$file" in
    */tests/*.rs) echo "$file" ;;
    *.rs) while IFS= read -r module; do case "$file" in "$module".rs|"$module"/*) echo "$file"; break ;; esac; done < "$out/modules" ;;
  esac
done < "$out/files" > "$out/whole"

# Number, file, and what in it: one line for each test that names it.
numbers_of='
  function name(text, what,    at) {
    while (match(text, /R[0-9]+\.[0-9]+/)) {
      at = substr(text, RSTART - 1, 1)
      if (RSTART == 1 || at !~ /[A-Za-z0-9_.]/) print substr(text, RSTART, RLENGTH) "\t" FILENAME "\t" what
      text = substr(text, RSTART + RLENGTH)
    }
  }'
rust=$(grep '\.rs$' "$out/files" || true)
# shellcheck disable=SC2086 # names of files have no spaces here
awk "$numbers_of"'
  FILENAME == ARGV[1] { whole[$0]; next }
  FNR == 1 { inside = FILENAME in whole; armed = 0; what = ""; before = "" }
  !inside {
    if (armed && $0 ~ /^ *(pub(\([a-z]+\))? )?mod [a-z_]+ \{/) inside = 1
    armed = $0 ~ /^ *#\[cfg\(test\)\]$/
    next
  }
  /^ *\/\/!/ { next }
  /^ *(\/\/\/|#\[)/ { before = before " " $0; next }
  /^ *(pub(\([a-z]+\))? )?(const |async )?fn [a-z_0-9]+/ {
    what = $0; sub(/^.*fn /, "", what); sub(/[^a-z_0-9].*/, "", what)
    name(before, what); name($0, what); before = ""; next
  }
  { before = ""; if (what != "") name($0, what) }' "$out/whole" $rust > "$out/named"
others=$(grep -E '^tests/(cases/.*\.steps|golden/.*\.txt|demo/.*\.sh)$' "$out/files" || true)
if [ -n "$others" ]; then
  # shellcheck disable=SC2086
  awk "$numbers_of"'/^ *#/ { what = FILENAME; sub(/.*\//, "", what); sub(/\..*/, "", what); name($0, what) }' $others >> "$out/named"
fi
sort -uV "$out/named" > "$out/tests"
cut -f1 "$out/tests" | sort -u > "$out/tested"

# The exceptions.
grep -vE '^(#|$)' "$exceptions" > "$out/exceptions" || true
while IFS=$'\t' read -r which reason rest; do
  grep -qxF "$which" "$out/required" || complain "$exceptions: there is no requirement $which"
  case "$reason" in "missing: "?*|"not-applicable: "?*) ;; *) complain "$exceptions: $which needs a tab and a reason, missing: ... or not-applicable: ..." ;; esac
  [ -z "$rest" ] || complain "$exceptions: $which has more than a reason"
  if grep -qxF "$which" "$out/tested"; then complain "$exceptions: $which is tested by now ($(awk -F '\t' -v n="$which" '$1 == n { print $2 ": " $3; exit }' "$out/tests")); take it out"; fi
done < "$out/exceptions"
cut -f1 "$out/exceptions" > "$out/excepted"
sort -cuV "$out/excepted" 2> /dev/null || complain "$exceptions is not in order, or has a number twice"
while IFS= read -r which; do
  complain "$which has neither a test that names it nor a line in $exceptions"
done < <(sort "$out/tested" "$out/excepted" | sort -u | comm -23 <(sort "$out/required") - | sort -V)

# The page.
count() { grep -cE "$1" "$out/exceptions" || true; }
total=$(wc -l < "$out/required") tested=$(comm -12 <(sort "$out/required") "$out/tested" | wc -l)
missing=$(count $'\tmissing: ') elsewhere=$(count $'\tnot-applicable: ')
{
  echo "# Coverage of the wire contract"
  echo
  echo "Written by \`tests/contract/coverage.sh --write\`; \`make lint\` compares it. The"
  echo "exceptions are those of \`$exceptions\`."
  echo
  echo "Of $total [requirements](contract.md) $tested are named by a test, $elsewhere do not apply"
  echo "and $missing are missing."
  awk -F '\t' '
    FILENAME == ARGV[1] { here[$1] = here[$1] (here[$1] ? ", " : "") "`" $2 "`: `" $3 "`"; next }
    FILENAME == ARGV[2] { why = $2; sub(/^not-applicable: /, "does not apply: ", why); sub(/^missing: /, "**missing**: ", why); here[$1] = why; next }
    FILENAME == ARGV[3] { if (FNR == 1 || !($2 in title)) { line = ""; getline line < $2; title[$2] = substr(line, 3) } page[$1] = $2; next }
    {
      if (page[$1] != last) {
        last = page[$1]; link = last; sub(/^docs\/src\/reference\//, "", link)
        print "\n## [" title[last] "](" link ")\n\n| | |\n|---|---|"
      }
      print "| " $1 " | " here[$1] " |"
    }' "$out/tests" "$out/exceptions" "$out/numbers" "$out/required"
} > "$out/page"
if [ "$mode" = --write ]; then
  cp "$out/page" "$page"
elif ! diff -u "$page" "$out/page" > "$out/difference" 2>&1; then
  head -40 "$out/difference" >&2
  complain "$page is not what the tests say; write it anew: tests/contract/coverage.sh --write"
fi

if [ "$mode" = --print ]; then
  echo "Requirements without a test:"
  awk -F '\t' '{ printf "%-6s %s\n", $1, $2 }' "$out/exceptions"
  echo
fi
[ "$bad" != 0 ] || echo "contract: $total requirements: $tested tested, $elsewhere not applicable, $missing missing"
exit $bad
