"""What every test of this scenario needs: gateways that have found their servers."""

from __future__ import annotations

import pytest
from gateway_client import wait_for_servers


@pytest.fixture(scope="session", autouse=True)
def all_servers_found() -> None:
    """Wait until each gateway has seen its servers alive."""
    wait_for_servers(20)
