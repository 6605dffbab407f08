#!/usr/bin/env bash
# Steward in a few minutes: a management cluster, Steward in it, a tenant with a
# life of its own, and nothing left at the end. Each command is printed as you
# would type it.
#
#   demo.sh [up]    the whole demo (KEEP=1: leave it running at the end)
#   demo.sh down    take away what KEEP=1 or a killed run left
#
# Settings (environment):
#   CLUSTER           lab (default: a cluster of its own on this machine) or
#                     current (the cluster of kubectl's current context)
#   IMAGE_APISERVER   repository:tag of our images; with CLUSTER=current the
#   IMAGE_CONTROLLER  nodes must be able to pull them
#   IMAGE_ETCD        etcd for tenants; with CLUSTER=current that of etcd's own registry
#                     unless set
#   PROFILE           cargo's profile of our programs: dev (default; it shares
#                     dependencies with the lab), or release
#   DATASTORE         where tenants keep their data: etcd (default; in the cluster, from
#                     the chart), or a server beside the cluster of its own: postgresql,
#                     mysql (MariaDB), nats
#   VERSION           Kubernetes version of the tenant
#   SERVICE_TYPE      how the tenant is reached: LoadBalancer, NodePort, ClusterIP
#   LAB               how to call the lab's program
#   FORCE             1: take away the kept demo of another clone, and forget one
#                     whose cluster does not answer any more
set -euo pipefail
# What containers run as must be able to read what is made for them.
umask 022

CLUSTER=${CLUSTER:-lab}
KEEP=${KEEP:-0}
export PROFILE=${PROFILE:-dev}
DATASTORE=${DATASTORE:-etcd}
VERSION=${VERSION:-v1.36.3}
SERVICE_TYPE=${SERVICE_TYPE:-LoadBalancer}
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
LAB=${LAB:-$(cd "$top" && realpath -m "${CARGO_TARGET_DIR:-target}")/debug/lab}
# Each kind of cluster has its own: neither takes away what belongs to the other.
state=$(cd "$top" && realpath -m "${CARGO_TARGET_DIR:-target}")/demo
[ "$CLUSTER" = lab ] || state=$state-$CLUSTER
release=steward
namespace=steward-system
group=steward.butlerlabs.dev
api_service=v1alpha1.$group

if [ "$CLUSTER" = lab ]; then
  IMAGE_APISERVER=${IMAGE_APISERVER:-localhost/steward-apiserver:dev}
  IMAGE_CONTROLLER=${IMAGE_CONTROLLER:-localhost/steward-controller:dev}
  IMAGE_ETCD=${IMAGE_ETCD:-registry.k8s.io/etcd:3.6.15-0}
else
  IMAGE_ETCD=${IMAGE_ETCD:-quay.io/coreos/etcd:v3.6.15}
fi

# --- what the person sees --------------------------------------------------

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold="" dim="" red="" plain=""; fi
began=$SECONDS
step_began=$SECONDS
step="start"
steps=0
total=9
if [ "$CLUSTER" = lab ]; then total=10; fi
last_command=""
finished=no
# A file of a run that has not begun yet.
refused_leaves=""
# Whether a machine is on its way into the tenant.
joining=no
table=""

# step TITLE [ESTIMATE]: begins a step, and closes the one before.
step() {
  close_step
  steps=$((steps + 1))
  step=$1
  step_began=$SECONDS
  printf '\n%s[%d/%d] %s%s%s\n' "$bold" "$steps" "$total" "$step" "$plain" "${2:+ $dim($2)$plain}"
}

close_step() {
  [ "$steps" = 0 ] && return
  table+=$(printf '  %4d s  %s' $((SECONDS - step_began)) "$step")$'\n'
}

# run 'COMMAND': prints it as the person would type it, and runs it.
run() {
  last_command=$1
  printf '%s$ %s%s\n' "$bold" "$1" "$plain"
  eval "$1"
}

note() { printf '%s%s%s\n' "$dim" "$1" "$plain"; }

die() { printf '%s%s%s\n' "$red" "$1" "$plain" >&2; exit 1; }

# shellcheck source=tests/demo/claim.sh
. "$here/claim.sh"
# shellcheck source=tests/demo/evidence.sh
. "$here/evidence.sh"

