"""The site under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from two_members import Site


@pytest.fixture(scope="session")
def site(on: Any, contract: Any) -> Site:
    """The site, whole, with the tables of pgbench."""
    site = Site(on, Path(contract("client")["cluster"]["state_dir"]) / "secrets/patroni")
    site.wait_until_whole()
    site.bench(5432, "-i -s 5 -q")
    return site
