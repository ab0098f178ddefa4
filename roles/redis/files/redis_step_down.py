# Ansible managed
"""Have another member lead when the master cannot write to its disk.

Such a master answers every PING, so no Sentinel takes it for dead; but it refuses every write until there is space again. A service, which
looks every few seconds: ``redis_step_down.py <port> <name of the set> <addresses of the others>``.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from redis_client import Connection, RedisError, passwords

INTERVAL_S = 2.0
# Sentinel refuses a second fail-over while one is under way; where every disk is full, the lead must not go round in circles.
PAUSE_S = 60.0
SERVER, SENTINEL = "/run/redis/redis-server.sock", "/run/sentinel/redis-sentinel.sock"


def writes(server: Connection) -> bool:
    """Tell whether a server's last write to its disk succeeded."""
    return server.info("persistence").get("aof_last_write_status") != "err"


def successors(others: Iterable[str], port: int, keys: list[str]) -> list[str]:
    """Give the replicas that are connected to the master and can write to their disks."""
    found = []
    for address in others:
        try:
            with Connection.tls(address, port, "admin", keys) as server:
                told = server.info("replication")
                if told["role"] == "slave" and told["master_link_status"] == "up" and writes(server):
                    found.append(address)
        except (OSError, RedisError):
            continue
    return found


def look(port: int, name: str, others: list[str], keys: list[str]) -> bool:
    """Look once, and ask Sentinel for a fail-over where one would help.

    Returns:
        Whether it was asked.

    Raises:
        OSError: a service of this host does not listen.
        RedisError: it does not answer as it should, or Sentinel refuses.
    """
    with Connection.unix(SERVER, "admin", keys) as server:
        if server.info("replication")["role"] != "master" or writes(server):
            return False
    able = successors(others, port, keys)
    if not able:
        return False
    # A priority of the journal: warning.
    print(f"<4>this master cannot write to its disk; {', '.join(able)} can: asking Sentinel for a fail-over", flush=True)
    with Connection.unix(SENTINEL, "admin", keys) as sentinel:
        sentinel("SENTINEL", "FAILOVER", name)
    return True


def main(port: int, name: str, *others: str) -> None:
    """Look for ever. A server that is down, or that loads its data, is no master that could step down."""
    while True:
        asked = False
        with contextlib.suppress(OSError, RedisError):
            asked = look(port, name, list(others), passwords(Path("/etc/redis/admin.password")))
        time.sleep(PAUSE_S if asked else INTERVAL_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
