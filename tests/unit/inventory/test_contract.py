"""The contract: what roles find for a file that loads."""

from __future__ import annotations

import json
import zlib
from itertools import count
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.inventory.cluster import _trusted
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load

from tests.unit.inventory.cases import EXAMPLE, HERE, contract, edited, mistakes

BRANCH = (
    "models:\n",
    """\
  branch:
    clearance: internal
    admin_networks: [198.18.0.0/15]
    hosts:
      branch-gw1: {address: 198.18.3.11, vpn_address: 198.19.0.31, groups: [wireguard, model_gateway]}
models:
""",
)


def names(things: list[Any]) -> list[str]:
    return [thing["name"] for thing in things]


def test_the_example_gives_the_contract_of_the_design() -> None:
    wanted = yaml.safe_load((HERE / "good/example/contract.yml").read_text(encoding="utf-8"))
    found = contract()
    assert dict(found.nodes) == wanted["nodes"]
    assert dict(found.sites) == wanted["sites"]
    assert found.cluster == wanted["cluster"] | {"file": "/somewhere/cluster.yml", "state_dir": "/somewhere/.state"}


@pytest.mark.parametrize(("given", "found"), [("../keys", "/keys"), ("/var/lib/sovereign", "/var/lib/sovereign"), ("state/a", "/somewhere/state/a")])
def test_state_dir_starts_from_the_file(given: str, found: str) -> None:
    assert contract(("name: lab\n", f"name: lab\nstate_dir: {given}\n")).cluster["state_dir"] == found


def test_spokes_do_not_peer() -> None:
    found = contract(BRANCH)
    assert {host: names(node["vpn_peers"]) for host, node in found.nodes.items() if node["vpn_peers"]} == {
        "hq-gw1": ["branch-gw1", "edge-gw1"],
        "edge-gw1": ["hq-gw1"],
        "branch-gw1": ["hq-gw1"],
    }
    assert list(found.sites["branch"]["peers"]) == ["hq"]


def test_both_ends_of_a_tunnel_name_it_alike() -> None:
    found = contract(BRANCH)
    ends = sorted(peer["pair"] for node in found.nodes.values() for peer in node["vpn_peers"])
    assert ends == ["branch-gw1--hq-gw1"] * 2 + ["edge-gw1--hq-gw1"] * 2


def test_hubs_can_be_named_and_hubs_peer_with_each_other() -> None:
    found = contract(BRANCH, ("port: 51820", "hubs: [branch, edge]"))
    assert names(found.nodes["edge-gw1"]["vpn_peers"]) == ["branch-gw1", "hq-gw1"]
    assert names(found.nodes["hq-gw1"]["vpn_peers"]) == ["branch-gw1", "edge-gw1"]
    assert {name: site["hub"] for name, site in found.cluster["sites"].items()} == {"hq": False, "edge": True, "branch": True}


def test_a_site_without_gateways_is_no_hub_by_default() -> None:
    found = contract(
        ("wan_address: 198.18.9.11, vpn_address: 198.19.0.11, groups: [wireguard, model_gateway, nginx]", "groups: [model_gateway, nginx]"),
        (", models: [assistant, faq]", ", models: [faq]"),
        BRANCH,
    )
    assert [name for name, site in found.cluster["sites"].items() if site["hub"]] == ["branch"]


def test_gateways_of_one_site_do_not_peer() -> None:
    second = "      hq-gw2: {address: 198.18.1.12, wan_address: 198.18.9.12, vpn_address: 198.19.0.12, groups: [wireguard, model_gateway]}\n"
    found = contract(("      hq-gpu1:", f"{second}      hq-gpu1:"))
    assert names(found.nodes["hq-gw2"]["vpn_peers"]) == ["edge-gw1"]
    assert names(found.sites["edge"]["models"]["assistant"]["gateways"]) == ["hq-gw1", "hq-gw2"]


def test_a_peer_without_wan_address_has_no_endpoint() -> None:
    found = contract(BRANCH)
    assert {peer["name"]: peer["endpoint"] for peer in found.nodes["hq-gw1"]["vpn_peers"]} == {"branch-gw1": None, "edge-gw1": "198.18.9.21:51820"}


