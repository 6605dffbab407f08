# What the demo finds out about a cluster: what is there before and after, and after a
# failure why. Sourced by demo.sh (namespace, state, IMAGE_ETCD, LAB, die, note).

# --- what is there, before and after ----------------------------------------

# Every object of the cluster that outlives minutes, one a line.
dump_objects() {
  local kinds
  kinds=$(kubectl api-resources --verbs=list -o name --request-timeout=20s \
    | grep -vxE 'endpoints|certificatesigningrequests\.certificates\.k8s\.io|events(\.events\.k8s\.io)?|componentstatuses|leases\.coordination\.k8s\.io|ipaddresses\.networking\.k8s\.io|(nodes|pods)\.metrics\.k8s\.io' \
    | sort -u | paste -sd,)
  kubectl get "$kinds" --all-namespaces --ignore-not-found --no-headers \
    -o custom-columns='K:.kind,NS:.metadata.namespace,N:.metadata.name' | sort
}

# Keys, users and roles of the tenants' etcd: a Pod that shows root's
# certificate asks, one container a question.
dump_etcd() {
  local pod=etcd-dump
  kubectl -n $namespace delete pod $pod --ignore-not-found --wait=true >/dev/null
  kubectl -n $namespace apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $pod}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  volumes: [{name: tls, secret: {secretName: steward-etcd-certs}}]
  containers:
$(dump_container keys get / --prefix --keys-only)
$(dump_container users user list)
$(dump_container roles role list)
YAML
  local end=$((SECONDS + 60)) phase=""
  until [ "$phase" = Succeeded ]; do
    phase=$(kubectl -n $namespace get pod $pod -o jsonpath='{.status.phase}')
    if [ "$phase" = Failed ] || [ $SECONDS -ge $end ]; then
      kubectl -n $namespace logs $pod --all-containers --prefix >&2 || true
      die "etcd's keys, users and roles could not be read"
    fi
    sleep 0.5
  done
  kubectl -n $namespace logs $pod --all-containers --prefix | sed -E "s|^\[pod/$pod/([a-z]+)\] |\1 |" | grep -vE '^[a-z]+ *$' | sort
  kubectl -n $namespace delete pod $pod --wait=true >/dev/null
}

dump_container() {
  local name=$1; shift
  local words; words=$(printf '"%s",' "$@")
  cat <<YAML
  - name: $name
    image: $IMAGE_ETCD
    command: [etcdctl, "--endpoints=https://steward-etcd-client.$namespace.svc.cluster.local:2379",
              --cacert=/tls/ca.crt, --cert=/tls/tls.crt, --key=/tls/tls.key, ${words%,}]
    volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
YAML
}

# compare BEFORE AFTER WHAT
compare() {
  if diff -u "$1" "$2" > "$state/left.diff"; then
    note "$3: equal before and after ($(wc -l < "$1") lines)"
  else
    cat "$state/left.diff" >&2
    die "$3: something was left behind (lines with + above)"
  fi
}

# --- why it failed ------------------------------------------------------------

# Objects with those of their conditions that are not as they should be: most should
# be True, and a few are True while something is under way or in the way.
unwell='{{range .items}}{{.kind}}/{{.metadata.name}}{{"\n"}}{{range .status.conditions}}{{$usual := "True"}}{{if or (eq .type "Progressing") (eq .type "Reconciling") (eq .type "Paused") (eq .type "DeletionBlocked")}}{{$usual = "False"}}{{else if eq .type "DataStoreAllowedDeletion"}}{{$usual = .status}}{{end}}{{if and (ne .status $usual) (ne .reason "AsExpected")}}{{"  "}}{{.type}}={{.status}} {{.reason}}: {{.message}}{{"\n"}}{{end}}{{end}}{{end}}'

# What containers that do not run said last.
ended='{{range .items}}{{$pod := .metadata.name}}{{range .status.containerStatuses}}{{$name := .name}}{{with .state.waiting}}{{with .message}}{{"  "}}{{$pod}}, {{$name}}: {{.}}{{"\n"}}{{end}}{{end}}{{with .lastState.terminated}}{{with .message}}{{"  "}}{{$pod}}, {{$name}}: {{.}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}'

# Why, in the cluster's own words; the whole of it goes into files.
diagnose() {
  local out
  out=$state/failure-$(date +%H%M%S)
  mkdir -p "$out"
  {
    kubectl get pods -A -o wide
    kubectl get apiservice $api_service -o yaml
    kubectl get tcp,datastores -A -o yaml
    kubectl describe pods -n $namespace
    kubectl describe pods -n tenants
    kubectl get events -A --sort-by=.lastTimestamp
  } > "$out/cluster.txt" 2>&1 || true
  local name
  for name in deploy/steward-apiserver deploy/steward-controller statefulset/steward-etcd; do
    kubectl -n $namespace logs "$name" --all-containers --tail=2000 > "$out/${name#*/}.log" 2>&1 || true
  done
  kubectl -n $namespace logs -l app.kubernetes.io/component=etcd-setup --tail=500 > "$out/etcd-setup.log" 2>&1 || true
  if [ "$joining" = yes ]; then
    # Without the token, should kubeadm have printed it.
    sed -E 's/[a-z0-9]{6}\.[a-z0-9]{16}/TOKEN/g' "$state/join.log" > "$out/join.log" 2>/dev/null || true
    $LAB logs --name demo w1-kubelet > "$out/w1-kubelet.log" 2>/dev/null || true
    kubectl --kubeconfig "$state/tenant-1.kubeconfig" get nodes,pods -A -o wide --request-timeout=10s > "$out/tenant.txt" 2>&1 || true
  fi
  echo "What the cluster says:" >&2
  kubectl get tcp,datastores -A -o go-template="$unwell" >&2 2>/dev/null || true
  kubectl get pods -A --no-headers 2>/dev/null | awk '$4 != "Running" && $4 != "Completed" { print "  pod " $1 "/" $2 ": " $4 }' >&2 || true
  kubectl get pods -A -o go-template="$ended" >&2 2>/dev/null || true
  local log
  for log in "$out"/*.log; do
    [ -s "$log" ] && { echo "The end of $log:"; tail -n 4 "$log" | cut -c1-400 | sed 's/^/  /'; } >&2
  done
  echo "Everything: $out" >&2
}
