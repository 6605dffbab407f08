#!/usr/bin/env bash
# The demo as a test: it ends well and leaves the machine as it was.
#   judge.sh         on a cluster of its own, and on a stranger's (CLUSTER=current)
#   judge.sh --all   also interrupted, killed, and twice in a row
set -euo pipefail
cd "$(dirname "$0")/../.."
# The same programs that the tests have compiled.
export PROFILE=${PROFILE:-dev} KEEP=0 CLUSTER=lab
export LAB=${LAB:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/lab}
logs=$(realpath -m "${CARGO_TARGET_DIR:-target}")/logs/judge
mkdir -p "$logs"
stranger=stranger

fail() { echo "judge: $1" >&2; exit 1; }
trap '$LAB down --name $stranger >/dev/null 2>&1 || true' EXIT

# What a run called demo or stranger holds on this machine: links, mounts,
# control groups, processes, directories. (Other runs may be up beside them.)
held() {
  local run
  for run in demo $stranger; do
    ip -o link show | grep -oE "stl-$run\\b" || true
    awk '{ print "mount " $2 }' /proc/mounts | grep -E "/runs/$run(/|$)" || true
    find /sys/fs/cgroup -type d -name "steward-lab-$run" -printf 'cgroup %p\n' 2>/dev/null || true
    grep -lE "/steward-lab-$run(/|$)" /proc/[0-9]*/cgroup 2>/dev/null | sed 's/^/process in its control group: /' || true
    find "${STEWARD_LAB_DIR:-/var/lib/steward-lab}/runs" -maxdepth 1 -name "$run" -printf 'directory %p\n' 2>/dev/null || true
  done
  # The limit is restored when the last run has gone.
  [ -n "$($LAB list)" ] || [ "$(cat /proc/sys/fs/inotify/max_user_instances)" = "$instances" ] || echo "inotify limit"
}
# nothing_left AFTER: what ends takes a moment to be gone.
nothing_left() {
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$(held)" ] && return
    sleep 1
  done
  held >&2
  fail "$1 left something on this machine (above)"
}
# A run that has just ended puts the limit back within a second or two.
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -z "$($LAB list)" ] && break; sleep 1; done
instances=$(cat /proc/sys/fs/inotify/max_user_instances)
# demo NAME ARGUMENTS...: runs it with its output in a file.
demo() {
  local name=$1; shift
  echo "judge: $name (output: $logs/$name.log)"
  env "$@" tests/demo/demo.sh > "$logs/$name.log" 2>&1
}

demo lab || { tail -n 40 "$logs/lab.log" >&2; fail "the demo failed"; }
nothing_left "the demo"
grep -A20 '^All ' "$logs/lab.log"

echo "judge: a stranger's cluster"
$LAB up --level pods --name $stranger >/dev/null 2>&1
stranger_config=$($LAB kubeconfig --name $stranger)
images=${CARGO_TARGET_DIR:-target}/demo/images
for program in apiserver controller; do
  $LAB image load --name $stranger "$images/steward-$program.tar"
done
PATH=$(dirname "$($LAB path kubectl)"):$(dirname "$($LAB path helm)"):$PATH
demo current CLUSTER=current KUBECONFIG="$stranger_config" IMAGE_ETCD=registry.k8s.io/etcd:3.6.15-0 \
  IMAGE_APISERVER=localhost/steward-apiserver:dev IMAGE_CONTROLLER=localhost/steward-controller:dev \
  || { tail -n 40 "$logs/current.log" >&2; fail "the demo failed on a stranger's cluster"; }
grep -q '^Your cluster: equal' "$logs/current.log" || fail "the demo did not compare the stranger's cluster before and after"
# What is there already is refused, and stays.
kubectl --kubeconfig "$stranger_config" create namespace tenants > /dev/null
if demo refused CLUSTER=current KUBECONFIG="$stranger_config" IMAGE_APISERVER=x:1 IMAGE_CONTROLLER=x:1; then
  fail "the demo took a namespace of the stranger's for its own"
fi
grep -q 'exists in this cluster' "$logs/refused.log" || { tail "$logs/refused.log" >&2; fail "the refusal does not say why"; }
[ "$(kubectl --kubeconfig "$stranger_config" get namespace tenants -o jsonpath='{.status.phase}')" = Active ] \
  || fail "a refused demo removed a namespace of the stranger's"
$LAB down --name $stranger
nothing_left "the demo on a stranger's cluster"

[ "${1:-}" = --all ] || exit 0

for signal in INT TERM KILL; do
  for moment in '^\[1/' '^\[2/' '^\[6/'; do
    echo "judge: SIG$signal at step ${moment//[^0-9]/}"
    # A background job of a script ignores SIGINT unless told otherwise.
    setsid env --default-signal=INT tests/demo/demo.sh > "$logs/killed.log" 2>&1 &
    pid=$!
    until grep -q "$moment" "$logs/killed.log"; do
      kill -0 $pid 2>/dev/null || fail "the demo ended before step $moment"
      sleep 0.2
    done
    sleep 3
    kill -$signal -- -$pid
    wait $pid 2>/dev/null || true
    # After kill -9 the next run removes what is left; here the sweep alone.
    [ "$signal" = KILL ] && { tests/demo/demo.sh down >/dev/null 2>&1 || true; }
    nothing_left "the demo, ended by SIG$signal"
  done
done
demo again || fail "the demo failed after all that"
nothing_left "the demo"