def test_ipv6_everywhere() -> None:
    text = (
        EXAMPLE.replace("198.19.0.0/24", "'fd00:19::/64'")
        .replace("vpn_address: 198.19.0.", "vpn_address: fd00:19::0:")
        .replace("wan_address: 198.18.9.", "wan_address: 2001:DB8::")
        .replace("address: 198.18.1.", "address: fd00:1::")
    )
    found = contract(text=text)
    assert found.nodes["edge-gw1"]["vpn_peers"][0]["endpoint"] == "[2001:db8::11]:51820"
    assert found.nodes["edge-gw1"]["vpn_peers"][0]["vpn_address"] == "fd00:19::11"
    assert found.nodes["hq-gpu1"]["address"] == "fd00:1::31"
    assert (found.cluster["vpn"] or {})["prefix"] == 64


def test_a_model_in_two_sites_is_served_at_home() -> None:
    found = contract(("hosts: [edge-gw1]", "hosts: [edge-gw1, hq-gpu1]"))
    for site, server in (("hq", "hq-gpu1"), ("edge", "edge-gw1")):
        assert names(found.sites[site]["models"]["faq"]["servers"]) == [server]
        assert found.sites[site]["models"]["faq"]["gateways"] == []


def test_a_third_site_has_the_gateways_of_all_sites_that_serve() -> None:
    found = contract(BRANCH, ("port: 51820", "hubs: [hq, edge]"), ("hosts: [edge-gw1]", "hosts: [edge-gw1, hq-gpu1]"))
    gateways = found.sites["branch"]["models"]["faq"]["gateways"]
    assert [(gateway["name"], gateway["site"]) for gateway in gateways] == [("edge-gw1", "edge"), ("hq-gw1", "hq")], (
        "in the order of the model's hosts"
    )


def test_without_a_way_a_model_is_not_callable() -> None:
    found = contract(BRANCH)
    assert found.cluster["models"]["faq"]["callable_from"] == ["edge", "hq"]
    assert "faq" not in found.sites["branch"]["models"]


def test_callable_from_narrows() -> None:
    found = contract(BRANCH, ("assistant: {", "assistant: {callable_from: [hq, edge], "))
    assert found.cluster["models"]["assistant"]["callable_from"] == ["edge", "hq"]
    assert "assistant" not in found.sites["branch"]["models"]
    assert found.sites["hq"]["peers"]["branch"]["models"] == []


def test_restricted_models_leave_no_trace_on_other_sites() -> None:
    found = contract(BRANCH)
    for site in ("edge", "branch"):
        assert "risk-scoring" not in str(found.sites[site])
        assert "risk-scoring" not in str([node for node in found.nodes.values() if node["site"] == site])


def test_a_peer_is_offered_only_clients_that_need_it() -> None:
    found = contract(("  web-chat:", "  local: {sites: [edge], models: [faq]}\n  web-chat:"))
    assert found.sites["hq"]["peers"]["edge"]["clients"] == ["web-chat"]
    assert list(found.sites["edge"]["clients"]) == ["local", "web-chat"]


def test_gpus_are_dealt_out_in_file_order() -> None:
    found = contract(("groups: [vllm]}", "groups: [vllm], gpus: 4}"))
    assert {model["name"]: model["gpus"] for model in found.nodes["hq-gpu1"]["models"]} == {"risk-scoring": [0, 1], "assistant": [2]}
    assert found.nodes["hq-gpu1"]["gpus"] == 4


def test_a_new_model_moves_no_port() -> None:
    before = contract()
    after = contract(("models:\n", "models:\n  new: {classification: public, source: /srv/models/new, hosts: [hq-gpu1]}\n"))
    ports = {model["name"]: model["port"] for model in after.nodes["hq-gpu1"]["models"]}
    assert {model["name"]: model["port"] for model in before.nodes["hq-gpu1"]["models"]}.items() <= ports.items()
    assert ports["new"] == 8100 + zlib.crc32(b"new") % 800


def test_a_derived_port_steps_over_those_of_the_gateway() -> None:
    name = next(f"m{number}" for number in count() if 8100 + zlib.crc32(f"m{number}".encode()) % 800 == 8443)
    found = contract(("  faq: {", f"  {name}: {{"), ("[assistant, faq]", f"[assistant, {name}]"))
    assert found.nodes["edge-gw1"]["models"][0]["port"] == 8445
    assert 8445 not in found.cluster["ports"].values()


def test_ports_of_the_file_reach_the_contract_and_move_no_others() -> None:
    usual = contract().cluster["ports"]
    found = contract(("models:\n", "ports: {model_gateway: 8450, local: {postgresql: 15432, object_storage: 19000}}\nmodels:\n"))
    assert found.cluster["ports"] == {**usual, "model_gateway": 8450, "local": {**usual["local"], "postgresql": 15432, "object_storage": 19000}}
    assert found.sites["hq"]["object_storage"]["endpoint"] == "http://127.0.0.1:19000"
    assert found.cluster["pki"]["pem"] == "/etc/sovereign/pki/host.pem"


