# What install and uninstall share; sourced by them.
# shellcheck shell=bash

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset "${!PYTHON@}"

COUNTS=/var/lib/prometheus/node-exporter/pki2fad.prom
# What `pki2factl credential` makes.
SEALED=(/etc/credstore.encrypted/pki2fad.{host.pem,host.passphrase}
    /etc/systemd/system/pki2fad.service.d/10-credential.conf)
LOCK=/run/pki2fad-install.lock
SHARE=/usr/local/share
SYSTEM_UNITS=/usr/local/lib/systemd/system
CONFIG=/etc/pki2fad
# What was put where, a line each: `prefix`, `dir`, `file` or `link`, and the path.
MANIFEST=$SHARE/pki2fad/installed

dry_run=false

say() { printf '%s\n' "$*"; }

fail() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    usage >&2
    exit 2
}

# act TEXT COMMAND...: say it, and do it unless this is a dry run.
act() {
    say "$1"
    shift
    $dry_run || "$@"
}

# The paths of one kind that the last installation put on record.
recorded() {
    [[ -e $MANIFEST ]] || return 0
    sed -n "s/^$1 //p" "$MANIFEST"
}

systemd_runs() { [[ -d /run/systemd/system ]]; }

require_root() {
    $dry_run || ((EUID == 0)) || fail "only root can do this; --dry-run shows everybody what it would do"
}

# So that two of them never meet; held until the end.
lock() {
    $dry_run && return
    (umask 077; : >>"$LOCK")
    exec 9>"$LOCK"  # of root's alone: nobody else can hold it
    flock --nonblock 9 || fail "another install or uninstall is at work"
}

# Nothing in there but what install put there.
remove_prefix() {
    rm --recursive --force "$1"/venv-*
    rm --force "$1"/{current,bin,lib,pyvenv.cfg}
    rmdir --ignore-fail-on-non-empty "$1"
}
