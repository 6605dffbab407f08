# Functions for the steps.

# watch N CHANGE ARGUMENTS...: what `kubectl get -w` prints until it has printed
# N lines; CHANGE is run once it has listed.
watch() {
    wanted=$1 change=$2
    shift 2
    : >watched
    kubectl get -w "$@" >watched 2>&1 &
    watcher=$!
    lines 1
    eval "$change" >/dev/null
    lines "$wanted"
    kill $watcher
    cat watched
}

# Waits until the file `watched` has that many lines.
lines() {
    for _ in $(seq 400); do
        test "$(wc -l <watched)" -ge "$1" && return
        sleep 0.05
    done
}
