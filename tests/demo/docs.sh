#!/usr/bin/env bash
# Every relative link of the documents leads to a file, every page of the book is in
# its table of contents, commands of helm are whole, and what code and tests say about
# conditions and the wire contract is in them.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
while IFS= read -r page; do
  while IFS= read -r link; do
    link=${link%%#*}
    case "$link" in ""|http://*|https://*|mailto:*) continue ;; esac
    [ -e "$(dirname "$page")/$link" ] || { echo "docs: $page: no such file: $link" >&2; bad=1; }
  done < <(grep -oE '\]\([^) ]+\)' "$page" | sed 's/^](//; s/)$//')
done < <(find README.md docs/src -name '*.md')
while IFS= read -r page; do
  grep -qF "(${page#docs/src/})" docs/src/SUMMARY.md || { echo "docs: $page is not in SUMMARY.md" >&2; bad=1; }
done < <(find docs/src -name '*.md' ! -name SUMMARY.md)
# What helm does to a release names its namespace, on the line itself; an upgrade takes what was
# set before, in one spelling: with --reuse-values the defaults of the chart of before stay.
while IFS= read -r line; do
  case "$line" in *" --namespace "*) ;; *) echo "docs: no --namespace: $line" >&2; bad=1 ;; esac
  case "$line" in *"helm upgrade "*) ;; *) continue ;; esac
  case "$line" in *" --reset-then-reuse-values"*) ;; *) echo "docs: no --reset-then-reuse-values: $line" >&2; bad=1 ;; esac
done < <(grep -rnE '^ *\$ helm (install|upgrade|rollback|uninstall) ' README.md docs/src)
# Every condition type and reason of the code is explained.
while IFS= read -r word; do
  grep -qF "\`$word\`" docs/src/reference/conditions.md || { echo "docs: conditions.md does not explain $word" >&2; bad=1; }
done < <(sed '/#\[cfg(test)\]/,$d' apiservice/src/condition.rs | grep -oE '"[A-Z][A-Za-z]+"' | tr -d '"' | sort -u | grep -vxE 'True|False')
# Every test that a bound names is there. Names of metrics are not those of tests.
while IFS= read -r name; do
  echo "docs: limits.md names a test that there is not: $name" >&2; bad=1
done < <(comm -23 \
  <(grep -oE '`[a-z0-9]+(_[a-z0-9]+){2,}`' docs/src/explanation/limits.md | tr -d '`' | grep -vE '^(steward|apiserver)_' | sort -u) \
  <(grep -rhoE --include='*.rs' 'fn [a-z0-9_]+' apiserver apiservice storage telemetry controller tests | cut -c4- | sort -u))
# Every requirement of the wire contract has a test, or a reason why not.
tests/contract/coverage.sh --check || bad=1
[ "$bad" = 0 ] && echo "docs: links, table of contents, commands of helm and conditions are in order"
exit $bad
