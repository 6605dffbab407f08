# Functions for the steps.

G=steward.butlerlabs.dev
A=/apis/$G/v1alpha1
N=$A/namespaces/tenants/tenantcontrolplanes

# kubectl in the namespace of the tenants.
k() { kubectl -n tenants "$@"; }

# rv TENANT: its resourceVersion.
rv() { k get tcp "$1" -o jsonpath='{.metadata.resourceVersion}'; }

# cond TENANT TYPE: "status reason: message" of a condition.
cond() {
    k get tcp "$1" -o jsonpath="{range .status.conditions[?(@.type=='$2')]}{.status} {.reason}: {.message}{end}"
}

# told KIND/NAME: all conditions that are not True.
told() {
    k get "$1" -o jsonpath='{range .status.conditions[?(@.status!="True")]}{.type} {.status} {.reason}: {.message}{"\n"}{end}'
}

# args TENANT CONTAINER: the command line of a container, one argument a line.
args() {
    c="@.name=='$2'"
    k get deploy "$1" -o jsonpath="{range .spec.template.spec.containers[?($c)].command[*]}{@}{\"\n\"}{end}{range .spec.template.spec.containers[?($c)].args[*]}{@}{\"\n\"}{end}"
}

# images TENANT: the images of its pods, one a line.
images() {
    k get deploy "$1" -o jsonpath='{range .spec.template.spec.containers[*]}{.image}{"\n"}{end}'
}

# certificate TENANT: what its API server serves, as PEM.
certificate() {
    k get secret "$1-api-server-certificate" -o jsonpath='{.data.apiserver\.crt}' | base64 -d
}

# endpoint TENANT
endpoint() { k get tcp "$1" -o jsonpath='{.status.controlPlaneEndpoint}'; }

# settle KIND/NAME: returns when nobody has written to it for a second and a half.
settle() {
    coproc exec kubectl -n tenants get "$1" -w -o jsonpath='{.metadata.resourceVersion}{"\n"}' 2>/dev/null
    wait=10
    while read -r -t $wait _ <&"${COPROC[0]}"; do wait=1.5; done
    kill "$COPROC_PID"
    [ $wait != 10 ]
}

# calm KIND/NAME SECONDS: says CALM if nobody writes to it for so long.
calm() {
    before=$(k get "$1" -o jsonpath='{.metadata.resourceVersion}')
    sleep "$2"
    after=$(k get "$1" -o jsonpath='{.metadata.resourceVersion}')
    if [ "$before" = "$after" ]; then echo CALM; else echo "WRITTEN $before $after"; fi
}

# through PATH ARGUMENTS...: curl with the rights of kubectl, the bytes as they are.
through() {
    rm -f proxy.sock
    kubectl proxy --unix-socket=proxy.sock >proxy.log 2>&1 &
    for _ in $(seq 100); do [ -S proxy.sock ] && break || sleep 0.05; done
    path=$1
    shift
    curl -sS -m 30 --unix-socket proxy.sock "http://localhost$path" "$@"
    code=$?
    kill $!
    return $code
}

# code ARGUMENTS: those of `through`; only the status code of the answer.
code() { through "$@" -o answer -w '%{http_code}\n'; }

# patched TENANT TYPE PATCH: the status code of a patch (merge-patch, json-patch).
patched() { code "$N/$1" -X PATCH -H "Content-Type: application/$2+json" -d "$3"; }

# patch TENANT PATCH: a merge patch.
patch() { k patch tcp "$1" --type=merge -p "$2"; }

# restart: restarts the API server and waits until it serves again.
restart() {
    : >"$RESTART"
    while [ -e "$RESTART" ]; do sleep 0.1; done
}

# sweep CASE: deletes its tenants, which are named after it.
sweep() {
    all=$(k get tcp -o name | grep "/f${1#C}")
    [ -z "$all" ] || k delete $all --wait=false
}

# served TENANT: the certificate at its endpoint, as PEM.
served() { curl -sk -m 10 -o /dev/null -w '%{certs}' "https://$(endpoint "$1")/livez" | sed 's/^Cert://'; }