# until_ok SECONDS WHAT COMMAND...: tries twice a second until it succeeds.
until_ok() {
  local limit=$1 what=$2; shift 2
  last_command="waiting for $what"
  local end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "$what: not within $limit s"
    sleep 0.5
  done
}

# --- failure and end ----------------------------------------------------------

on_exit() {
  local code=$?
  trap - EXIT INT TERM
  # Cleaning up is not interrupted by a second Ctrl-C, and ends by itself.
  trap '' INT
  set +e
  # A run that was refused has made nothing, and takes nothing away.
  [ -z "$refused_leaves" ] || rm -f "$refused_leaves"
  [ "$claimed" = yes ] || exit "$code"
  if [ "$code" = 0 ] && [ "$finished" = yes ]; then
    [ "$KEEP" = 1 ] && { keep; how_to_go_on; exit 0; }
    take_down
    exit $?
  fi
  [ "$code" = 0 ] && code=1
  printf '\n%sThe demo did not finish: step %d (%s)%s\n' "$red" "$steps" "$step" "$plain" >&2
  [ -n "$last_command" ] && echo "It was at: $last_command" >&2
  case "$code" in
    130|143) echo "It was interrupted." >&2 ;;
    *)
      [ "${KUBECONFIG:-}" = "$state/kubeconfig" ] && diagnose
      if [ "$CLUSTER" = lab ] && $LAB logs --name demo > "$state/cluster.log" 2>&1; then
        echo "Ends of the logs of the cluster's own programs: $state/cluster.log" >&2
      fi
      ;;
  esac
  if [ "$KEEP" = 1 ] && [ "$code" != 130 ] && [ "$code" != 143 ] && [ -s "$state/kubeconfig" ]; then
    keep
    how_to_go_on >&2
  else
    take_down >&2
  fi
  exit "$code"
}

# What KEEP=1 leaves is written down, so that nobody takes it for a ruin.
keep() {
  [ -f "$state/made-release" ] && mark release "$namespace"
  [ -f "$state/made-tenants" ] && mark tenants tenants
  write_claim yes
}

how_to_go_on() {
  echo
  if [ "$finished" = yes ]; then
    echo "KEEP=1: the cluster is still there. To use it from this shell:"
  else
    echo "KEEP=1: the cluster is left as it is. To look at it from this shell:"
  fi
  echo
  echo "  export KUBECONFIG=$state/kubeconfig"
  [ "$CLUSTER" != lab ] || echo "  export PATH=$state/bin:\$PATH"
  echo "  kubectl get tcp,datastores,pods -A"
  if [ "$finished" = yes ]; then
    local port=6443
    [ "$SERVICE_TYPE" = NodePort ] && port=30443
    sed "s/serviceType: LoadBalancer/serviceType: $SERVICE_TYPE/; s/port: 6443/port: $port/; s/\"v1.36.3\"/\"$VERSION\"/" "$here/tenant-small.yaml" > "$state/tenant-small.yaml"
    echo "  kubectl apply -f $state/tenant-small.yaml        # a new tenant"
  fi
  cat <<TEXT

and when you are done:

  make demo-down$make_words
TEXT
}

