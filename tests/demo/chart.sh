#!/usr/bin/env bash
# The chart as it is rendered: lint, what it refuses, what must never be in it, its page,
# six sets of values and its rights as golden files. After a wanted change: chart.sh --bless
set -euo pipefail
cd "$(dirname "$0")/../.."
golden=tests/demo/golden
helm=${HELM:-}
if [ -z "$helm" ]; then
  helm=$(${LAB:-${CARGO_TARGET_DIR:-target}/debug/lab} path helm) || { echo "chart: no helm: make lab-build, or HELM=..." >&2; exit 1; }
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# Rendered for the version of the lab; a helm built from source knows none.
render() { "$helm" template steward charts/steward --namespace steward-system --kube-version 1.36.3 "$@"; }
fail() { echo "chart: $1" >&2; exit 1; }

# Six sets of values, each wholly as a golden file: the Service is an ordinary one (R1.6).
sets=(default etcd two openshift mirror listed)
for set in "${sets[@]}"; do
  "$helm" lint --strict --quiet charts/steward --values "tests/demo/values/$set.yaml" || fail "helm lint with tests/demo/values/$set.yaml"
  # The set-up's name is a hash: what a sync renders again is the same object.
  render --values "tests/demo/values/$set.yaml" > "$out/$set.yaml"
  render --values "tests/demo/values/$set.yaml" --is-upgrade | diff - "$out/$set.yaml" > /dev/null || fail "$set renders differently for an upgrade"
done

# Sets that a user may combine must render too.
render --set etcd.enabled=true,rbac.aggregate=false,apiserver.replicas=0,controller.replicas=2 \
  --set apiserver.persistence.existingClaim=mine,etcd.persistence.storageClassName=fast \
  --set 'imagePullSecrets[0].name=pull,apiserver.tolerations[0].operator=Exists,controller.nodeSelector.a=b' \
  --set 'apiserver.extraArgs[0]=--log=debug,controller.extraArgs[0]=--log=debug,etcd.extraArgs[0]=--log-level=warn' \
  > "$out/all.yaml"

# `helm upgrade --reuse-values` renders with the values of the release that is there: those of
# the first chart, and what a user sets beside them, must do.
cp -r charts/steward "$out/reused"
cp tests/demo/upgrade/values.yaml "$out/reused/values.yaml"
reused() { "$helm" template steward "$out/reused" --namespace steward-system --kube-version 1.36.3 "$@" > "$out/reused.yaml" || fail "the values of the first chart do not render: $*"; }
reused
reused --set etcd.enabled=false,apiserver.encryption.secretName=keys
reused --set 'apiserver.audit.policy.rules[0].level=Metadata,apiserver.audit.log.path=-,apiserver.audit.webhook.secretName=hook'
grep -q -- '--audit-log-path=-$' "$out/reused.yaml" || fail "audit is not turned on with the values of the first chart"
reused --set 'apiserver.audit.policy.rules[0].level=Metadata,apiserver.audit.log.path=/var/log/steward/audit.log,apiserver.audit.log.volume.emptyDir.sizeLimit=1Gi'
if grep -q tracing "$out/reused.yaml"; then fail "the values of the first chart turn tracing on"; fi
reused --set apiserver.tracing.endpoint=otel.example:4317,controller.tracing.endpoint=otel.example:4317
[ "$(grep -c 'samplingRatePerMillion: 0$' "$out/reused.yaml")" = 2 ] || fail "tracing is not turned on with the values of the first chart"
if grep -nE -- '--[a-z-]+=$' "$out/reused.yaml"; then fail "a flag without a value (above)"; fi

# The settings of certificates reach both programs; the renewal makes nothing new.
render --set etcd.enabled=true,certificates.lifetime=90d,certificates.renewalWindow=240h > "$out/certificates.yaml"
[ "$(grep -c -- '- --certificate-lifetime=90d$' "$out/certificates.yaml")" = 3 ] || fail "certificates.lifetime does not reach the controller, the set-up and the renewal"
[ "$(grep -c -- '- --certificate-renewal-window=240h$' "$out/certificates.yaml")" = 3 ] || fail "certificates.renewalWindow does not reach the controller, the set-up and the renewal"
[ "$(grep -c -- '- --renew-only$' "$out/certificates.yaml")" = 1 ] || fail "the CronJob does not renew only"
# The shortest and the longest that the programs take.
render --set certificates.lifetime=2h,certificates.renewalWindow=1h > /dev/null || fail "the shortest lifetime is refused"
render --set certificates.lifetime=60d > /dev/null || fail "a lifetime of two windows is refused"
render --set certificates.lifetime=3650d > /dev/null || fail "the longest lifetime is refused"
if render --set etcd.enabled=true,etcd.setup.renewal.enabled=false | grep -q '^kind: CronJob$'; then fail "etcd.setup.renewal.enabled=false leaves the CronJob"; fi

