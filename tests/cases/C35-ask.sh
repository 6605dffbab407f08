# ask KIND SPEC: asks for a kubeconfig of the tenant.
ask() {
    printf '{"apiVersion":"steward.butlerlabs.dev/v1alpha1","kind":"%s","spec":%s}' "$1" "$2" |
        kubectl create --raw "$N/f35/kubeconfig" -f - 2>&1
}
