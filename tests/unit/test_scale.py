"""The benchmark of a large platform judges growth, and its inventory is one that the plugin takes."""

from __future__ import annotations

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load

from tests.benchmarks.inventory import cluster
from tests.benchmarks.scale import PER_SITE, growth

SIZES = [25, 50, 100, 200]


def test_what_is_paid_once_hides_no_growth() -> None:
    assert growth(SIZES, [1000 + 3 * size for size in SIZES]) == (3, 3)
    below, beyond = growth(SIZES, [1000 + size**2 / 100 for size in SIZES])
    assert (below, beyond) == (1.25, 3)


@pytest.mark.parametrize("sites", [1, 3])
def test_a_larger_platform_is_more_of_the_same(sites: int) -> None:
    contract = load(cluster(PER_SITE * sites, sites, whole=True), "cluster.yml")
    assert len(contract.nodes) == PER_SITE * sites
    counts = [{group: len(members) for group, members in site["members"].items()} for site in contract.sites.values()]
    assert counts == [counts[0]] * sites
    assert (counts[0]["patroni"], counts[0]["dify"], counts[0]["vllm"], counts[0]["keepalived"]) == (3, 2, 18, 2)
