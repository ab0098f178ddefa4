"""The cluster under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from patroni_cluster import Cluster


@pytest.fixture(scope="session")
def cluster(on: Callable[[str], Any]) -> Cluster:
    """The cluster, whole."""
    cluster = Cluster(on)
    cluster.wait_until_whole()
    return cluster
