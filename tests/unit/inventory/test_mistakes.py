"""Every mistake is found, told once, with its line and what would be right."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS, Group
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Earlier

from tests.unit.inventory.cases import BROKEN, EXAMPLE, edited, expected, mistakes

# Changes that do not touch each other, with the path of the one mistake that each makes.
EDITS: Mapping[str, tuple[str, str]] = {
    "name": ("name: lab", "name: Lab"),
    "vpn.port": ("port: 51820", "port: '51820'"),
    "sites.hq.clearence": ("clearance: restricted", "clearence: restricted"),
    "sites.hq.hosts.hq-gw1.wan_address": ("wan_address: 198.18.9.11", "wan_address: 198.18.9"),
    "sites.hq.hosts.hq-gpu1.address": ("{address: 198.18.1.31,", "{address: 198.18.1.11,"),
    "sites.hq.hosts.hq-gpu1.gpus": ("groups: [vllm]}", "groups: [vllm], gpus: 2}"),
    "sites.edge.hosts.edge-gw1.groups[2]": ("model_gateway, nginx, vllm", "model_gateway, ngnix, vllm"),
    "sites.edge.hosts.edge-gw1.vpn_address": ("vpn_address: 198.19.0.21", "vpn_address: 198.20.0.21"),
    "models.faq.source": ("source: /srv/models/tiny, hosts: [edge-gw1]", "source: tiny, hosts: [edge-gw1]"),
    "clients.core-banking.tier": ("tier: vip", "tier: gold"),
    "clients.web-chat.sites[0]": ("sites: [edge]", "sites: [egde]"),
}


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_is_refused_with_just_its_mistakes(path: Path) -> None:
    found = mistakes(path.read_text(encoding="utf-8"))
    assert found == expected(path)
    for mistake in found:
        assert re.match(r"\d+: \S.*: \S.*; \S", mistake), "every mistake says where, what is wrong, and what would be right"


def test_there_are_broken_files() -> None:
    assert len(BROKEN) >= 30


def test_the_example_has_no_mistakes() -> None:
    assert mistakes(EXAMPLE) == []


@pytest.mark.parametrize("path", EDITS)
def test_each_edit_makes_its_mistake(path: str) -> None:
    assert [mistake.split(": ")[1] for mistake in mistakes(edited(EDITS[path]))] == [path]


@pytest.mark.parametrize("paths", random.Random(7).sample(list(itertools.combinations(EDITS, 3)), 60), ids="+".join)  # noqa: S311
def test_of_three_mistakes_all_three_are_told_and_nothing_else(paths: tuple[str, str, str]) -> None:
    apart = sorted(mistake for path in paths for mistake in mistakes(edited(EDITS[path])))
    together = mistakes(edited(*(EDITS[path] for path in paths)))
    assert sorted(together) == apart


def test_all_mistakes_at_once() -> None:
    assert sorted(mistake.split(": ")[1] for mistake in mistakes(edited(*EDITS.values()))) == sorted(EDITS)


@pytest.mark.parametrize(("members", "counts"), [(1, None), (2, "1 or 3"), (3, None), (4, "3 or 5")])
def test_a_quorum_is_odd(members: int, counts: str | None) -> None:
    groups = {**GROUPS, "etcd": Group("data", quorum=True)}
    hosts = "".join(f"      db{number}: {{address: 198.18.1.{40 + number}, groups: [etcd]}}\n" for number in range(members))
    found = mistakes(edited(("      hq-gpu1:", f"{hosts}      hq-gpu1:")), groups)
    assert [mistake.rpartition("; ")[2] for mistake in found] == ([f"give it {counts}"] if counts else [])


def test_a_quorum_is_counted_by_site() -> None:
    groups = {**GROUPS, "etcd": Group("data", quorum=True)}
    found = mistakes(edited(("groups: [vllm]", "groups: [vllm, etcd]"), ("nginx, vllm]", "nginx, vllm, etcd]")), groups)
    assert found == []


def test_a_new_group_brings_its_needs_in_one_line() -> None:
    groups = {**GROUPS, "patroni": Group("data", host_keys=("wan_address",), needs=("etcd",)), "etcd": Group("data")}
    found = mistakes(edited(("groups: [vllm]", "groups: [vllm, patroni]")), groups)
    assert [mistake.partition(";")[0] for mistake in found] == [
        "6: sites.hq: 'patroni' (hq-gpu1) needs 'etcd', which the site lacks",
        "11: sites.hq.hosts.hq-gpu1.wan_address: host 'hq-gpu1' is in the group 'patroni', which needs it",
    ]


HOSTS_FROM = ("      hq-gpu1: {address: 198.18.1.31, groups: [vllm]}\n", "    hosts_from: [{group: gpus, groups: [vllm], address_var: lan}]\n")


def test_earlier_hosts_without_the_variable_are_named_one_by_one() -> None:
    hosts: dict[str, dict[str, Any]] = {"hq-gpu1": {"lan": "198.18.1.31"}, "a": {}, "b": {"lan": None}, "c": {"lan": "{{ x }}"}}
    found = mistakes(edited(HOSTS_FROM), earlier=Earlier(("gpus",), lambda group: hosts))
    assert [mistake.partition(": ")[2].partition(";")[0] for mistake in found] == [
        "sites.hq.hosts_from[0].address_var: host 'a' has no variable 'lan'",
        "sites.hq.hosts_from[0].address_var: host 'b' has no variable 'lan'",
        "sites.hq.hosts_from[0].address_var: variable 'lan' of host 'c': '{{ x }}' is no IP address",
    ]


def test_an_earlier_group_without_hosts_is_a_mistake() -> None:
    found = mistakes(edited(HOSTS_FROM), earlier=Earlier(("gpus",), lambda group: {}))
    assert [mistake.partition(";")[0] for mistake in found] == ["11: sites.hq.hosts_from[0].group: group 'gpus' has no hosts"]


def test_an_earlier_group_is_suggested() -> None:
    found = mistakes(edited(HOSTS_FROM), earlier=Earlier(("gpu", "web"), lambda group: {}))
    assert found[0].endswith("no group 'gpus' was loaded before this file; did you mean 'gpu'?")


def test_rules_hold_for_earlier_hosts_too() -> None:
    hosts = {"hq-gpu1": {"lan": "198.18.1.11"}, "nginx": {"lan": "198.18.1.32"}}
    found = mistakes(edited(HOSTS_FROM), earlier=Earlier(("gpus",), lambda group: hosts))
    assert [mistake.partition(";")[0] for mistake in found] == [
        "11: sites.hq.hosts_from[0]: 'nginx' is also the name of a group",
        "11: sites.hq.hosts_from[0].address_var: 198.18.1.11 is already the address of 'hq-gw1' (line 10)",
    ]