# Without a cluster to look into, the policy is that of a new one unless it is named.
grep -qx '  podManagementPolicy: Parallel' "$out/etcd.yaml" || fail "a new etcd is not Parallel"
render --set etcd.enabled=true,etcd.podManagementPolicy=OrderedReady > "$out/ordered.yaml"
grep -qx '  podManagementPolicy: OrderedReady' "$out/ordered.yaml" || fail "etcd.podManagementPolicy does not reach the StatefulSet"

# SQLite has one writer.
if render --set apiserver.replicas=2 > /dev/null 2> "$out/refusal"; then
  fail "two API servers on SQLite were not refused"
fi
grep -q 'apiserver.replicas must be 0 or 1' "$out/refusal" || fail "the refusal of two API servers does not say why"

# refused VALUES WORDS...: the chart says what is wrong, before anything is installed.
refused() {
  local values=$1; shift
  if render --set "$values" > /dev/null 2> "$out/refusal"; then fail "$values was not refused"; fi
  grep -qF "$*" "$out/refusal" || { cat "$out/refusal" >&2; fail "the refusal of $values does not say: $*"; }
}
refused controller.rollsTogether=0 "minimum: got 0, want 1"
refused etcd.enabled=true,certificates.renewalWindow=2d "certificates.renewalWindow must be 72h or more"
refused controller.replicas=3 "controller.replicas must be 0, 1 or 2"
refused apiserver.replica=1 "additional properties 'replica' not allowed"
refused etcd.podManagementPolicy=Ordered "must be one of '', 'OrderedReady', 'Parallel'"
refused etcd.enabled=yes "got string, want boolean"
refused etcd.quotaBackendBytes=4Gi "got string, want integer"
refused image.apiserver.digest=latest "does not match pattern"
refused logFormat=xml "must be one of 'json', 'text'"
refused certificates.lifetime=soon "does not match pattern"
refused certificates.lifetime=1h "a lifetime of 1h is too short for a renewal window of 720h"
refused certificates.lifetime=59d "a lifetime of 59d is too short for a renewal window of 720h"
refused certificates.renewalWindow=183d "a lifetime of 8760h is too short for a renewal window of 183d"
refused certificates.lifetime=3651d "a lifetime of 3651d is too long"
refused certificates.renewalWindow=9999999999h "does not match pattern"
refused certificates.renewalWindow=1y "does not match pattern"
refused etcd.setup.renewal.schedule=daily "does not match pattern"
refused 'tenantNamespaces[0]=Tenants' "does not match pattern"
refused 'tenantNamespaces=tenants' "got string, want array"
refused 'dataStoreSecrets[0].name=x' "missing property 'namespace'"

refused apiserver.audit.webhook.secretName=hook "apiserver.audit.webhook needs apiserver.audit.policy"
rules='apiserver.audit.policy.rules[0].level=Metadata'
refused "$rules,apiserver.audit.log.path=" "events would go nowhere"
refused "$rules,apiserver.audit.log.path=/var/log/steward/audit.log" "apiserver.audit.log.path needs apiserver.audit.log.volume"
refused "$rules,apiserver.audit.log.path=/var/lib/steward/audit.log,apiserver.audit.log.volume.emptyDir.medium=Memory" "must be a file of a directory of its own"
refused 'apiserver.audit.policy.rules[0].level=Most' "value must be one of 'None', 'Metadata', 'Request', 'RequestResponse'"
refused 'apiserver.audit.policy.rules[0].level=None,apiserver.audit.policy.rules[0].user=a' "additional properties 'user' not allowed"

# A policy of audit reaches the server, with each backend, and another one rolls it.
audited() { render --set "$rules" "$@"; }
audited > "$out/audit.yaml"
for line in '- --audit-policy-file=/etc/steward/audit/policy.yaml' '- --audit-log-path=-' 'kind: Policy'; do
  grep -qF -- "$line" "$out/audit.yaml" || fail "a policy of audit does not render: $line"
done
audited --set apiserver.audit.log.path=/var/log/steward/audit.log,apiserver.audit.log.volume.emptyDir.sizeLimit=1Gi,apiserver.audit.webhook.secretName=hook > "$out/audit-all.yaml"
for line in '- --audit-log-path=/var/log/steward/audit.log' '- --audit-log-maxbackup=5' 'mountPath: /var/log/steward$' 'sizeLimit: 1Gi' \
  '- --audit-webhook-config-file=/etc/steward/audit-webhook/kubeconfig' 'secretName: hook'; do
  grep -q -- "$line" "$out/audit-all.yaml" || fail "audit does not render: $line"
done
rolled() { grep -o 'audit-policy: [0-9a-f]*' "$1"; }
audited --set 'apiserver.audit.policy.omitStages[0]=Panic' > "$out/audit-other.yaml"
[ "$(rolled "$out/audit.yaml")" != "$(rolled "$out/audit-other.yaml")" ] || fail "another policy of audit rolls nothing"
audited --set apiserver.podAnnotations.a=b > "$out/audit-noted.yaml"
grep -q '^        a: b$' "$out/audit-noted.yaml" || fail "a policy of audit takes the place of podAnnotations"

