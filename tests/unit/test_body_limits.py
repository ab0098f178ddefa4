"""Bodies on the way to a model: one limit for all hops, what the gateway reserves for them, and the comparison of the hops."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.body_limits import Hop, smaller_hops
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load

from tests.unit.inventory.cases import EXAMPLE
from tests.unit.role_variables import PROJECT, rendered, role_variables

MIB = 1024 * 1024
LIMIT = 16 * MIB


def value(role: str, text: str, cluster: str = EXAMPLE, /, **given: Any) -> Any:
    facts = {"ansible_facts": {"memtotal_mb": 8000, "processor_vcpus": 4}}
    return rendered(text, role_variables(role, cluster, "hq-gw1") | facts | given)


def hop(name: str, site: str, entry: int | None, gateway: int | None, *peers: str) -> Hop:
    return {"name": name, "site": site, "entry": entry, "gateway": gateway, "peers": list(peers)}


@pytest.mark.parametrize(("added", "limit"), [("", LIMIT), ("max_body_bytes: 46137344\n", 44 * MIB)])
def test_one_key_of_the_cluster_file_sets_every_hop(added: str, limit: int) -> None:
    cluster = added + EXAMPLE
    assert value("nginx", "{{ nginx_max_body_bytes }}", cluster) == limit
    assert value("model_gateway", "{{ model_gateway_max_body_bytes }}", cluster) == limit


def test_the_default_holds_the_largest_image_of_dify_and_a_long_text() -> None:
    image = -(-10 * MIB // 3) * 4
    assert image + 2 * MIB < load(EXAMPLE, "/somewhere/cluster.yml").cluster["max_body_bytes"]


def test_every_hop_that_is_smaller_than_the_one_before_is_named() -> None:
    edge, home = hop("edge-gw1", "edge", LIMIT, LIMIT, "hq-gw1"), hop("hq-gw1", "hq", LIMIT, LIMIT)
    assert smaller_hops([edge, home]) == []
    assert smaller_hops([hop("edge-gw1", "edge", MIB, MIB, "hq-gw1"), home]) == [], "a later hop may take more"
    assert smaller_hops([edge, hop("hq-gw1", "hq", MIB, MIB)]) == [
        f"The model gateway on hq-gw1 takes bodies of up to {MIB} bytes, but the one on edge-gw1 passes up to {LIMIT} bytes on to it."
    ]
    assert smaller_hops([hop("hq-web1", "hq", LIMIT, None), hop("hq-gw1", "hq", None, MIB), edge | {"peers": []}]) == [
        f"The model gateway on hq-gw1 takes bodies of up to {MIB} bytes, but nginx on hq-web1 passes up to {LIMIT} bytes on to it."
    ]


@pytest.mark.parametrize(("memory", "limit", "most"), [(8000, LIMIT, 124), (8000, 44 * MIB, 45), (64000, LIMIT, 996), (64, LIMIT, 1)])
def test_the_gateway_admits_as_many_large_bodies_as_fit_into_half_of_the_memory(memory: int, limit: int, most: int) -> None:
    facts = {"memtotal_mb": memory}
    assert value("model_gateway", "{{ model_gateway_max_large_bodies }}", ansible_facts=facts, model_gateway_max_body_bytes=limit) == most


@pytest.mark.parametrize(
    ("memory", "given", "refused"),
    [
        (8000, {}, False),
        (8000, {"model_gateway_max_large_bodies": 125}, True),
        (64, {}, True),
        (64, {"model_gateway_max_body_bytes": MIB, "model_gateway_max_large_bodies": 125}, False),
    ],
)
def test_more_than_fits_into_the_memory_is_refused(memory: int, given: dict[str, Any], refused: bool) -> None:
    keys = {name: f"sk-{name}-0123456789abcdef" for name in load(EXAMPLE, "/somewhere/cluster.yml").cluster["clients"]}
    faults = value("model_gateway", "{{ __model_gateway_faults }}", ansible_facts={"memtotal_mb": memory}, model_gateway_keys=keys, **given)
    assert len(faults) == refused
    if refused:
        assert re.search(rf"hold up to \d+ MiB; half of the memory of the host is {memory // 2} MiB", faults[0])


def preflight(tmp_path: Path, hosts: dict[str, dict[str, int]]) -> subprocess.CompletedProcess[str]:
    """Run the comparison of the preflight on the example, with variables of hosts."""
    (tmp_path / "cluster.yml").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "host_vars").mkdir()
    for host, variables in hosts.items():
        (tmp_path / "host_vars" / f"{host}.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    plays = yaml.safe_load((PROJECT / "playbooks/preflight.yml").read_text(encoding="utf-8"))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play for play in plays if play["name"] == "Preflight of the way to the models"]))
    command = ["ansible-playbook", "--inventory", str(tmp_path / "cluster.yml"), str(tmp_path / "play.yml")]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)


def test_the_preflight_compares_the_hops_of_all_sites(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good = preflight(tmp_path / "good", {})
    assert good.returncode == 0, good.stdout
    bad = preflight(tmp_path / "bad", {"hq-gw1": {"model_gateway_max_body_bytes": MIB}})
    assert bad.returncode != 0
    said = " ".join(bad.stdout.split())
    assert "but the one on edge-gw1 passes up to 16777216 bytes on to it" in said
    assert "but nginx on hq-gw1 passes up to 16777216 bytes on to it" in said
    assert "max_body_bytes in cluster.yml" in said
