#!/bin/sh
# Says at once everything that this machine lacks for `make demo`, `make test`
# and `make bench`, each with the command that brings it.
#
#   tests/preflight.sh             check; exit status 1 if something is missing
#   tests/preflight.sh --install   first install the small Debian tools
#
# Needs nothing but a POSIX shell: it works before cargo exists.
set -u

# kube-proxy's and the kubelet's tools, and what the build needs. All are
# harmless to have: none starts a daemon but haproxy, which listens nowhere as it comes.
tools='nft:nftables iptables:iptables conntrack:conntrack socat:socat
ethtool:ethtool ip:iproute2 nsenter:util-linux unshare:util-linux
mount:mount cc:gcc haproxy:haproxy'

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin:${HOME:-/root}/.cargo/bin"
missing=0

lacks() { # what, remedy
    missing=$((missing + 1))
    printf '  - %s\n      %s\n' "$1" "$2"
}
has() { command -v "$1" >/dev/null 2>&1; }
# at_least HAVE WANT: compares dotted versions by their first two numbers.
at_least() {
    have=${1#v} want=${2#v}
    have_major=${have%%.*} want_major=${want%%.*}
    have_rest=${have#*.} want_rest=${want#*.}
    have_minor=${have_rest%%.*} want_minor=${want_rest%%.*}
    have_minor=${have_minor%%[!0-9]*} want_minor=${want_minor%%[!0-9]*}
    [ "$have_major" -gt "$want_major" ] 2>/dev/null ||
        { [ "$have_major" -eq "$want_major" ] && [ "${have_minor:-0}" -ge "${want_minor:-0}" ]; } 2>/dev/null
}

wanted_packages() {
    wanted=
    for pair in $tools; do
        package=${pair#*:}
        case " $wanted " in *" $package "*) continue ;; esac
        has "${pair%%:*}" || wanted="$wanted $package"
    done
    # Without authorities, cargo and Go trust no registry.
    if has dpkg && ! [ -e /etc/ssl/certs/ca-certificates.crt ]; then wanted="$wanted ca-certificates"; fi
    # The headers and the static C library come apart from the compiler.
    if has dpkg && ! [ -e /usr/include/stdio.h ]; then wanted="$wanted libc6-dev"; fi
    # Environments of Python come apart from Python; a test has its client library in one.
    if has dpkg && ! python3 -c "import ensurepip, venv" 2>/dev/null; then wanted="$wanted python3-venv"; fi
    printf '%s' "${wanted# }"
}

if [ "${1:-}" = --install ]; then
    packages=$(wanted_packages)
    if [ -n "$packages" ]; then
        if ! has apt-get; then
            echo "apt-get is missing; install by hand: $packages" >&2
        elif [ "$(id -u)" != 0 ]; then
            echo "installing needs root: sudo $0 --install" >&2
        else
            echo "installing Debian's packages: $packages (INSTALL=0 refuses)"
            apt-get update -qq &&
                # shellcheck disable=SC2086 # a list of names
                DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
        fi
    fi
elif [ -n "${1:-}" ]; then
    echo "usage: $0 [--install]" >&2
    exit 2
fi

echo "checking this machine"

[ "$(uname -s)" = Linux ] || lacks "Linux" "run it in a Linux virtual machine"
[ "$(id -u)" = 0 ] ||
    lacks "root: the cluster has namespaces, mounts and control groups of its own" "run it with sudo, or as root"

packages=$(wanted_packages)
[ -z "$packages" ] || lacks "tools of the packages: $packages" "apt-get install $packages   (or: $0 --install)"
{ has apt-get && has dpkg; } ||
    lacks "apt-get and dpkg: containerd, runc and CNI plug-ins are unpacked from packages, not installed" \
        "use Debian 12 or later, or Ubuntu 22.04 or later"

if ! has cargo; then
    lacks "Rust" "install rustup (https://rustup.rs), then: rustup toolchain install stable"
else
    version=$(cargo --version | cut -d ' ' -f 2)
    at_least "$version" 1.95 || lacks "Rust 1.95 or later (here: $version)" "rustup update stable"
fi

if ! has go; then
    lacks "Go" "unpack Go 1.26 from https://go.dev/dl into /usr/local/go"
else
    version=$(go env GOVERSION | sed 's/^go//')
    # From 1.21 on, Go fetches the version that go.mod asks for, if it may.
    if [ "$(go env GOTOOLCHAIN)" = local ]; then want=1.26; else want=1.21; fi
    at_least "$version" $want || lacks "Go $want or later (here: $version)" "unpack Go 1.26 from https://go.dev/dl into /usr/local/go"
fi

if ! has kubectl; then
    lacks "kubectl 1.32 or later" "see https://kubernetes.io/docs/tasks/tools"
else
    version=$(kubectl version --client 2>/dev/null | sed -n 's/^Client Version: //p')
    at_least "${version:-0.0}" 1.32 || lacks "kubectl 1.32 or later (here: ${version:-unknown})" "see https://kubernetes.io/docs/tasks/tools"
fi

# free_gib DIRECTORY: space on the disk that will hold it.
free_gib() {
    directory=$1
    while [ ! -d "$directory" ]; do directory=$(dirname "$directory"); done
    df -Pk "$directory" | awk 'NR == 2 { print int($4 / 1048576) }'
}
for place in "${XDG_CACHE_HOME:-${HOME:-/root}/.cache}" "${STEWARD_LAB_DIR:-/var/lib/steward-lab}" "${CARGO_TARGET_DIR:-target}"; do
    free=$(free_gib "$place")
    [ "$free" -ge 12 ] || lacks "12 GiB of disk for $place (free: $free GiB)" "make room, or choose another place (XDG_CACHE_HOME, STEWARD_LAB_DIR, CARGO_TARGET_DIR)"
done

memory=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
[ "$memory" -ge 4000 ] || lacks "4 GB of free memory (here: $memory MB)" "end something, or use a larger machine"

grep -q overlay /proc/filesystems || lacks "the overlay file system" "modprobe overlay"
grep -q '^[^ ]* /sys/fs/cgroup' /proc/mounts || lacks "control groups under /sys/fs/cgroup" "mount -t cgroup2 none /sys/fs/cgroup"

if [ "$missing" -gt 0 ]; then
    echo "$missing missing"
    exit 1
fi
echo "nothing is missing"
