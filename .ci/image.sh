#!/bin/bash
# Builds the image of deploy/container/Dockerfile without a registry and a daemon, as root: by buildah, on a Debian that
# debootstrap makes in place of the public image.  Prints the name of the image last.
#
#   .ci/image.sh                    build it
#   .ci/image.sh buildah ARGS...    look at what was built
#
# What it gets and makes is kept in the folder image of CACHE_DIR (.cache).
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
kept=${CACHE_DIR:-$here/.cache}/image
base=localhost/python:3.13-slim-trixie
name=localhost/ecommerce-worker
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Layers are copies where the kernel cannot lay one over another, as in most containers.
driver=overlay
buildah() {
    command buildah --root "$kept/$driver" --runroot "$kept/run-$driver" --storage-driver "$driver" "$@"
}
buildah info >/dev/null 2>&1 || driver=vfs

if [ "${1:-}" = buildah ]; then
    shift
    buildah "$@"
    exit
fi

mkdir -p "$kept"
exec 9>"$kept/lock"
flock 9

# Each change of the package leaves the layer of the one before behind.
if [ -d "$kept/$driver" ] && [ "$(du -sm "$kept/$driver" | cut -f 1)" -gt 4000 ]; then
    buildah rmi --all --force >/dev/null
fi

policy=$kept/policy.json
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$policy"

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    echo "making $base ..." >&2
    rm -rf "$kept/base"
    debootstrap --variant=minbase --include=python3-venv,ca-certificates,tini trixie "$kept/base" "$mirror" \
        >"$kept/debootstrap.log" 2>&1 || { tail -n 20 "$kept/debootstrap.log" >&2; exit 1; }
    rm -rf "$kept/base/var/cache/apt" "$kept/base/var/lib/apt/lists"
    container=$(buildah from --signature-policy "$policy" scratch)
    buildah add --quiet "$container" "$kept/base" / >&2
    buildah commit --quiet --signature-policy "$policy" --format docker --rm "$container" "$base" >&2
    rm -rf "$kept/base"
fi

# The packages come from where this machine gets its own, by the authorities that it trusts.
volumes=(--volume /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro)
if [ -e /etc/pip.conf ]; then
    volumes+=(--volume /etc/pip.conf:/etc/pip.conf:ro)
fi
echo "building $name ..." >&2
buildah bud --quiet --layers --isolation chroot --signature-policy "$policy" --format docker --pull-never \
    --build-arg "BASE=$base" "${volumes[@]}" --ignorefile "$here/deploy/container/Dockerfile.dockerignore" \
    --file "$here/deploy/container/Dockerfile" --tag "$name" "$here" >&2
echo "$name"
