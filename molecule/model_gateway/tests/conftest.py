"""What every test of this scenario needs: gateways that have found their servers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def all_servers_known(on: Any) -> None:
    """Wait until the gateways have seen each other's servers alive."""
    for host, pool in (("hq-gw1", "model_assistant"), ("hq-gw2", "model_assistant"), ("edge-gw1", "remote_assistant"), ("edge-gw1", "model_faq")):
        on(host).check_output(
            "timeout 20 sh -c \"until curl -s 'http://127.0.0.1:8405/;csv' | grep '^%s,' | grep -vE 'BACKEND' | grep -c UP | grep -qx %d; do sleep 0.2; done\"",
            pool, 1 if pool == "model_faq" else 2,
        )
