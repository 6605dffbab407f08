#!/usr/bin/env bash
# What demo.sh may take away, tried on programs that only write down what they were
# told: the real ones make clusters (judge.sh). A demo that is refused deletes nothing;
# what a kept demo made is known by its cluster; and a kept or running demo stays until
# somebody says so, whichever clone it belongs to.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
demo=$PWD/tests/demo/demo.sh

fail() { echo "claims: $1" >&2; sed 's/^/    /' "$out/said" >&2; exit 1; }

# --- programs that write down what they were told ---------------------------------
# The cluster is a directory: `id`, and a file for each namespace with its uid.

mkdir -p "$out/bin" "$out/cluster"
cat > "$out/bin/kubectl" <<'SCRIPT'
#!/usr/bin/env bash
case "$*" in
  *" delete "*|"delete "*) echo "kubectl $*" >> "$TRIED/deleted" ;;
esac
case "$*" in
  "config view"*jsonpath*) echo -n https://fake:6443 ;;
  "config view"*) echo "kind: Config" ;;
  "get namespace kube-system"*) [ -s "$TRIED/cluster/id" ] && cat "$TRIED/cluster/id" ;;
  "get namespace "*) [ -s "$TRIED/cluster/$3" ] && cat "$TRIED/cluster/$3" ;;
  "api-resources "*) echo pods ;;
  "get apiservice "*) [ -s "$TRIED/cluster/apiservice" ] ;;
  "delete namespace "*) rm -f "$TRIED/cluster/$3" ;;
  "delete apiservice "*) rm -f "$TRIED/cluster/apiservice" ;;
esac
SCRIPT
cat > "$out/bin/helm" <<'SCRIPT'
#!/usr/bin/env bash
case "$1" in
  uninstall) echo "helm $*" >> "$TRIED/deleted" ;;
  # Whoever asks the demo to stand still here does so until it is killed.
  install) [ -e "$TRIED/stall" ] && exec sleep 60; echo of-the-demo > "$TRIED/cluster/steward-system"; exit 1 ;;
esac
SCRIPT
cat > "$out/bin/lab" <<'SCRIPT'
#!/usr/bin/env bash
case "$1" in
  list) [ ! -e "$TRIED/run" ] || printf 'demo\tup\t/runs/demo\n' ;;
  up) touch "$TRIED/run"; [ -e "$TRIED/stall" ] && exec sleep 60; exit 1 ;;
  down) [ ! -e "$TRIED/run" ] || echo "lab $*" >> "$TRIED/deleted"; rm -f "$TRIED/run" ;;
  path) echo "$TRIED/bin/$2" ;;
