#!/usr/bin/env bash
# Least privilege, judged by the cluster's audit log after a demo:
#   rights.sh AUDIT_LOG
# Fails if a request of Steward was refused, or if a granted right was neither
# used nor is in golden/rights-unused.txt with the reason why it is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
log=$1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# One line a request: account, group/resource, verb, code.
grep -F '"username":"system:serviceaccount:steward-system:' "$log" | awk '
  function field(text, name,    at) {
    at = index(text, "\"" name "\":\"")
    if (!at) return ""
    text = substr(text, at + length(name) + 4)
    return substr(text, 1, index(text, "\"") - 1)
  }
  {
    at = index($0, "\"objectRef\":{")
    if (!at) next
    about = substr($0, at, index(substr($0, at), "}"))
    account = field($0, "username"); sub(/.*:/, "", account)
    resource = field(about, "resource")
    if (field(about, "subresource") != "") resource = resource "/" field(about, "subresource")
    match($0, /"code":[0-9]+/)
    print account, field(about, "apiGroup") "/" resource, field($0, "verb"), substr($0, RSTART + 7, RLENGTH - 7), field(about, "namespace") "/" field(about, "name")
  }' > "$out/requests"
[ -s "$out/requests" ] || { echo "rights: no request of Steward in $log" >&2; exit 1; }

if grep ' 403 ' "$out/requests" | sort | uniq -c > "$out/refused"; then
  echo "rights: refused requests of Steward (count, account, resource, verb, code, object):" >&2
  cat "$out/refused" >&2
  exit 1
fi

awk '{ print $1, $2, $3 }' "$out/requests" | sort -u > "$out/used"
# What the chart grants to our accounts: role and account have the same name.
awk '
  function words(text) { gsub(/.*\[|\]|"|,/, " ", text); return text }
  /^kind:/ { kind = $2 }
  /^  name:/ { name = $2 }
  kind !~ /Role$/ || name ~ /^steward-(tenants-|unregister)/ { next }
  /apiGroups:/ { split(words($0), groups); group = groups[1] }
  /resources:/ { resources = words($0) }
  /verbs:/ {
    count = split(resources, each); verbs = split(words($0), verb)
    for (i = 1; i <= count; i++) for (j = 1; j <= verbs; j++) print name, group "/" each[i], verb[j]
  }' "$here/golden/rights-etcd.yaml" | sort -u > "$out/granted"

comm -23 "$out/granted" "$out/used" > "$out/unused"
sed 's/ *#.*//; /^$/d' "$here/golden/rights-unused.txt" | sort -u > "$out/excused"
if comm -23 "$out/unused" "$out/excused" | grep . >&2; then
  echo "rights: granted and never used (above): take them from the chart, or say in golden/rights-unused.txt what uses them" >&2
  exit 1
fi
echo "rights: $(wc -l < "$out/requests") requests of Steward, none refused; $(wc -l < "$out/used") rights used, $(wc -l < "$out/unused") kept for reasons that are written down"
