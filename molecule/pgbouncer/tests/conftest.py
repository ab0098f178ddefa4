"""The site under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from one_member import Site, wait_until


@pytest.fixture(scope="session")
def site(on: Any, contract: Any) -> Site:
    """The site, once the proxy knows who leads, with the tables of pgbench."""
    site = Site(on, Path(contract("client")["cluster"]["state_dir"]) / "secrets/patroni")
    for port in (5432, 6432):
        wait_until(lambda port=port: site.psql(port, "SELECT 1").rc == 0, 60)
    site.bench(5432, "-i -s 1 -q")
    return site
