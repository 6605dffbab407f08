#!/usr/bin/env bash
# Every row of docs/src/reference/chart.md names values of the chart, with the defaults of
# values.yaml in the same order ("none": empty, "see below": anything else).
#   values.sh HELM
set -euo pipefail
cd "$(dirname "$0")/../.."
helm=$1
page=docs/src/reference/chart.md
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# Rows of the first table, as "names|defaults". Those of many parts ("*.") are looked up at
# one of them and have no defaults.
rows() {
  awk -F ' *[|] *' '
    /^\| `\*/ { parts = $2; gsub(/\*\./, "controller.", parts); others = parts
               gsub(/[^,]+/, "any", others); gsub(/,/, ", ", others); print parts "|" others; next }
    /^\| `/ { print $2 "|" $3; seen = 1; next }
    seen && !/^\|/ { exit }' "$page"
}

# "`a.b.c`, `.d`" are a.b.c and a.b.d, each with its default behind it.
pairs() {
  local names defaults base name
  while IFS='|' read -r names defaults; do
    base=""
    IFS=, read -ra names <<< "${names//[\` ]/}"
    IFS='|' read -ra defaults <<< "${defaults//, /|}"
    [ "${#names[@]}" = "${#defaults[@]}" ] || { echo "values: ${names[*]}: ${#names[@]} values and ${#defaults[@]} defaults" >&2; return 1; }
    for i in "${!names[@]}"; do
      name=${names[$i]}
      case "$name" in .*) name=$base$name ;; esac
      base=${name%.*}
      printf '%s|%s\n' "$name" "${defaults[$i]//\`/}"
    done
  done
}

rows | pairs > "$out/told"
[ "$(wc -l < "$out/told")" -gt 40 ] || { echo "values: the table of $page is not found" >&2; exit 1; }

# helm reads the values: a chart that prints each of them as JSON, or that it is not there.
mkdir -p "$out/chart/templates"
cp charts/steward/values.yaml "$out/chart/"
printf 'apiVersion: v2\nname: values\nversion: 0.0.0\n' > "$out/chart/Chart.yaml"
while IFS='|' read -r name _; do
  case "$name" in *.*) parent=.Values.${name%.*} ;; *) parent=.Values ;; esac
  printf '{{ if hasKey (%s | default dict) "%s" }}# %s|{{ toJson .Values.%s }}{{ else }}# %s|(no such value){{ end }}\n' \
    "$parent" "${name##*.}" "$name" "$name" "$name"
done < "$out/told" > "$out/chart/templates/values.yaml"
"$helm" template values "$out/chart" | sed -n 's/^# \(.*|\)/\1/p' > "$out/true"

bad=0
while IFS='|' read -r name told && IFS='|' read -r -u 3 same true; do
  [ "$name" = "$same" ] || { echo "values: $name is read as $same" >&2; exit 1; }
  case "$true" in
    '""' | '[]' | '{}' | null) true=none ;;
    '{'*) [ "$told" != "see below" ] || true=$told ;;
  esac
  if [ "$told" = any ] && [ "$true" != "(no such value)" ]; then true=any; fi
  true=${true#\"}
  [ "$told" = "${true%\"}" ] || { echo "values: $page says $name is $told, and values.yaml ${true%\"}" >&2; bad=1; }
done < "$out/told" 3< "$out/true"
[ "$(wc -l < "$out/told")" = "$(wc -l < "$out/true")" ] || { echo "values: $(wc -l < "$out/true") of $(wc -l < "$out/told") values are read" >&2; bad=1; }
exit $bad