esac
SCRIPT
chmod +x "$out"/bin/*
# In the place of images.sh, beside which demo.sh looks.
for clone in one two; do
  mkdir -p "$out/$clone/tests/demo"
  cp tests/demo/{demo,claim,evidence}.sh tests/demo/*.yaml "$out/$clone/tests/demo/"
  printf '#!/bin/sh\n' > "$out/$clone/tests/demo/images.sh"
  chmod +x "$out/$clone/tests/demo/images.sh"
done
export TRIED=$out PATH=$out/bin:$PATH LAB=$out/bin/lab STEWARD_LAB_DIR=$out/lab
unset CARGO_TARGET_DIR KUBECONFIG

# tries CLONE WORD [SETTING...]: runs demo.sh there; its exit code is `code`.
tries() {
  local clone=$1 word=$2; shift 2
  rm -f "$out/deleted"
  code=0
  timeout 30 env IMAGE_APISERVER=a:1 IMAGE_CONTROLLER=c:1 "$@" "$out/$clone/tests/demo/demo.sh" "$word" > "$out/said" 2>&1 || code=$?
}
said() { grep -qF -- "$1" "$out/said" || fail "$2: it does not say \"$1\""; }
deletes() { grep -qF -- "$1" "$out/deleted" 2>/dev/null || fail "$2: no \"$1\""; }
deletes_nothing() { [ ! -s "$out/deleted" ] || { cat "$out/deleted" >&2; fail "$1 deleted the above"; }; }
refused() { [ "$code" = 1 ] || fail "$1 was not refused (exit code $code)"; said "$2" "$1"; deletes_nothing "$1"; }
# stalls CLONE SETTING...: begins one that stands still in the middle, and waits for it.
stalls() {
  local clone=$1 file=$2; shift 2
  touch "$out/stall"
  setsid env IMAGE_APISERVER=a:1 IMAGE_CONTROLLER=c:1 "$@" "$out/$clone/tests/demo/demo.sh" up > "$out/running" 2>&1 &
  running=$!
  for _ in $(seq 100); do [ -e "$file" ] && return; sleep 0.1; done
  cp "$out/running" "$out/said"; fail "a demo that should run does not"
}
# kills it as kill -9 does, with what it started.
kills() { kill -KILL -- "-$running"; wait "$running" 2>/dev/null || true; rm -f "$out/stall"; }

# --- somebody's cluster -------------------------------------------------------------

echo first-cluster > "$out/cluster/id"
current="$out/one/target/demo-current"

tries one up CLUSTER=current KEEP=1
[ "$code" = 1 ] && [ -s "$current/made-release" ] || fail "the demo does not fail with its helm"
deletes_nothing "a demo that is kept"
said "export KUBECONFIG=$current/kubeconfig" "a failed demo that is kept"

tries one up CLUSTER=current
refused "a demo where one is kept" "make demo-down CLUSTER=current"
[ -s "$current/kubeconfig" ] || fail "the refused demo took the kept one's kubeconfig"
tries one up CLUSTER=current KEEP=1
refused "a second demo that is to be kept" "make demo-down CLUSTER=current"

# The same records, and another cluster, whose Steward is its owner's.
echo second-cluster > "$out/cluster/id"
echo of-the-owner > "$out/cluster/tenants"
tries one down CLUSTER=current
deletes_nothing "demo-down on another cluster than the demo's"
rm -rf "$out/one/target"
# Records without a cluster, as earlier versions left them, beside a refused run.
mkdir -p "$current" "$out/one/target/demo"
touch "$current"/made-{release,tenants,datastore} "$out/one/target/demo"/made-{release,tenants,datastore}
touch "$out/one/target/demo/kubeconfig"; mkdir -p "$out/one/target/demo/bin"
tries one up CLUSTER=current
refused "a demo where the namespaces exist" "exists in this cluster"
{ [ -e "$out/one/target/demo/kubeconfig" ] && [ -d "$out/one/target/demo/bin" ]; } || fail "the demo on somebody's cluster took what belongs to the lab's"
rm -rf "$out/one/target" "$out/cluster/tenants" "$out/cluster/steward-system"

# The whole way: kept, and taken away by its own words.
tries one up CLUSTER=current KEEP=1
tries one down CLUSTER=current
deletes "delete namespace steward-system" "demo-down of a kept demo"
[ ! -e "$current/kubeconfig" ] || fail "demo-down left the kubeconfig"
# The namespace was removed by hand, and is somebody else's now.
tries one up CLUSTER=current KEEP=1
echo of-the-owner > "$out/cluster/steward-system"
tries one down CLUSTER=current
deletes_nothing "demo-down after the namespace was made anew"
rm -f "$out/cluster/steward-system"
# It fails and is not kept: then it takes away what it made.
tries one up CLUSTER=current
deletes "delete namespace steward-system" "a failed demo"
said "Nothing of the demo is left." "a failed demo"
# Without an answer nothing is forgotten, unless told so.
tries one up CLUSTER=current KEEP=1
: > "$out/cluster/id"
tries one down CLUSTER=current
[ "$code" != 0 ] && [ -s "$current/kubeconfig" ] || fail "demo-down forgot a cluster that did not answer"
tries one down CLUSTER=current FORCE=1
[ "$code" = 0 ] && [ ! -e "$current/kubeconfig" ] || fail "FORCE=1 does not forget it"
echo second-cluster > "$out/cluster/id"; rm -f "$out/cluster/steward-system"
# Killed: refused until it was taken away.
stalls one "$current/made-release" CLUSTER=current
tries one up CLUSTER=current
refused "a demo beside a running one" "A demo is running: process $running"
tries one down CLUSTER=current
refused "demo-down of a running demo" "Ctrl-C"
kills
tries one up CLUSTER=current
refused "a demo after a killed one" "make demo-down CLUSTER=current"
tries one down CLUSTER=current
deletes "helm uninstall" "demo-down after a killed demo" 2>/dev/null || deletes "delete namespace steward-system" "demo-down after a killed demo"

# --- the lab's cluster --------------------------------------------------------------

tries one up KEEP=1 CLUSTER=lab
[ "$code" = 1 ] && deletes "lab down" "a demo whose cluster did not start"
# One that stands, as KEEP=1 leaves it.
stalls one "$out/run" CLUSTER=lab
tries two up CLUSTER=lab
refused "a demo beside a running one of another clone" "of $out/one"
tries two down CLUSTER=lab FORCE=1
refused "demo-down of a running demo of another clone" "of $out/one"
kills
sed -i 's/^kept no$/kept yes/' "$out/lab/demo.claim"
tries one up CLUSTER=lab
refused "a demo where one is kept" "make demo-down"
tries two up CLUSTER=lab
refused "a demo where another clone's is kept" "make -C $out/one demo-down"
tries two down CLUSTER=lab
refused "demo-down of another clone's kept demo" "FORCE=1"
tries two down CLUSTER=lab FORCE=1
deletes "lab down" "FORCE=1"
# Kept, and gone since with the machine's restart: nobody has it.
printf '%s\n' "clone $out/one" "pid 1" "birth none" "since 1" "kept yes" > "$out/lab/demo.claim"
tries two up CLUSTER=lab
deletes "lab down" "a demo after a kept one that is gone"
# Killed: it makes way at once, whichever clone it belongs to.
stalls one "$out/run" CLUSTER=lab
kills
tries two up CLUSTER=lab
deletes "lab down" "a demo after a killed one"
# A cluster of that name that no demo wrote down.
touch "$out/run"
tries one up CLUSTER=lab
refused "a demo beside a cluster of its name" "make demo-down"
tries one down CLUSTER=lab
deletes "lab down" "demo-down of it"
echo "claims: a refused demo takes nothing away; kept and running ones stay; killed ones make way"