def test_model_keys_reach_the_instance() -> None:
    given = "quantization: awq, dtype: float16, max_model_len: 4096, extra_args: {kv-cache-dtype: fp8, seed: 7}, port: 8200"
    instance = contract(("faq: {", f"faq: {{{given}, manifest_sha256: {'0a' * 32}, ")).nodes["edge-gw1"]["models"][0]
    assert instance == {
        "name": "faq",
        "port": 8200,
        "source": "/srv/models/tiny",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "rank": 0,
        "nodes": [contract().sites["edge"]["members"]["vllm"][0]],
        "gpus": [],
        "quantization": "awq",
        "dtype": "float16",
        "max_model_len": 4096,
        "manifest_sha256": "0a" * 32,
        "extra_args": {"kv-cache-dtype": "fp8", "seed": 7},
    }


def test_an_instance_over_several_hosts_has_one_that_answers_and_a_share_of_the_gpus_on_each() -> None:
    found = contract(
        (
            "      hq-gpu1: {address: 198.18.1.31, groups: [vllm]}",
            "\n".join(f"      hq-gpu{n}: {{address: 198.18.1.3{n}, gpus: 4, groups: [vllm]}}" for n in (1, 2, 3, 4)),
        ),
        ("tensor_parallel: 2, hosts: [hq-gpu1]", "tensor_parallel: 2, pipeline_parallel: 2, nodes: 2, hosts: [hq-gpu1, hq-gpu2, hq-gpu3, hq-gpu4]"),
    )
    model = "risk-scoring"
    assert [server["name"] for server in found.sites["hq"]["models"][model]["servers"]] == ["hq-gpu1", "hq-gpu3"]
    parts = {
        host: next(part for part in found.nodes[host]["models"] if part["name"] == model) for host in ("hq-gpu1", "hq-gpu2", "hq-gpu3", "hq-gpu4")
    }
    assert [part["rank"] for part in parts.values()] == [0, 1, 0, 1]
    assert [[node["name"] for node in part["nodes"]] for part in parts.values()] == [["hq-gpu1", "hq-gpu2"]] * 2 + [["hq-gpu3", "hq-gpu4"]] * 2
    assert all(part["gpus"] == [0, 1] for part in parts.values())


def test_site_knobs() -> None:
    given = """
    networks: [198.18.1.0/24, "fd00:1::/64"]
    client_networks: []
    egress: [{to: [198.18.5.5/32], protocol: tcp, ports: [443], comment: mirror}]
    entry: {name: ai.example.com, port: 8443}
"""
    edits = (("clearance: restricted\n", f"clearance: restricted{given.replace('8443', '9443')}"), ("198.18.0.0/15", "198.18.0.0/16"))
    site = contract(*edits).sites["hq"]
    assert site["networks"] == ["198.18.1.0/24", "fd00:1::/64"]
    assert site["admin_networks"] == ["198.18.0.0/16"]
    assert site["client_networks"] == []
    assert site["egress"] == [{"to": ["198.18.5.5/32"], "protocol": "tcp", "ports": [443], "comment": "mirror"}]
    assert site["entry"] == {"name": "ai.example.com", "port": 9443, "address": None}


