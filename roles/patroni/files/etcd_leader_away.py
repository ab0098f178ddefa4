# SPDX-License-Identifier: GPL-3.0-or-later
"""Move etcd's leadership off the host whose PostgreSQL leads: ``etcd_leader_away.py <address> <authority> <certificate> <key>``.

Patroni's lease lives in etcd, and an etcd that has just come to lead gives every lease its full time again. Were both leaders lost with one host,
PostgreSQL's clients would wait for the election and for the whole lease, some five seconds longer than for the rest of the lease alone.

Run by a timer. Says something only when it moves the leadership; ends with 0 where there is nothing to do or nobody to ask: the next turn comes soon.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from typing import Any

TIMEOUT_S = 3.0


def leads(address: str, authority: str) -> bool:
    """Whether the Patroni at ``address`` says that its PostgreSQL leads."""
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection(address, 8008, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("HEAD", "/primary")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def successor(answers: list[dict[str, Any]], endpoint: str) -> int | None:
    """Choose who shall lead.

    Args:
        answers: What ``etcdctl endpoint status --cluster`` says, of each member that answers.
        endpoint: The local member's client URL.

    Returns:
        The identity of the follower that has applied most, or nothing where the local member does not lead or nobody could follow it.
    """
    local = [answer["Status"] for answer in answers if answer["Endpoint"] == endpoint]
    if not local or local[0]["leader"] != local[0]["header"]["member_id"]:
        return None
    followers = [
        status
        for answer in answers
        if answer["Endpoint"] != endpoint and not (status := answer["Status"]).get("isLearner") and status.get("leader") == local[0]["leader"]
    ]
    return max(followers, key=lambda status: status["raftAppliedIndex"])["header"]["member_id"] if followers else None


def main() -> int:
    """Look, and move the leadership if both lead here."""
    address, authority, certificate, key = sys.argv[1:]
    if not leads(address, authority):
        return 0
    endpoint = f"https://{f'[{address}]' if ':' in address else address}:2379"
    command = ["etcdctl", "--endpoints", endpoint, "--cacert", authority, "--cert", certificate, "--key", key, "--command-timeout", f"{TIMEOUT_S:g}s"]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    # A member that does not answer makes it fail, and those that do are listed all the same.
    status = subprocess.run([*command, "endpoint", "status", "--cluster", "--write-out", "json"], capture_output=True, env=environment, check=False)
    if not status.stdout.strip():
        return 0
    chosen = successor(json.loads(status.stdout), endpoint)
    if chosen is None:
        return 0
    moved = subprocess.run([*command, "move-leader", f"{chosen:x}"], capture_output=True, text=True, env=environment, check=False)
    # A priority of the journal: what is said here passes the unit's filter.
    print(f"<5>{(moved.stdout or moved.stderr).strip()}", flush=True)
    return moved.returncode


if __name__ == "__main__":
    sys.exit(main())
