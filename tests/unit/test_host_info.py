"""One look at a host, and what roles tell from it instead of looking again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.filter.packages_lacking import packages_lacking
from ansible_collections.sovereign.dify.plugins.filter.ports_in_doubt import ports_in_doubt
from ansible_collections.sovereign.dify.plugins.module_utils.apt_packages import parse_packages
from ansible_collections.sovereign.dify.plugins.module_utils.nftables import source

PROJECT = Path(__file__).resolve().parents[2]
HOST: dict[str, Any] = {
    "packages": {"haproxy": "3.0.11-1", "socat": "1.8"},
    "held": ["haproxy"],
    "listening": [
        {"address": "198.18.1.61", "port": 6379, "process": "redis-server", "pid": 812, "unit": "redis-server.service"},
        {"address": "*", "port": 8443, "process": "nc", "pid": 4711, "unit": ""},
    ],
}


@pytest.mark.parametrize(
    ("names", "hold", "lacking"),
    [
        (["haproxy"], None, []),
        (["haproxy", "socat"], None, ["socat"]),
        (["haproxy", "socat"], ["haproxy"], []),
        (["haproxy", "nginx"], [], ["nginx"]),
        (["haproxy=3.0.11-1"], None, []),
        (["haproxy=3.0.12-1"], None, ["haproxy"]),
        (["haproxy"], ["haproxy", "python3-swift"], ["python3-swift"]),
    ],
)
def test_packages_that_are_there_and_held_are_not_asked_for(names: list[str], hold: list[str] | None, lacking: list[str]) -> None:
    assert packages_lacking(names, HOST, hold) == lacking


@pytest.mark.parametrize("look", [{}, {"skipped": True, "changed": False}])
def test_where_nobody_has_looked_everything_may_be_lacking(look: dict[str, Any]) -> None:
    assert packages_lacking(["haproxy=3.0.11-1"], look) == ["haproxy"]
    assert ports_in_doubt([{"address": "198.18.1.61", "ports": [1]}], look, []) == ["198.18.1.61"]


@pytest.mark.parametrize(
    ("place", "units", "doubt"),
    [
        ({"address": "198.18.1.61", "ports": [6379]}, ["redis-*"], []),
        ({"address": "198.18.1.61", "ports": ["6379"]}, ["valkey.service"], ["redis-server"]),
        ({"address": "198.18.1.62", "ports": [6379]}, [], []),
        ({"address": "198.18.1.62", "ports": [8443]}, ["haproxy.service"], ["nc"]),
        ({"address": "198.18.1.62", "ports": []}, [], []),
    ],
)
def test_a_socket_of_somebody_else_is_in_doubt(place: dict[str, Any], units: list[str], doubt: list[str]) -> None:
    found = ports_in_doubt([place], HOST, units)
    assert len(found) == len(doubt)
    assert all(process in text for process, text in zip(doubt, found, strict=True))


def test_a_host_without_ss_leaves_all_ports_in_doubt() -> None:
    assert ports_in_doubt([{"address": "::1", "ports": [1]}], {**HOST, "listening": None}, []) == ["::1"]


def test_what_dpkg_remembers_of_removed_packages_is_not_there() -> None:
    assert parse_packages("a 1 install installed\nb 2 deinstall config-files\nc 3 hold installed\n") == {"a": ("1", "install"), "c": ("3", "hold")}


def test_rules_are_in_force_where_the_ruleset_holds_them_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "rules.d").mkdir()
    written = {owner: f"# rules of {owner}\n" for owner in ("redis", "etcd", "nginx")}
    for owner, text in written.items():
        (tmp_path / f"rules.d/{owner}.nft").write_text(text)
    ruleset = source.join("inet sovereign", [tmp_path / "rules.d/redis.nft", tmp_path / "rules.d/etcd.nft"]).text
    (tmp_path / "ruleset.nft").write_text(ruleset)
    (tmp_path / "rules.d/etcd.nft").write_text("# other rules\n")
    assert source.in_force(tmp_path) == {"redis": source.digest(written["redis"])}


def test_nothing_is_in_force_on_a_host_without_a_firewall(tmp_path: Path) -> None:
    assert source.in_force(tmp_path) == {}


def test_the_role_and_the_module_mean_the_same_table() -> None:
    text = (PROJECT / "roles/firewall/vars/main.yml").read_text(encoding="utf-8")
    assert f"__firewall_directory: {source.DIRECTORY}\n" in text
    assert f"__firewall_table: {source.NAME}\n" in text


def test_the_module_looks_at_this_machine() -> None:
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"before": 1.5}})
    command = [sys.executable, "-m", "ansible_collections.sovereign.dify.plugins.modules.host_info"]
    environment = {"PYTHONPATH": str(PROJECT / "collections"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    run = subprocess.run(command, input=arguments, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["before"] == 1.5
    assert found["clock"] > 1.7e9
    assert found["packages"]["dpkg"]
    assert found["session"].keys() == {"client", "address", "port"}
