#!/bin/sh
# Sees to it that the program rabbitmq-server is on this machine: status 0 when it is, 1 (and a line that says why) when not.
#
# Installs it with apt-get as root on Debian and Ubuntu; anybody else is told what to type. No broker is started: neither now,
# as the package would do, nor at the next start of the machine. Who wants one running says `make rabbitmq`.
set -eu

for directory in '' /usr/sbin/ /usr/lib/rabbitmq/bin/ /usr/local/sbin/ /opt/homebrew/sbin/; do
    if command -v "${directory}rabbitmq-server" >/dev/null 2>&1; then
        exit 0
    fi
done

if ! command -v apt-get >/dev/null 2>&1; then
    if [ "$(uname -s)" = Darwin ]; then
        echo 'rabbitmq-server is not installed: brew install rabbitmq' >&2
    else
        echo 'rabbitmq-server is not installed: install it with the package manager of this system.' >&2
    fi
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo 'rabbitmq-server is not installed: sudo deploy/install-rabbitmq.sh' >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d
log=$(mktemp)
ours=
tidy() {
    if [ -n "$ours" ]; then
        rm -f "$policy"
        if [ -e "$policy.before-rabbitmq" ]; then
            mv "$policy.before-rabbitmq" "$policy"
        fi
    fi
    rm -f "$log"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Debian asks this program whether a package may start its service; 101 means no. Containers often bring one that says so.
answer=0
if [ -x "$policy" ]; then
    "$policy" rabbitmq-server start >/dev/null 2>&1 || answer=$?
fi
if [ "$answer" -ne 101 ]; then
    ours=yes
    if [ -e "$policy" ]; then
        mv "$policy" "$policy.before-rabbitmq"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo 'installing rabbitmq-server (apt-get) ...'
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >"$log" 2>&1 || true         # one unreachable source must not spoil the others
if ! apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 \
        install rabbitmq-server >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo 'apt-get could not install rabbitmq-server (see above).' >&2
    exit 1
fi
if [ -d /run/systemd/system ]; then
    systemctl disable --quiet rabbitmq-server >/dev/null 2>&1 || true
fi