def test_a_restricted_site_reaches_its_own_networks_by_default() -> None:
    site = contract(("clearance: restricted\n", "clearance: restricted\n    networks: [198.18.1.0/24]\n")).sites["hq"]
    assert {tuple(rule["to"]) for rule in site["egress"]} == {("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "198.18.1.0/24")}


def test_tiers_are_added_to_the_defaults_or_replace_them() -> None:
    found = contract(
        ("name: lab\n", "name: lab\ntiers: {vip: {rate: 1, burst: 2}, night: {rate: 3, burst: 4}, batch: {rate: 5, burst: 6, priority: 9}}\n")
    )
    assert found.cluster["tiers"] == {
        "vip": {"rate": 1, "burst": 2, "priority": 0},
        "standard": {"rate": 10, "burst": 20, "priority": 5},
        "night": {"rate": 3, "burst": 4, "priority": 5},
        "batch": {"rate": 5, "burst": 6, "priority": 9},
    }


def test_any_tier_can_be_put_in_its_place() -> None:
    found = contract(("name: lab\n", "name: lab\ntiers: {vip: {rate: 1, burst: 2, priority: 3}, standard: {rate: 1, burst: 2, priority: 0}}\n"))
    assert {name: tier["priority"] for name, tier in found.cluster["tiers"].items()} == {"vip": 3, "standard": 0}


def test_one_site_needs_no_vpn() -> None:
    text = """
plugin: sovereign.dify.cluster
name: one
domain: one.internal
sites: {hq: {clearance: public, hosts: {gw1: {address: 10.0.0.1, groups: [model_gateway, nginx]}}}}
"""
    found = contract(text=text)
    assert found.cluster["vpn"] is None
    assert found.sites["hq"]["peers"] == {}
    assert found.sites["hq"]["members"]["wireguard"] == []


def test_an_address_may_be_its_hosts_wan_address_too() -> None:
    assert mistakes(edited(("{address: 198.18.2.11, wan_address: 198.18.9.21", "{address: 198.18.9.21, wan_address: 198.18.9.21"))) == []


def test_base_groups_can_be_changed() -> None:
    found = contract(("name: lab\n", "name: lab\nbase_groups: [baseline]\n"))
    assert found.nodes["hq-gpu1"]["groups"] == ["baseline", "vllm"]
    assert found.sites["hq"]["members"]["pki"] == []


def test_anchors_and_merge_keys() -> None:
    found = contract(
        (
            "  assistant: {classification: public, source: /srv/models/tiny, ",
            "  assistant: &open {classification: public, source: /srv/models/tiny, ",
        ),
        ("faq: {classification: public, source: /srv/models/tiny, hosts: [edge-gw1]}", "faq: {<<: *open, hosts: [edge-gw1]}"),
    )
    assert found.nodes["edge-gw1"]["models"][0]["source"] == "/srv/models/tiny"
    assert found.cluster["models"]["faq"]["hosts"] == ["edge-gw1"]


def test_blank_optional_keys_count_as_left_out() -> None:
    assert contract(("groups: [vllm]}", "groups: [vllm], gpus: null, wan_address: }")).nodes == contract().nodes


def test_site_groups_have_names_that_ansible_takes() -> None:
    text = edited().replace("edge:\n", "cloud-east-1:\n").replace("[edge]", "[cloud-east-1]")
    assert load(text, "cluster.yml").cluster["sites"]["cloud-east-1"]["group"] == "site_cloud_east_1"


@pytest.mark.parametrize(
    ("given", "endpoint", "tls_endpoint"),
    [
        ("{host: oss.bank.internal, region: cn-north-1}", "https://oss.bank.internal", "https://oss.bank.internal"),
        ("{host: 10.1.1.9, port: 9000, tls: none, region: cn-north-1}", "http://10.1.1.9:9000", None),
    ],
)
def test_an_object_storage_of_others_is_talked_to_at_its_own_address(given: str, endpoint: str, tls_endpoint: str | None) -> None:
    site = "  edge:\n    clearance: public\n"
    edge = contract((site, f"{site}    external: {{object_storage: {given}}}\n")).sites["edge"]
    common = {"authority": None, "region": "cn-north-1", "addressing": "host"}
    assert edge["object_storage"] == {"endpoint": endpoint, "tls_endpoint": tls_endpoint, **common}


def test_an_inventory_that_was_exported_has_the_same_order_in_every_template() -> None:
    # ansible-inventory --export, by which AWX takes an inventory from a project, sorts all keys; templates go by their order.
    found = contract()
    for given in (found.cluster, *found.sites.values(), *found.nodes.values()):
        handed = _trusted(given)
        assert handed == given
        assert json.dumps(handed) == json.dumps(given, sort_keys=True)


def test_exporters_are_on_every_host_of_a_site_with_prometheus() -> None:
    watched = contract(("groups: [vllm]", "groups: [vllm, prometheus]"))
    assert [host["name"] for host in watched.sites["hq"]["members"]["exporters"]] == ["hq-gw1", "hq-gpu1"]
    assert watched.sites["edge"]["members"]["exporters"] == []
    assert "exporters" in watched.nodes["hq-gw1"]["groups"]
    assert contract().sites["hq"]["members"]["exporters"] == []


def test_a_group_of_ones_own_is_like_any_other() -> None:
    own = contract(("\nsites:", "\nextra_groups: [ledger]\nsites:"), ("groups: [vllm]", "groups: [vllm, ledger]"))
    assert [host["name"] for host in own.sites["hq"]["members"]["ledger"]] == ["hq-gpu1"]
    assert "ledger" in own.groups
