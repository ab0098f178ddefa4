#!/bin/bash
# Debian's squid as upstream's image starts it: `squid -f /etc/squid/squid.conf -NYC`, its access log to standard output.
set -e
touch /var/log/squid/access.log
chown -R proxy: /var/log/squid /var/spool/squid
tail -F /var/log/squid/access.log 2>/dev/null &
if [[ $# -eq 0 ]]; then
  set -- -f /etc/squid/squid.conf -NYC
fi
exec squid "$@"
