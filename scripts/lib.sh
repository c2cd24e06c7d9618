# What the scripts share; to be sourced by bash, from any directory. Sets ROOT (the repository) and the functions below.
#
# say MESSAGE            one line about what is being done, on stderr
# die MESSAGE            one line on stderr, exit 1
# as_root COMMAND...     runs it as root: directly, or by sudo where that needs no password
# need_packages P...     installs the Debian packages among P that are missing; does nothing (and needs nobody's rights) if none is
# unpack_packages DIR P...  downloads P and what they depend on here, and unpacks them below DIR without installing: Debian's mail
#                        servers conflict as packages, and nothing of them is wanted on the developer's machine
#
# Nothing here reads standard input or asks a question.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export DEBIAN_FRONTEND=noninteractive

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 126
    fi
}

# Runs a command with its output kept back, and shows it only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

# Package lists are fetched once per run, and once more if that failed: mirrors have bad moments.
apt_update() {
    [ -z "${APT_UPDATED:-}" ] || return 0
    quietly as_root apt-get -q update || quietly as_root apt-get -q update || die "apt-get update failed twice"
    APT_UPDATED=1
}

# dpkg-query also lists packages that were removed; only "installed" counts.
installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

need_packages() {
    local missing=() package
    for package in "$@"; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "needs ${missing[*]} (Debian's names), and there is no apt-get to install them"
    as_root true || die "needs ${missing[*]}; as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    apt_update
    quietly as_root apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "${missing[@]}" ||
        die "could not install ${missing[*]}"
}

unpack_packages() {
    local dir=$1 archives
    shift
    archives=$(mktemp -d)
    mkdir -p "$archives/partial" "$dir"
    apt_update
    # --download-only resolves dependencies, so that libraries missing here come along; --reinstall, so that what is installed comes too.
    quietly as_root apt-get -q -y --no-install-recommends --download-only --reinstall \
        -o Debug::NoLocking=1 -o Dir::Cache::archives="$archives" install "$@" || die "could not download $*"
    for package in "$archives"/*.deb; do dpkg-deb -x "$package" "$dir"; done
    as_root rm -rf "$archives"
}

need_cargo() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || die "needs Rust: install it with rustup (https://rustup.rs), then run this again"
}
