#!/usr/bin/env bash
# The chart as it is rendered: lint, what it refuses, what must never be in it,
# and its rights as a golden file. After a wanted change: chart.sh --bless
set -euo pipefail
cd "$(dirname "$0")/../.."
golden=tests/demo/golden
helm=${HELM:-}
if [ -z "$helm" ]; then
  helm=$(${LAB:-cargo run --quiet --package tests --bin lab --} path helm)
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# Rendered for the version of the lab; a helm built from source knows none.
render() { "$helm" template steward charts/steward --namespace steward-system --kube-version 1.36.3 "$@"; }
fail() { echo "chart: $1" >&2; exit 1; }

"$helm" lint --strict --quiet charts/steward || fail "helm lint"
"$helm" lint --strict --quiet charts/steward --set etcd.enabled=true || fail "helm lint with etcd.enabled=true"
render > "$out/default.yaml"
render --set etcd.enabled=true > "$out/etcd.yaml"

# Sets that a user may combine must render too.
render --set etcd.enabled=true,rbac.aggregate=false,apiserver.replicas=0,controller.replicas=2 \
  --set apiserver.persistence.existingClaim=mine,etcd.persistence.storageClassName=fast \
  --set 'imagePullSecrets[0].name=pull,apiserver.tolerations[0].operator=Exists,controller.nodeSelector.a=b' \
  --set 'apiserver.extraArgs[0]=--log=debug,controller.extraArgs[0]=--log=debug,etcd.extraArgs[0]=--log-level=warn' \
  > "$out/all.yaml"

# SQLite has one writer.
if render --set apiserver.replicas=2 > /dev/null 2> "$out/refusal"; then
  fail "two API servers on SQLite were not refused"
fi
grep -q 'apiserver.replicas must be 0 or 1' "$out/refusal" || fail "the refusal of two API servers does not say why"

# helm resolves kinds before the API exists, and these have one writer each.
for forbidden in '^kind: (TenantControlPlane|DataStore|APIService|CustomResourceDefinition)$' 'caBundle' '^kind: Secret$' 'name: cluster-admin$' 'resourceNames: \[\]'; do
  if grep -nE "$forbidden" "$out/etcd.yaml" | grep -v '^[0-9]*: *#'; then fail "must not be in the chart: $forbidden"; fi
done
# A wildcard of verbs or resources is allowed to a FlowSchema only (it grants nothing).
if awk '/^---/ { kind = "" } /^kind:/ { kind = $2 } kind ~ /Role$/ && /"\*"|\[\*\]/ { print FILENAME ": " $0; found = 1 } END { exit !found }' "$out/etcd.yaml"; then
  fail "a role has a wildcard"
fi
grep -q 'helm.sh/resource-policy: keep' "$out/default.yaml" || fail "the volume claim is not kept on uninstall"

# Who may do what, without the words around it.
rights() { awk 'BEGIN { RS = "---\n"; ORS = "---\n" } /\nkind: (Cluster)?Role(Binding)?\n/' "$1" | grep -vE '^ *#|helm.sh/chart|app.kubernetes.io/' ; }
mkdir -p "$golden"
for set in default etcd; do
  rights "$out/$set.yaml" > "$out/rights-$set.yaml"
  if [ "${1:-}" = --bless ]; then
    cp "$out/rights-$set.yaml" "$golden/rights-$set.yaml"
  fi
  diff -u "$golden/rights-$set.yaml" "$out/rights-$set.yaml" \
    || fail "the rights have changed (above). Wanted? tests/demo/chart.sh --bless, and say why in the commit"
done
echo "chart: lint, refusals, forbidden objects and rights are as they should be"