# Tracing reaches either program alone, and another rate rolls it.
for component in apiserver controller; do
  traced() { render --set "$component.tracing.endpoint=otel.example:4317,$component.tracing.samplingRatePerMillion=$1"; }
  traced 5 > "$out/traced.yaml"
  for line in '- --tracing-config-file=/etc/steward/tracing/config.yaml$' 'mountPath: /etc/steward/tracing$' "name: steward-$component-tracing\$" \
    'endpoint: "otel.example:4317"$' 'samplingRatePerMillion: 5$' 'kind: TracingConfiguration$'; do
    grep -q -- "$line" "$out/traced.yaml" || fail "tracing of the $component does not render: $line"
  done
  [ "$(grep -c -- '--tracing-config-file' "$out/traced.yaml")" = 1 ] || fail "tracing of the $component is not of it alone"
  traced 6 > "$out/traced-other.yaml"
  of() { grep -o 'steward.butlerlabs.dev/tracing: .*' "$1"; }
  [ "$(of "$out/traced.yaml")" != "$(of "$out/traced-other.yaml")" ] || fail "another rate of tracing rolls nothing"
  refused "$component.tracing.samplingRatePerMillion=5" "spans would go nowhere"
  refused "$component.tracing.endpoint=http://otel:4317" "does not match pattern"
  refused "$component.tracing.endpoint=a:1,$component.tracing.samplingRatePerMillion=1000001" "maximum: got"
done

# helm resolves kinds before the API exists, and these have one writer each.
for forbidden in '^kind: (TenantControlPlane|DataStore|APIService|CustomResourceDefinition)$' 'caBundle' '^kind: Secret$' 'name: cluster-admin$' 'resourceNames: \[\]'; do
  if grep -nE "$forbidden" "$out/etcd.yaml" | grep -v '^[0-9]*: *#'; then fail "must not be in the chart: $forbidden"; fi
done
# A wildcard of verbs or resources is allowed to a FlowSchema only (it grants nothing).
if awk '/^---/ { kind = "" } /^kind:/ { kind = $2 } kind ~ /Role$/ && /"\*"|\[\*\]/ { print FILENAME ": " $0; found = 1 } END { exit !found }' "$out/etcd.yaml"; then
  fail "a role has a wildcard"
fi
# With listed namespaces, a right on what is namespaced is given in one of them only,
# but for our own kinds.
awk '/^---/ { kind = ""; mine = 0 } /^kind:/ { kind = $2 } /apiGroups:/ { mine = /steward.butlerlabs.dev/ } kind == "ClusterRole" && !mine && /resources:/ { print }' "$out/listed.yaml" | sort -u > "$out/wide"
if grep -vE 'resources: \[(subjectaccessreviews|tokenreviews|namespaces|apiservices|customresourcedefinitions|mutatingwebhookconfigurations, validatingwebhookconfigurations|(mutating|validating)admissionpolicies, (mutating|validating)admissionpolicybindings)\]' "$out/wide"; then
  fail "a right on the above is not limited to the listed namespaces"
fi
render --set-json 'tenantNamespaces=[]' --values tests/demo/values/etcd.yaml | diff - "$out/etcd.yaml" > /dev/null || fail "an empty list is not the same as none"
grep -q 'helm.sh/resource-policy: keep' "$out/default.yaml" || fail "the volume claim is not kept on uninstall"

tests/demo/values.sh "$helm" || fail "the page of the chart's values is not that of values.yaml (above)"

# Who may do what, without the words around it (R1.34, R1.35).
rights() { awk 'BEGIN { RS = "---\n"; ORS = "---\n" } /\nkind: (Cluster)?Role(Binding)?\n/' "$1" | grep -vE '^ *#|helm.sh/chart|app.kubernetes.io/' ; }
mkdir -p "$golden"
for set in "${sets[@]}"; do
  # Without comments: they are read where they are written.
  grep -vE '^ *#' "$out/$set.yaml" > "$out/chart-$set.yaml"
  if [ "${1:-}" = --bless ]; then
    cp "$out/chart-$set.yaml" "$golden/chart-$set.yaml"
  fi
  diff -u "$golden/chart-$set.yaml" "$out/chart-$set.yaml" \
    || fail "the chart renders differently (above) with tests/demo/values/$set.yaml. Wanted? tests/demo/chart.sh --bless"
done
for set in default etcd listed; do
  rights "$out/$set.yaml" > "$out/rights-$set.yaml"
  if [ "${1:-}" = --bless ]; then
    cp "$out/rights-$set.yaml" "$golden/rights-$set.yaml"
  fi
  diff -u "$golden/rights-$set.yaml" "$out/rights-$set.yaml" \
    || fail "the rights have changed (above). Wanted? tests/demo/chart.sh --bless, and say why in the commit"
done
echo "chart: lint, refusals, forbidden objects, the page of its values, rights and ${#sets[@]} sets of values are as they should be"
