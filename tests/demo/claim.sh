# Whose demo it is. There is one of a kind: one lab cluster called demo on a machine,
# whatever clone it is run from, and one cluster of somebody's in a clone. Who has it
# is written in a file; what a run made in somebody's cluster, in others beside it.
# Sourced by demo.sh (CLUSTER, LAB, state, release, namespace, die, note).

if [ "$CLUSTER" = lab ]; then
  claim=${STEWARD_LAB_DIR:-/var/lib/steward-lab}/demo.claim
else
  claim=$state/claim
fi
# Whether this process holds the claim: only then does its end take anything away.
claimed=no
# How `make` is asked for the same kind of cluster.
make_words="$([ "$CLUSTER" = lab ] || echo " CLUSTER=$CLUSTER")"

# word NAME FILE: what stands behind NAME in a file of such lines.
word() { sed -n "s/^$1 //p" "$2" 2>/dev/null | head -n 1; }

# When a process began, in the kernel's ticks; nothing if it has ended.
birth() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # Behind the name, which may have blanks: state, and 18 more before the start.
  # shellcheck disable=SC2086,SC2046 # its words
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}"
}

write_claim() {
  mkdir -p "$(dirname "$claim")"
  {
    echo "clone $top"
    echo "pid $$"
    echo "birth $(birth $$)"
    echo "since $(date +%s)"
    echo "kept $1"
    [ -z "${cluster_address:-}" ] || echo "address $cluster_address"
  } > "$claim.new"
  mv "$claim.new" "$claim"
}

# free: nobody has it. running: a process has it. kept: KEEP=1 left it. dead: its
# process was killed. unknown: a cluster of that name that no demo has written down.
standing() {
  local pid there=yes
  if [ "$CLUSTER" = lab ]; then
    if [ -x "${LAB%% *}" ] || command -v "${LAB%% *}" >/dev/null; then
      there=$($LAB list 2>/dev/null | awk -F '\t' '$1 == "demo" { print ($2 == "up" || $2 == "starting") ? "yes" : "ruin" }')
    else
      # The lab is not built yet.
      there=$([ -d "$(dirname "$claim")/runs/demo" ] && echo yes || true)
    fi
  fi
  if [ ! -s "$claim" ]; then
    [ "$CLUSTER" = lab ] && [ "$there" = yes ] && echo unknown || echo free
    return
  fi
  pid=$(word pid "$claim")
  if [ -n "$pid" ] && [ -n "$(word birth "$claim")" ] && [ "$(birth "$pid")" = "$(word birth "$claim")" ]; then
    echo running
  elif [ "$(word kept "$claim")" = yes ] && [ "$there" = yes ]; then
    echo kept
  else
    echo dead
  fi
}

# For how long it has been there, in words.
age() {
  local since seconds
  since=$(word since "$claim")
  seconds=$(($(date +%s) - ${since:-0}))
  if [ $seconds -lt 120 ]; then echo "$seconds s"
  elif [ $seconds -lt 7200 ]; then echo "$((seconds / 60)) min"
  else echo "$((seconds / 3600)) h"; fi
}

# How the one who has it takes it away, in one line.
way_out() {
  local clone; clone=$(word clone "$claim")
  if [ "$clone" = "$top" ] || [ -z "$clone" ]; then echo "make demo-down$make_words"
  elif [ -d "$clone" ]; then echo "make -C $clone demo-down$make_words   (or here, whoever it belongs to: make demo-down$make_words FORCE=1)"
  else echo "make demo-down$make_words FORCE=1"; fi
}

refuse_running() {
  die "A demo is running: process $(word pid "$claim") of $(word clone "$claim"), for $(age). Wait for its end, or press Ctrl-C there."
}

# Refuses if somebody has it; says what is removed first if its process was killed.
refuse_held() {
  case $(standing) in
    running) refuse_running ;;
    kept) die "A demo is kept (KEEP=1) by $(word clone "$claim"), for $(age)$(at_address). To take it away: $(way_out)" ;;
    unknown) die "A cluster of the lab called demo is up already. To take it away: make demo-down" ;;
    dead)
      # What a killed run left in somebody's cluster goes when somebody says so.
      [ "$CLUSTER" = lab ] || [ -z "$(marks)" ] \
        || die "A demo that was killed $(age) ago left things in the cluster$(at_address). To take them away: $(way_out)"
      [ "$CLUSTER" != lab ] || note "A demo that began $(age) ago was killed (process $(word pid "$claim")): what it left is removed first." ;;
  esac
}

# take_claim: for this process; refuses if somebody has it.
take_claim() {
  mkdir -p "$(dirname "$claim")"
  exec 9> "$claim.lock"
  flock 9
  refuse_held
  write_claim no
  claimed=yes
  exec 9>&-
}

at_address() {
  local address; address=$(word address "$claim")
  [ -z "$address" ] || echo " at $address"
}

# Whether this process has the claim still.
claim_is_ours() { [ "$claimed" = yes ] && [ "$(word pid "$claim")" = $$ ]; }

# For `demo.sh down`: whether what stands may be taken away by this clone.
may_take_away() {
  case $(standing) in
    running) refuse_running ;;
    kept)
      [ "$(word clone "$claim")" = "$top" ] || [ "${FORCE:-0}" = 1 ] \
        || die "The demo that is kept belongs to $(word clone "$claim"), for $(age). To take it away: $(way_out)" ;;
  esac
}

# The lock stays: somebody may wait for it.
release_claim() { rm -f "$claim"; }

# --- what a run made in somebody's cluster -----------------------------------

# Which cluster kubectl speaks to: the identity of its namespace kube-system.
# `cluster` holds it while the demo runs.
cluster=""
cluster_id() { kubectl get namespace kube-system -o jsonpath='{.metadata.uid}' --request-timeout=20s 2>/dev/null; }

namespace_id() { kubectl get namespace "$1" -o jsonpath='{.metadata.uid}' --request-timeout=20s 2>/dev/null || true; }

# mark WHAT [NAMESPACE]: written before WHAT is made, and again once its namespace
# is there.
mark() {
  [ "$CLUSTER" = lab ] && return 0
  { echo "cluster $cluster"; [ -z "${2:-}" ] || echo "namespace $(namespace_id "$2")"; } > "$state/made-$1.new"
  mv "$state/made-$1.new" "$state/made-$1"
}

marks() { find "$state" -maxdepth 1 -name 'made-*' 2>/dev/null; }

# marked WHAT [NAMESPACE]: whether the demo made it, in this very cluster; and
# whether the namespace is still the one that it made.
marked() {
  local here made
  [ -s "$state/made-$1" ] || return 1
  here=$(cluster_id)
  [ -n "$here" ] && [ "$(word cluster "$state/made-$1")" = "$here" ] || return 1
  made=$(word namespace "$state/made-$1")
  [ -z "${2:-}" ] || [ -z "$made" ] || [ "$made" = "$(namespace_id "$2")" ]
}
