"""What the roles of the entry, the gateways, Dify and its images refuse: each fault by itself, and nothing of what is right."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load
from ansible_collections.sovereign.dify.plugins.modules import dify_bytecode

from tests.unit.inventory.cases import EXAMPLE
from tests.unit.test_body_limits import MIB, value
from tests.unit.test_dify_role import ROLE, Rendered

CLIENTS = {"one": {"tier": "fast"}, "two": {"tier": "slow"}}
KEYS = {"one": "sk-one-0123456789abcdef", "two": ["sk-two-0123456789abcdef", "sk-two-fedcba9876543210"]}
TIERS: dict[str, Any] = {"fast": {}, "slow": {}}
SERVERS = [{"address": "198.18.1.31", "port": 8443}]
NGINX = {
    "nginx_clients": CLIENTS,
    "nginx_keys": KEYS,
    "nginx_tiers": TIERS,
    "nginx_applications": {"app": {"key": "app-0123456789abcdefgh", "tier": "slow"}},
    "nginx_pepper": "0123456789abcdefghij",
    "nginx_upstreams": {"up": {"servers": SERVERS}},
    "nginx_locations": [{"path": "/v1/", "upstream": "up"}, {"path": "/", "upstream": "up"}],
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("state"), "hq-app1")


def application(key: str) -> dict[str, Any]:
    return {"app": {"key": key, "tier": "slow"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        # A site without clients of the models.
        ({"nginx_tiers": {}, "nginx_clients": {}, "nginx_applications": {}}, []),
        ({"nginx_clients": {**CLIENTS, "three": {"tier": "fast"}}}, ["no key in nginx_keys: three."]),
        ({"nginx_applications": {"two": {"key": "app-0123456789abcdefgh", "tier": "slow"}}}, ["those of clients of the models, too: two."]),
        ({"nginx_applications": {"a b": {"key": "app-0123456789abcdefgh", "tier": "slow"}}}, ["with a letter or a digit in front: a b."]),
        ({"nginx_tiers": {"fast": {}}}, ["not in nginx_tiers (fast): slow."]),
        ({"nginx_server_names": []}, ["no name in nginx_server_names"]),
        ({"nginx_locations": [{"path": "/", "upstream": "elsewhere"}]}, ["not in nginx_upstreams (up): elsewhere."]),
        ({"nginx_upstreams": {"up": {"servers": SERVERS}, "empty": {"servers": []}}}, ["have no servers: empty."]),
        ({"nginx_locations": [{"path": path, "upstream": "up"} for path in ("/v1", "/", "/v1")]}, ["more than once in nginx_locations: /v1."]),
        ({"nginx_locations": [{"path": "/healthz", "upstream": "up"}]}, ["/healthz is a path of nginx itself"]),
        ({"nginx_server_names": [], "nginx_tiers": {"slow": {}}}, ["not in nginx_tiers (slow): fast.", "no name in nginx_server_names"]),
    ],
)
def test_the_entry_names_what_is_wrong(given: dict[str, Any], said: list[str]) -> None:
    found = value("nginx", "{{ __nginx_faults }}", **NGINX | given)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True)), found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"nginx_keys": KEYS | {"one": "short"}}, ["Every client"]),
        ({"nginx_keys": KEYS | {"one": "sk-two-0123456789abcdef"}}, ["Every client"]),
        ({"nginx_applications": application("app-0123 456789abcdefgh")}, ["Every client"]),
        ({"nginx_applications": application("sk-one-0123456789abcdef")}, ["Every client"]),
        ({"nginx_pepper": "short"}, ["nginx_pepper"]),
    ],
)
def test_what_is_wrong_with_secrets_of_the_entry_is_said_without_them(given: dict[str, Any], said: list[str]) -> None:
    found = value("nginx", "{{ __nginx_secret_faults }}", **NGINX | given)
    assert [sentence.startswith(part) for part, sentence in zip(said, found, strict=True)] == [True] * len(said)
    assert not any(secret in sentence for sentence in found for secret in ("0123", "short"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"model_gateway_keys": {"one": KEYS["one"]}}, ["no key in model_gateway_keys: two."]),
        ({"model_gateway_tiers": {"fast": {}}}, ["not in model_gateway_tiers (fast): slow."]),
        ({"model_gateway_max_body_bytes": 64 * MIB, "model_gateway_max_large_bodies": 100}, ["Lower one of the two"]),
        ({"model_gateway_peers": {"edge": {"gateways": []}}}, ["has peers (edge) but no model_gateway_vpn_address"]),
    ],
)
def test_the_gateway_names_what_is_wrong(given: dict[str, Any], said: list[str]) -> None:
    gateway = {
        "model_gateway_clients": CLIENTS,
        "model_gateway_peer_clients": {},
        "model_gateway_peers": {},
        "model_gateway_vpn_address": "",
        "model_gateway_keys": KEYS,
        "model_gateway_tiers": TIERS,
    }
    found = value("model_gateway", "{{ __model_gateway_faults }}", **gateway | given)
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True)), found


@pytest.mark.parametrize(
    ("keys", "count"),
    [(KEYS, 0), ({"one": "short"}, 1), ({"one": "sk-one 0123456789abcdef"}, 1), ({"one": KEYS["one"], "two": KEYS["one"]}, 1)],
)
def test_the_gateway_refuses_keys_that_are_short_or_shared(keys: dict[str, Any], count: int) -> None:
    assert len(value("model_gateway", "{{ __model_gateway_secret_faults }}", model_gateway_keys=keys)) == count


def image(name: str, **given: Any) -> dict[str, Any]:
    return {"reference": name, "name": name, "digest": None, "archive": None, "sha256": None} | given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        (
            {"ansible_facts": {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}},
            ["Ubuntu 24.04", "(Debian 13)"],
        ),
        ({"container_engine_mirror": "https://mirror.test/hub"}, ["container_engine_mirror (https://mirror.test/hub) is a URL"]),
        ({"container_engine_images": [image("api", archive="/nowhere/api.tar", sha256="0" * 64)]}, ["not on the controller: /nowhere/api.tar."]),
        ({"container_engine_images": [image("api"), image("web", archive=__file__)]}, ["neither a digest nor an archive", "known: api, web."]),
    ],
)
def test_the_engine_names_what_is_wrong(given: dict[str, Any], said: list[str]) -> None:
    facts = {"distribution": "Debian", "distribution_version": "13.5", "distribution_major_version": "13"}
    images = [image("api", digest="sha256:0"), image("web", archive=__file__, sha256="0" * 64)]
    engine = {"ansible_facts": facts, "container_engine_mirror": "mirror.test:5000/hub", "container_engine_images": images}
    found = value("container_engine", "{{ __container_engine_faults }}", **engine | given)
    assert len(found) == bool(said)
    assert all(part in found[0] for part in said), found


@pytest.mark.parametrize(
    ("given", "complete"),
    [
        ({}, False),
        ({"__container_engine_room": {"missing": [], "shortages": []}}, True),
        ({"__container_engine_room": {"missing": ["api"], "shortages": []}}, False),
        # podman could not be asked.
        ({"__container_engine_room": {"missing": [], "msg": "podman: no such file"}}, False),
        ({"__container_engine_room": {"missing": [], "shortages": []}, "__container_engine_written": {"changed": True}}, False),
    ],
)
def test_images_are_looked_for_again_unless_all_were_found(given: dict[str, Any], complete: bool) -> None:
    assert value("container_engine", "{{ __container_engine_complete }}", **given) is complete


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"dify_lease_seconds": 44}, ["dify_lease_seconds (44) must be at least 45"]),
        ({"dify_reserved_places": 1000}, ["dify_reserved_places (1000) leaves nothing to others"]),
        ({"dify_sandbox_network": "10.89.77.0/30"}, ["dify_sandbox_network (10.89.77.0/30) needs room"]),
    ],
)
def test_dify_names_what_is_wrong(host: Rendered, given: dict[str, Any], said: list[str]) -> None:
    found = host.value("{{ __dify_faults }}", **given)
    assert [sentence.startswith(part) for part, sentence in zip(said, found, strict=True)] == [True] * len(said)


def test_the_account_that_is_there_as_it_should_be_is_left_alone(host: Rendered) -> None:
    def owner(*lines: str, **more: Any) -> tuple[bool, str, bool]:
        look = {"stdout": "\n".join(lines), "stdout_lines": list(lines)}
        told = [host.value(f"{{{{ {name} }}}}", __dify_look=look, **more) for name in ("__dify_found_account", "__dify_owner", "__dify_compiled")]
        return bool(told[0]), told[1], told[2]

    entry = "dify_api:x:990:985::/nonexistent:/usr/sbin/nologin"
    assert owner(entry, "dify_api", "compiled") == (True, "990:985", True)
    assert owner(entry, "dify_api") == (True, "990:985", False)
    made = {"__dify_user": {"uid": 990, "group": 985}}
    for lines in ([], ["compiled"], [entry, "users"], [entry.replace("nologin", "sh"), "dify_api"], [entry.replace("/nonexistent", "/"), "dify_api"]):
        assert owner(*lines, **made) == (False, "990:985", "compiled" in lines)
    # What says so is what the module leaves behind.
    assert f'"{{{{ __dify_bytecode }}}}/{dify_bytecode.COMPLETE}"' in (ROLE / "tasks/account.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("noted", "migrated"),
    [
        ({}, False),
        ({"__dify_migration": {"skipped": True}}, False),
        ({"__dify_migration": {"former": "x", "diff": {"before": "x\n", "after": "another\n"}}}, False),
        ({"__dify_migration": {"former": "x", "diff": {"before": "x\n", "after": "IMAGE\n"}}}, True),
    ],
)
def test_the_database_is_asked_again_unless_the_host_that_migrates_has_just_noted_the_same_image(
    host: Rendered, noted: dict[str, Any], migrated: bool
) -> None:
    ours = host.value("{{ dify_images.api }}")
    told = {
        name: {**result, **({"diff": {"after": result["diff"]["after"].replace("IMAGE", ours)}} if "diff" in result else {})}
        for name, result in noted.items()
    }
    assert host.value("{{ __dify_migrates }}", dify_name="hq-app2") is False
    assert host.value("{{ __dify_migrated }}", hostvars={"hq-app1": told, "hq-app2": {}}) is migrated
    assert host.value("{{ __dify_migrated }}", hostvars={"hq-app1": told, "hq-app2": {}}, ansible_check_mode=True) is False


SAME, OTHER, SKIPPED = {"changed": False}, {"changed": True}, {"changed": False, "skipped": True}


@pytest.mark.parametrize(
    ("files", "before", "applied", "compared"),
    [
        (SAME, {"content": "now"}, SAME, True),
        (None, {"content": "now"}, SAME, False),
        (SAME, {"content": "now"}, None, False),
        (OTHER, {"content": "now"}, OTHER, False),
        (SAME, {"content": "before"}, SAME, False),
        (SAME, {"msg": "connection refused"}, SAME, False),
    ],
)
def test_nginx_is_asked_by_verify_unless_this_run_has_found_all_in_order(files: Any, before: Any, applied: Any, compared: bool) -> None:
    told = {"__nginx_files": files, "__nginx_before": before, "__nginx_applied": applied}
    known = {name: result for name, result in told.items() if result is not None}
    assert value("nginx", "{{ __nginx_compared }}", __nginx_generation="now", **known) is compared


@pytest.mark.parametrize(
    ("files", "running", "applied", "compared"),
    [
        (SAME, {"differences": []}, SAME, True),
        (None, {"differences": []}, SAME, False),
        (SAME, {"differences": []}, None, False),
        (OTHER, SKIPPED, OTHER, False),
        (OTHER, SKIPPED, SAME, False),
        (SAME, {"differences": ["a table"]}, OTHER, False),
        # Did not answer.
        (SAME, {"msg": "no such file"}, SAME, False),
    ],
)
def test_haproxy_is_asked_by_verify_unless_this_run_has_found_all_in_order(files: Any, running: Any, applied: Any, compared: bool) -> None:
    told = {"__model_gateway_files": files, "__model_gateway_running": running, "__model_gateway_applied": applied}
    known = {name: result for name, result in told.items() if result is not None}
    assert value("model_gateway", "{{ __model_gateway_compared }}", **known) is compared


def test_the_example_has_no_fault() -> None:
    names = load(EXAMPLE, "/somewhere/cluster.yml").cluster["clients"]
    keys = {name: f"sk-{name}-0123456789abcdef" for name in names}
    assert value("nginx", "{{ __nginx_faults + __nginx_secret_faults }}", nginx_keys=keys, nginx_pepper="0123456789abcdefghij") == []
    assert value("model_gateway", "{{ __model_gateway_faults + __model_gateway_secret_faults }}", model_gateway_keys=keys) == []
