#!/bin/sh
# Build the package that stands in for Grafana's: build.sh FILE. The same sources always make the same file.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -D -m 0644 "$here/control" "$work/root/DEBIAN/control"
install -D -m 0755 "$here/postinst" "$work/root/DEBIAN/postinst"
install -D -m 0755 "$here/grafana.py" "$work/root/usr/share/grafana/bin/grafana"
install -D -m 0644 "$here/grafana-server.service" "$work/root/usr/lib/systemd/system/grafana-server.service"
install -D -m 0644 "$here/grafana-server" "$work/root/etc/default/grafana-server"
chmod 0755 "$work/root"
mkdir -p "$(dirname "$1")"
SOURCE_DATE_EPOCH=1700000000 dpkg-deb -Zgzip --root-owner-group --build "$work/root" "$work/out.deb" >/dev/null
mv "$work/out.deb" "$1"
