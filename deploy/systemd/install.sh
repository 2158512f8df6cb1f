#!/bin/sh
# Puts units, user and directories where systemd looks for them; starts nothing.  Repeat it after an upgrade.
#
#   deploy/systemd/install.sh [ROOT]
#
# ROOT is for an image that is being made; without it, this machine, and the user is made at once.
# What is in /etc/ecommerce-worker already is left as it is.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=${1:-}
units=$root/etc/systemd/system
settings=$root/etc/ecommerce-worker

install -d -m 755 "$units" "$root/etc/sysusers.d" "$settings"
install -d -m 700 "$settings/credentials"
install -m 644 "$here"/*.service "$here"/*.target "$units"
for directory in "$here"/*.service.d; do
    install -d -m 755 "$units/${directory##*/}"
    install -m 644 "$directory"/*.conf "$units/${directory##*/}"
done
install -m 644 "$here/sysusers.conf" "$root/etc/sysusers.d/ecommerce-worker.conf"
for file in worker.yml intake.yml; do
    [ -e "$settings/$file" ] || install -m 644 "$here/$file" "$settings/$file"
done

if [ -z "$root" ]; then
    systemd-sysusers ecommerce-worker.conf
    systemctl daemon-reload
fi