take_down() {
  echo
  note "Taking the demo away ..."
  local code=0
  if [ "$CLUSTER" = lab ]; then
    if [ "$claimed" = yes ] && ! claim_is_ours; then
      note "Another demo has taken the place of this one; it is left alone."
      return 1
    fi
    $LAB down --name demo || code=1
  else
    take_from_cluster || code=1
  fi
  if [ "$code" != 0 ]; then
    printf '%sNot everything could be taken away (above). Again: make demo-down%s%s\n' "$red" "$make_words" "$plain"
    return "$code"
  fi
  if [ "$CLUSTER" != lab ] && [ "$finished" = yes ]; then
    ( cd "$state" && dump_objects > after-objects && compare before-objects after-objects "Your cluster" ) || code=1
  fi
  rm -rf "$state/kubeconfig" "$state"/kubeconfig.* "$state"/*.kubeconfig "$state/token.json" "$state/datastore.json" "$state/bin" "$state/charts" "$state"/made-*
  release_claim
  [ "$code" = 0 ] || return "$code"
  if [ "$finished" = yes ]; then
    echo "Done: all $total steps passed, and nothing of the demo is left."
  else
    echo "Nothing of the demo is left."
  fi
}

take_from_cluster() {
  if [ ! -s "$state/kubeconfig" ]; then
    note "No demo is known here."
    return 0
  fi
  export KUBECONFIG=$state/kubeconfig
  [ -n "$(marks)" ] || return 0
  if [ -z "$(cluster_id)" ]; then
    echo "The cluster of the demo$(at_address) does not answer: nothing was removed in it."
    if [ "${FORCE:-0}" = 1 ]; then echo "FORCE=1: it is forgotten."; return 0; fi
    echo "If it is gone for good: make demo-down$make_words FORCE=1"
    return 1
  fi
  uninstall
}

# In someone's cluster only what the demo made goes.
uninstall() {
  local failed=0 mark
  for mark in release:$namespace tenants:tenants datastore:$namespace; do
    if [ -f "$state/made-${mark%:*}" ] && ! marked "${mark%:*}" "${mark#*:}"; then
      note "Namespace ${mark#*:} is gone, or not the one that the demo made: left alone."
    fi
  done
  if marked tenants tenants && kubectl get apiservice $api_service >/dev/null 2>&1; then
    kubectl -n tenants delete tcp --all --ignore-not-found --timeout=120s || failed=1
  fi
  if marked release $namespace; then
    if marked datastore $namespace && kubectl get apiservice $api_service >/dev/null 2>&1; then
      kubectl delete datastore default --ignore-not-found --timeout=60s || failed=1
    fi
    if helm status $release -n $namespace >/dev/null 2>&1; then
      helm uninstall $release -n $namespace --wait --timeout 3m || failed=1
    fi
    # By hand, because only the demo knows that nothing in it is wanted.
    kubectl delete apiservice $api_service --ignore-not-found || failed=1
    kubectl -n $namespace delete pvc,secret --all --ignore-not-found --timeout=60s || failed=1
  fi
  if marked tenants tenants; then
    kubectl delete namespace tenants --ignore-not-found --timeout=120s || failed=1
  fi
  if marked release $namespace; then
    kubectl delete namespace $namespace --ignore-not-found --timeout=120s || failed=1
  fi
  return $failed
}

# --- the demo -------------------------------------------------------------------

use_tools() {
  if [ "$CLUSTER" = lab ]; then
    mkdir -p "$state/bin"
    ln -sf "$($LAB path kubectl)" "$state/bin/kubectl"
    ln -sf "$($LAB path helm)" "$state/bin/helm"
    # Commands are printed as `lab ...`: with the PATH that KEEP=1 prints they can be typed.
    if [ -x "$LAB" ]; then ln -sf "$(realpath "$LAB")" "$state/bin/lab"; fi
    PATH=$state/bin:$PATH
  fi
  command -v helm >/dev/null || die "helm is missing: https://helm.sh/docs/intro/install"
  command -v kubectl >/dev/null || die "kubectl is missing (1.32 or later): https://kubernetes.io/docs/tasks/tools"
}

cluster_lab() {
  step "A management cluster" "about 10 s once its programs are built; the first time they are compiled"
  take_claim
  clean_state
  last_command="building the cluster's programs"
  $LAB build
  last_command="building the images"
  "$here/images.sh" dev "$state/images"
  use_tools
  last_command="starting the cluster"
  # What a killed run left makes way.
  $LAB down --name demo >/dev/null 2>&1 || true
  $LAB up --level pods --name demo >/dev/null
  cp "$($LAB kubeconfig --name demo)" "$state/kubeconfig"
  chmod 600 "$state/kubeconfig"
  export KUBECONFIG=$state/kubeconfig
  last_command="loading the images"
  local program
  for program in apiserver controller; do
    $LAB image load --name demo "$state/images/steward-$program.tar"
  done
}

cluster_current() {
  step "Your cluster"
  if [ -z "${IMAGE_APISERVER:-}" ] || [ -z "${IMAGE_CONTROLLER:-}" ]; then
    die "CLUSTER=current needs images that your nodes can pull: make demo CLUSTER=current IMAGE_APISERVER=... IMAGE_CONTROLLER=... (make images builds them; docs/src/how-to/images.md)"
  fi
  use_tools
  mkdir -p "$state"
  # A copy, so that the namespace set below is not set in yours. Until the claim it has
  # a name of its own: a kept demo needs the other one.
  local copy; copy=$(mktemp "$state/kubeconfig.XXXXXX")
  refused_leaves=$copy
  kubectl config view --raw --minify --flatten > "$copy"
  export KUBECONFIG=$copy
  kubectl config current-context
  kubectl get --raw /readyz >/dev/null || die "kubectl does not reach the cluster of this context"
  cluster=$(cluster_id)
  [ -n "$cluster" ] || die "kubectl may not read the namespace kube-system of this cluster, by which the demo knows it again"
  cluster_address=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
  take_claim
  kubectl get apiservice $api_service >/dev/null 2>&1 && refuse "Steward is installed in this cluster already; the demo touches nothing that it did not make"
  local name
  for name in $namespace tenants; do
    kubectl get namespace $name >/dev/null 2>&1 && refuse "Namespace $name exists in this cluster; the demo would remove it at its end. Use another cluster, or rename it."
  done
  clean_state
  mv "$copy" "$state/kubeconfig"
  export KUBECONFIG=$state/kubeconfig
  return 0
}

# refuse WHY: after the claim, of which nothing has been used.
refuse() {
  release_claim
  claimed=no
  die "$1"
}

# What earlier runs left in files, which a look at them afterwards may have needed.
clean_state() { rm -rf "$state"/*.kubeconfig "$state/token.json" "$state/datastore.json" "$state"/before-* "$state"/after-* "$state/join.log" "$state"/made-*; }

demo() {
  mkdir -p "$state"
  trap on_exit EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  cd "$top"
  "cluster_$CLUSTER"
  cd "$state"
  run "kubectl get nodes"
  dump_objects > before-objects

  step "Steward, with helm" "about 30 s"
  ln -sfn "$top/charts" charts
  mark release
  local etcd=etcd.enabled=false
  [ "$DATASTORE" = etcd ] && etcd=etcd.enabled=true,etcd.image.repository=${IMAGE_ETCD%:*},etcd.image.tag=${IMAGE_ETCD##*:}
  run "helm install $release charts/steward --namespace $namespace --create-namespace --wait --timeout 3m \\
    --set image.apiserver.repository=${IMAGE_APISERVER%:*},image.apiserver.tag=${IMAGE_APISERVER##*:} \\
    --set image.controller.repository=${IMAGE_CONTROLLER%:*},image.controller.tag=${IMAGE_CONTROLLER##*:} \\
    --set $etcd > install.txt"
  mark release $namespace
  run "kubectl -n $namespace get pods"

  step "An API of its own"
  run "kubectl wait --for=condition=Available apiservice/$api_service --timeout=120s"
  run "kubectl api-resources --api-group=$group"
  run "kubectl explain tcp.spec.controlPlane.deployment.replicas"

  if [ "$DATASTORE" = etcd ]; then
    step "A DataStore, posted by the set-up of the etcd that came with the chart"
    mark datastore $namespace
    until_ok 180 "DataStore default" kubectl get datastore default
  else
    step "A DataStore: a server beside the cluster ($DATASTORE)" "about 10 s once it is fetched"
    mark datastore $namespace
    run "lab database --name demo $DATASTORE > datastore.json"
    chmod 600 datastore.json
    run "kubectl apply -f datastore.json"
  fi
  run "kubectl wait --for=condition=Ready datastore/default --timeout=120s"
  run "kubectl get datastores"
  if [ "$DATASTORE" = etcd ]; then
    until_ok 60 "the end of the set-up" kubectl -n $namespace wait --for=condition=Complete job -l app.kubernetes.io/component=etcd-setup --timeout=1s
  fi
  mark tenants
  run "kubectl create namespace tenants"
  mark tenants tenants
  kubectl config set-context --current --namespace=tenants >/dev/null
  if [ "$DATASTORE" = etcd ]; then dump_etcd > before-etcd; fi
  dump_objects > before-tenant

  step "A tenant whose version has no image is accepted, and says so"
  # A NodePort has to be in the cluster's range for them, which 6443 and 8132 are not.
  local port=6443 tunnel=8132
  [ "$SERVICE_TYPE" = NodePort ] && port=30443 tunnel=30132
  sed "s/serviceType: LoadBalancer/serviceType: $SERVICE_TYPE/; s/port: 6443/port: $port/; s/port: 8132/port: $tunnel/" "$here/tenant-1.29.yaml" > tenant-1.29.yaml
  # What it asks for is for each container, and with kine there is one more: two replicas
  # would not have room on a node of two processors.
  [ "$DATASTORE" = etcd ] || sed -i 's/cpu: "250m"/cpu: "125m"/' tenant-1.29.yaml
  run "kubectl apply -f tenant-1.29.yaml"
  until_ok 90 "a condition that names the image" sh -c "kubectl get tcp tenant-1 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].message}' | grep -q 1.29.0"
  run "kubectl get tcp tenant-1 -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].message}{\"\\n\"}'"
  run "kubectl delete tcp tenant-1 --timeout=120s"

  step "The same tenant with a version that exists" "about 20 s"
  run "sed 's/\"1.29.0\"/\"$VERSION\"/' tenant-1.29.yaml > tenant-1.yaml"
  local asked; asked=$(date +%s%N)
  run "kubectl apply -f tenant-1.yaml"
  run "kubectl wait --for=condition=Ready tcp/tenant-1 --timeout=300s"
  note "Ready $(awk "BEGIN { printf \"%.1f\", ($(date +%s%N) - $asked) / 1e9 }") s after it was asked for."
  run "kubectl get tcp -o wide"
  run "kubectl get pods"

  step "A kubeconfig, and the tenant as its user sees it"
  run "kubectl get tcp tenant-1 --subresource=kubeconfig -o yaml > tenant-1.kubeconfig"
  chmod 600 tenant-1.kubeconfig
  run "kubectl --kubeconfig tenant-1.kubeconfig get namespaces"
  run "kubectl --kubeconfig tenant-1.kubeconfig create configmap hello --from-literal=from=tenant-1 -n default"
  run "kubectl --kubeconfig tenant-1.kubeconfig get configmap hello -n default -o jsonpath='{.data.from}{\"\\n\"}'"
  run "kubectl --kubeconfig tenant-1.kubeconfig auth whoami"

  if [ "$CLUSTER" = lab ]; then worker_joins; fi

  step "More and fewer replicas"
  run "kubectl scale tcp tenant-1 --replicas=1"
  until_ok 120 "one replica" replicas_are 1
  run "kubectl scale tcp tenant-1 --replicas=2"
  until_ok 240 "two ready replicas" replicas_are 2
  run "kubectl get tcp,pods"
  run "kubectl --kubeconfig tenant-1.kubeconfig get configmap hello -n default"

  step "Nothing is left of a tenant"
  run "kubectl delete tcp tenant-1 --timeout=180s"
  until_ok 120 "the end of its pods" sh -c '[ -z "$(kubectl get pods -o name)" ]'
  until_ok 120 "the end of its objects" objects_equal
  dump_objects > after-tenant
  compare before-tenant after-tenant "Objects in the cluster"
  if [ "$DATASTORE" = etcd ]; then
    dump_etcd > after-etcd
    compare before-etcd after-etcd "Keys, users and roles in etcd"
  else
    note "What is left in the database is not compared here; the end-to-end tests do."
  fi
  until_ok 30 "a DataStore that knows that nobody uses it" \
    kubectl wait --for=condition=DataStoreAllowedDeletion datastore/default --timeout=1s

  # The list is that of an installation with etcd.
  if [ "$CLUSTER" = lab ] && [ "$DATASTORE" = etcd ]; then
    last_command="comparing the rights of Steward with what it asked for"
    "$here/rights.sh" "$(dirname "$($LAB kubeconfig --name demo)")/logs/audit.log"
  fi

  close_step
  finished=yes
  printf '\nAll %d steps in %d s:\n%s' "$total" $((SECONDS - began)) "$table"
}

# A machine of its own, as far as that goes on one: containerd, kubelet and kubeadm.
worker_joins() {
  step "A machine joins the tenant, and runs pods" "about 40 s"
  local tokens=/apis/$group/v1alpha1/namespaces/tenants/tenantcontrolplanes/tenant-1/jointoken
  run "lab worker --name demo up 1"
  run "kubectl wait --for=condition=ClusterConfigured tcp/tenant-1 --timeout=60s"
  run "echo '{}' | kubectl create --raw $tokens -f - > token.json"
  chmod 600 token.json
  local join
  join=$(sed -n 's/.*"command": *"\([^"]*\)".*/\1/p' token.json)
  [ -n "$join" ] || die "the answer has no command: $(sed 's/"token": *"[^"]*"/"token": "..."/' token.json)"
  run "kubectl get tcp tenant-1 --subresource=jointoken"
  joining=yes
  last_command="the line that was printed: kubeadm join ..."
  printf '%s# kubeadm join %s ...%s\n' "$bold" "$(printf '%s' "$join" | cut -d' ' -f3)" "$plain"
  # shellcheck disable=SC2086 # its words
  lab worker --name demo join 1 $join > join.log 2>&1 || die "the machine cannot join"
  # On an empty list `kubectl wait --all` fails at once.
  until_ok 60 "the Node of the machine" sh -c '[ -n "$(kubectl --kubeconfig tenant-1.kubeconfig get nodes -o name)" ]'
  run "kubectl --kubeconfig tenant-1.kubeconfig wait --for=condition=Ready node --all --timeout=60s"
  run "kubectl --kubeconfig tenant-1.kubeconfig get nodes"
  run "kubectl --kubeconfig tenant-1.kubeconfig -n kube-system rollout status deployment/coredns --timeout=90s"
  run "kubectl --kubeconfig tenant-1.kubeconfig apply -f $here/web.yaml"
  run "kubectl --kubeconfig tenant-1.kubeconfig rollout status deployment/web --timeout=90s"
  until_ok 60 "an answer by name" kubectl --kubeconfig tenant-1.kubeconfig exec deploy/web -- timeout 3 wget -qO- http://web.default.svc.cluster.local/
  run "kubectl --kubeconfig tenant-1.kubeconfig exec deploy/web -- wget -qO- http://web.default.svc.cluster.local/"
  run "kubectl --kubeconfig tenant-1.kubeconfig logs deploy/web | tail -2"
  run "kubectl --kubeconfig tenant-1.kubeconfig delete -f $here/web.yaml --timeout=60s"
  run "kubectl --kubeconfig tenant-1.kubeconfig delete node --all"
  run "lab worker --name demo reset 1 > /dev/null"
  run "lab worker --name demo down 1"
  joining=no
}

lab() { $LAB "$@"; }

replicas_are() {
  [ "$(kubectl get deployment tenant-1 -o jsonpath='{.status.replicas}/{.status.readyReplicas}/{.status.updatedReplicas}')" = "$1/$1/$1" ] \
    && [ "$(kubectl get tcp tenant-1 -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

objects_equal() {
  dump_objects > after-tenant
  cmp -s before-tenant after-tenant
}

# Before anything is compiled.
check_settings() {
  case $CLUSTER in
    lab | current) ;;
    *) echo "demo: CLUSTER is lab or current, not $CLUSTER" >&2; exit 2 ;;
  esac
  case $DATASTORE in
    etcd) ;;
    postgresql | mysql | nats)
      [ "$CLUSTER" = lab ] || { echo "demo: DATASTORE=$DATASTORE starts a server beside a cluster of the lab; on your own, provide a DataStore (docs/src/how-to/datastore.md)" >&2; exit 2; }
      ;;
    *) echo "demo: DATASTORE is etcd, postgresql, mysql or nats, not $DATASTORE" >&2; exit 2 ;;
  esac
}

case "${1:-up}" in
  # Before anything is compiled.
  check) check_settings; refuse_held ;;
  up) check_settings; demo ;;
  down)
    cd "$top"
    may_take_away
    take_down
    ;;
  *) echo "usage: demo.sh [check|up|down]" >&2; exit 2 ;;
esac
