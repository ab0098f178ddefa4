"""The cluster under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backed_up import Cluster


@pytest.fixture(scope="session")
def cluster(on: Callable[[str], Any]) -> Cluster:
    """The cluster, whole, with its first backup."""
    cluster = Cluster(on)
    cluster.wait_until_whole()
    cluster.wait_for_backups(1)
    return cluster
