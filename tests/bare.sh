#!/usr/bin/env bash
# Does a bare Debian do? From a clean clone to the first build of all crates, in a
# minimal root made by debootstrap: its own packages, HOME and caches; only Rust, Go
# and kubectl come from this machine, as they would come to any.
#
#   bare.sh               does it
#   bare.sh --if-changed  does it unless it has passed here with the same inputs
#
# The machine's network, certificates and package mirror are used as they are set
# up. All mounts are in a mount namespace of its own: they end with the script,
# kill -9 included, and what that leaves on disk goes with the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${STEWARD_BARE_DIR:-/var/tmp/steward-bare}
root=$work/root
# What decides whether a bare machine does, as it is committed: that is what is cloned
# below, whatever lies in the work tree.
committed() {
  git ls-tree -r HEAD | grep -E $'\t(Makefile|Cargo.lock|([a-z]+/)?Cargo.toml|\\.cargo/config.toml|storage/build/.*|tests/(preflight|bare).sh)$'
}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/steward-lab
stamp=$cache/bare-$(committed | sha256sum | cut -c 1-16)

say() { echo "bare: $1"; }
die() { echo "bare: $1" >&2; exit 1; }

# The mirror and the suite that apt uses on this machine.
mirror() {
  # shellcheck disable=SC1091 # every Debian has it
  local suite; suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  # shellcheck disable=SC2016 # apt's own variables
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    | awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1, $2; exit }'
}

prepare() {
  [ "$(id -u)" = 0 ] || die "it needs root, for a root directory of its own"
  command -v apt-get >/dev/null || die "it needs apt-get"
  if ! command -v debootstrap >/dev/null || [ -z "$(mirror)" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
  fi
  [ -n "$(mirror)" ] || die "apt knows no mirror of this machine's release"
}

# From here on in a mount and process namespace of its own.
inside() {
  local uri suite proxy="" log=$work/debootstrap.log
  read -r uri suite < <(mirror)
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [ -z "$proxy" ] || export http_proxy=$proxy

  say "a minimal $suite"
  debootstrap --variant=minbase --include=make "$suite" "$root" "$uri" > "$log" 2>&1 \
    || { tail -n 20 "$log" >&2; die "debootstrap failed"; }
  [ -z "$proxy" ] || echo "Acquire::http::Proxy \"$proxy\";" > "$root/etc/apt/apt.conf.d/proxy"
  cp --remove-destination -L /etc/resolv.conf "$root/etc/resolv.conf"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  toolchain "$(rustc --print sysroot)" /opt/rust
  toolchain "$(go env GOROOT)" /usr/local/go
  install "$(command -v kubectl)" "$root/usr/local/bin/kubectl"

  # How this machine reaches the world: whom it trusts, mirrors and proxies.
  local settings=() name
  name=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  if [ -f "$name" ]; then
    cp -L "$name" "$root/etc/machine-ca.crt"
    settings+=(SSL_CERT_FILE=/etc/machine-ca.crt CARGO_HTTP_CAINFO=/etc/machine-ca.crt)
  fi
  for name in GOPROXY GOSUMDB GONOSUMDB GOPRIVATE; do settings+=("$name=$(go env $name)"); done
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || settings+=("$name=${!name}")
  done
  name=${CARGO_HOME:-$HOME/.cargo}/config.toml
  [ ! -f "$name" ] || install -D -m 600 "$name" "$root/root/.cargo/config.toml"

  say "a clean clone of $(git rev-parse --short HEAD)"
  [ -z "$(git status --porcelain --untracked-files=no)" ] || say "what is not committed is not part of it"
  git -c advice.detachedHead=false clone --quiet --no-hardlinks . "$root/src"

  # shellcheck disable=SC2016 # for the shell inside
  chroot "$root" env -i "${settings[@]}" HOME=/root TERM=dumb LANG=C.UTF-8 \
    PATH=/opt/rust/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/bash -euo pipefail -c '
      cd /src
      if make tools INSTALL=0 > /tmp/refused 2>&1; then
        echo "bare: nothing is missing in a bare root, or INSTALL=0 installs" >&2; exit 1
      fi
      make tools
      make lab
      cargo build --locked --workspace
    '
}

# toolchain FROM TO: read-only.
toolchain() {
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mount -o remount,bind,ro "$root$2"
}

case "${1:-}" in
  --inside) inside; exit ;;
  --if-changed)
    if [ -e "$stamp" ]; then
      say "it has passed here with the same $(committed | wc -l) files that it depends on"
      exit
    fi
    ;;
  "") ;;
  *) die "usage: $0 [--if-changed]" ;;
esac

began=$SECONDS
prepare
mkdir -p "$work" "$cache"
exec 9> "$work/lock"
flock --nonblock 9 || { say "another run is at it; waiting"; flock 9; }
# Nothing is mounted there in this namespace, whatever a killed run has left.
rm -rf --one-file-system "$root"
child=
trap '[ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true; wait; rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Each dies with the one that started it, and the lock is let go by the last.
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child=KILL \
  "$PWD/tests/bare.sh" --inside &
child=$!
wait "$child" || { code=$?; child=; die "FAILED ($code) after $(((SECONDS - began) / 60)) min"; }
child=
rm -f "$cache"/bare-*
touch "$stamp"
say "passed in $(((SECONDS - began) / 60)) min"
