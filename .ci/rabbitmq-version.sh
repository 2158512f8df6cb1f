#!/bin/bash
# Gets another RabbitMQ than this system's, with its Erlang, and prints the folder of its programs:
#
#   RABBITMQ_PROGRAMS=$(.ci/rabbitmq-version.sh 4.0) make test-broker           (make test-rabbitmq VERSION=4.0)
#
# 4.0 is that of Debian trixie, newest that of Debian sid.  Nothing is installed: packages are unpacked below $CACHE_DIR
# (.cache), and a program sees them as its /usr in a mount namespace of its own.  The mirror is the one that this
# machine's apt uses, or $DEBIAN_MIRROR.  Needs root, or a kernel that lets users have namespaces.
set -eu

case ${1:-} in
    4.0) suite=trixie ;;
    newest) suite=sid ;;
    *)
        echo "usage: $0 4.0 | newest" >&2
        exit 2
        ;;
esac

cache=${CACHE_DIR:-$(cd "$(dirname "$0")/.." && pwd)/.cache}/rabbitmq
tree=$cache/$suite
programs=$tree/programs
if [ -e "$tree/complete" ]; then
    echo "$programs"
    exit 0
fi

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$' || true)}
if [ -z "$mirror" ]; then
    echo 'apt knows no mirror of Debian here; name one: DEBIAN_MIRROR=...' >&2
    exit 1
fi

rm -rf "$tree"
apt=$tree/apt
mkdir -p "$apt"/{etc/{apt.conf.d,preferences.d,sources.list.d},state/lists/partial,cache/archives/partial} "$tree"/{debs,usr} \
    "$programs"
: >"$apt/state/status"                  # nothing is installed, so that all that is needed is fetched
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/etc/sources.list"

own_apt() {
    apt-get -qq -o Dir::Etc="$apt/etc" -o Dir::Etc::sourcelist="$apt/etc/sources.list" \
        -o Dir::Etc::sourceparts="$apt/etc/sources.list.d" -o Dir::State="$apt/state" -o Dir::Cache="$apt/cache" \
        -o Dir::State::status="$apt/state/status" -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=0 \
        -o APT::Default-Release="$suite" -o Acquire::Retries=3 "$@"
}

echo "getting the RabbitMQ of $suite ..." >&2
own_apt update >&2
# What RabbitMQ's own scripts run, besides what the package says it depends on, without what only an installed system needs.
wanted='rabbitmq-server dash bash coreutils sed grep findutils hostname mawk libc-bin debianutils mount util-linux'
found=$(own_apt --simulate install $wanted | awk '/^Inst/ {print $2}' |
    grep -vE '^(systemd$|libsystemd-shared|passwd|tzdata|libpam|debconf|adduser|login|python3|libpython3|base-|procps|perl)')
(cd "$tree/debs" && own_apt download $found >&2)
for package in "$tree"/debs/*.deb; do
    # Since trixie everything is below /usr; what is not is for an installed system.
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tree" --no-same-owner --wildcards './usr/*' 2>/dev/null || true
done
[ -e "$tree/usr/bin/sh" ] || ln -s dash "$tree/usr/bin/sh"
[ -e "$tree/usr/bin/awk" ] || ln -s mawk "$tree/usr/bin/awk"

user=
[ "$(id -u)" -eq 0 ] || user='--user --map-root-user'
for name in rabbitmq-server rabbitmqctl rabbitmq-diagnostics erl epmd; do
    place=/usr/lib/rabbitmq/bin/$name
    case $name in erl | epmd) place=/usr/bin/$name ;; esac
    cat >"$programs/$name" <<WRAPPER
#!/bin/sh
exec unshare --mount $user /bin/sh -c 'mount --bind "\$0" /usr && exec $place "\$@"' '$tree/usr' "\$@"
WRAPPER
    chmod 755 "$programs/$name"
done

# The host's own /lib and /bin have to lead into /usr, as they do wherever Debian or Ubuntu is not older than that.
"$programs/erl" -noshell -eval 'halt(0).' || {
    echo "the Erlang of $suite does not run here" >&2
    exit 1
}
rm -rf "$tree/debs" "$apt"
touch "$tree/complete"
echo "$programs"
