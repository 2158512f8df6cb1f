#!/bin/sh
# Sees to it that programs are on this machine: status 0 when they are, 1 (and a line that says why) when not.
#
#   deploy/install.sh rabbitmq-server redis-server postgresql mariadb-server chromium chromium-driver
#
# Installs them with apt-get as root on Debian and Ubuntu; anybody else is told what to type. No service is started: neither
# now, as the packages would do, nor at the next start of the machine. Who wants a RabbitMQ running says `make rabbitmq`.
set -eu

found() {
    if [ "$1" = postgresql ]; then
        command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
        return
    fi
    if [ "$1" = chromium-driver ]; then
        command -v chromedriver >/dev/null 2>&1
        return
    fi
    if [ "$1" = mariadb-server ]; then
        set -- mariadbd
    fi
    for directory in '' /usr/sbin/ /usr/lib/rabbitmq/bin/ /usr/local/sbin/ /opt/homebrew/sbin/; do
        if command -v "${directory}$1" >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

missing=
for package in "$@"; do
    found "$package" || missing="$missing $package"
done
missing=${missing# }
if [ -z "$missing" ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    if [ "$(uname -s)" = Darwin ]; then
        echo "missing: $missing. Install with: brew install $(echo "$missing" | sed 's/-server//g')" >&2
    else
        echo "missing: $missing. Install with the package manager of this system." >&2
    fi
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "missing: $missing. Install with: sudo deploy/install.sh $missing" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d
log=$(mktemp)
ours=
tidy() {
    if [ -n "$ours" ]; then
        rm -f "$policy"
        if [ -e "$policy.before-install" ]; then
            mv "$policy.before-install" "$policy"
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
    "$policy" any start >/dev/null 2>&1 || answer=$?
fi
if [ "$answer" -ne 101 ]; then
    ours=yes
    if [ -e "$policy" ]; then
        mv "$policy" "$policy.before-install"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "installing $missing (apt-get) ..."
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >"$log" 2>&1 || true         # one unreachable source must not spoil the others
if ! apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 \
        install $missing >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install $missing (see above)." >&2
    exit 1
fi
if [ -d /run/systemd/system ]; then
    for service in $(echo "$missing" | sed 's/mariadb-server/mariadb/'); do
        systemctl disable --quiet "$service" >/dev/null 2>&1 || true
    done
fi
