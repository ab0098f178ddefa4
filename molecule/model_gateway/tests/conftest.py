"""What every test of this scenario needs: gateways that have found their servers."""

from __future__ import annotations

import pytest
from gateway_client import SERVERS, statuses, wait_until


@pytest.fixture(scope="session", autouse=True)
def all_servers_found() -> None:
    """Wait until each gateway has seen its servers alive."""
    for gateway, servers in SERVERS.items():
        wait_until(
            lambda gateway=gateway, servers=servers: {statuses(gateway).get(server) for server in servers} == {"UP"}, f"{gateway} has found {servers}", 20
        )
