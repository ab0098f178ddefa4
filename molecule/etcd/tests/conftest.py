"""The cluster under test, and hosts that are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from etcd_cluster import CLUSTER, Cluster, docker


@pytest.fixture(scope="session")
def cluster(on: Callable[[str], Any]) -> Cluster:
    """The cluster under test."""
    return Cluster(on)


@pytest.fixture
def killed() -> Iterator[Callable[[str], None]]:
    """Kill hosts; they are back after the test."""
    names: list[str] = []

    def kill(host: str) -> None:
        docker("kill", f"{CLUSTER}-{host}")
        names.append(host)

    yield kill
    for host in names:
        docker("start", f"{CLUSTER}-{host}")
