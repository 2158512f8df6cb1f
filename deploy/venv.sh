#!/bin/sh
# Makes a virtual environment at the path given, with $PYTHON or else the first interpreter found that is new enough.
set -eu

venv=$1

# Whether this command is a Python we can use. It is run to find out: names of interpreters that are not installed are on
# PATH where a version manager puts its shims there, and fail only when run.
suits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if ! suits "$PYTHON"; then
        echo "PYTHON=$PYTHON is not a Python 3.11 or newer that runs here." >&2
        exit 1
    fi
    python=$PYTHON
else
    python=
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if suits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo 'No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python3.12 ...' >&2
        exit 1
    fi
fi

echo "making $venv with $("$python" --version) ..."
rm -rf "$venv"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if "$python" -m venv "$venv" >"$log" 2>&1; then
    exit 0
fi

# Debian and Ubuntu ship Python without the part that makes environments.
package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
if grep -q ensurepip "$log" && command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ]; then
        rm -rf "$venv"
        echo "This Python cannot make virtual environments yet: sudo apt-get install $package" >&2
        exit 1
    fi
    echo "installing $package ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >"$log" 2>&1 || true     # one unreachable source must not spoil the others
    if apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 install "$package" >>"$log" 2>&1; then
        rm -rf "$venv"
        if "$python" -m venv "$venv" >>"$log" 2>&1; then
            exit 0
        fi
    fi
fi

rm -rf "$venv"
cat "$log" >&2
echo "$python -m venv $venv failed (see above)." >&2
exit 1
