"""What a fail-over may leave behind, looked for where it would be: in the proxies, in the api's places, in the queues."""

from __future__ import annotations

import json
from typing import Any

from lab.testing import host_variables
from tests.lab.conftest import execute
from tests.lab.platform import DIFY_PROXY, HOSTS, ask_haproxy, open_streams
from tests.role_program import load_file

# By its path, since this runs beside Ansible, not in it.
haproxy = load_file("plugins/module_utils/haproxy.py")

SERVICE_PROXY = "/run/service_proxy/admin.sock"
CONNECTING_S = 30
"""Seconds that a session may have no server: all retries, and the wait for a leader."""
REQUEST_S = 660
"""Seconds after which no request may be under way: what the role gives it, and half a minute."""


def forgotten_sessions() -> list[str]:
    """Sessions with a data service whose server's side is closed and whose client still waits, on every host with a service_proxy."""
    found = []
    for host, variables in host_variables().items():
        if "service_proxy" in variables["node"]["groups"]:
            shown = ask_haproxy(host, SERVICE_PROXY, "show sess")
            found += [
                f"{host}: {session.backend}/{session.server} for {session.age} s"
                for session in haproxy.sessions(lambda command: shown)  # noqa: B023
                if session.connection == haproxy.CLOSED and session.age > CONNECTING_S
            ]
    return found


def overdue_requests() -> list[str]:
    """Requests that Dify's proxies have had for longer than any may take; connections of web sockets are none."""
    found = []
    for host in HOSTS:
        shown = ask_haproxy(host, DIFY_PROXY, "show sess")
        assert not shown.strip() or haproxy.SESSION.search(shown), shown[:300]
        found += [
            f"{host}: {session.backend}/{session.server} for {session.age} s"
            for session in haproxy.sessions(lambda command: shown)  # noqa: B023
            if session.backend.startswith("api") and session.age > REQUEST_S
        ]
    return found


def taken_places() -> dict[str, int]:
    """Requests that each host's api has: none once all clients have gone."""
    return {host: open_streams(host) for host in HOSTS}


def queues_without_consumers(expected: dict[str, int]) -> list[str]:
    """Queues that have fewer consumers than they had.

    Args:
        expected: Consumers of each queue, as :func:`consumers` counted them before.
    """
    now = consumers()
    return [f"{queue}: {now.get(queue, 0)} of {count}" for queue, count in expected.items() if now.get(queue, 0) < count]


def left_behind(expected: dict[str, int]) -> list[str]:
    """All of these that clients which go on do not explain.

    Args:
        expected: As of :func:`queues_without_consumers`.
    """
    return [*forgotten_sessions(), *overdue_requests(), *queues_without_consumers(expected)]


def rabbitmq(*arguments: str) -> Any:
    """Ask ``rabbitmqctl`` of the first node that answers; give what it says, read from JSON."""
    for host in ("hq-db1", "hq-db2", "hq-db3"):
        asked = execute(host, "rabbitmqctl", "--quiet", "--formatter=json", *arguments, check=False)
        if asked.returncode == 0:
            return json.loads(asked.stdout)
    raise AssertionError("no node of RabbitMQ answers")


def consumers() -> dict[str, int]:
    """Count the consumers of each queue of Dify's that has any. Workers answer orders (``pidbox``) by queues that are named anew at each start."""
    rows = rabbitmq("--vhost=dify", "list_queues", "name", "consumers")
    return {row["name"]: row["consumers"] for row in rows if row["consumers"] and "pidbox" not in row["name"]}
