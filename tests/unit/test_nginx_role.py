"""Routes of the entry, rendered by Ansible's engine from a contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.unit.inventory.cases import EXAMPLE, HERE
from tests.unit.role_variables import rendered, role_variables

ROLE = Path(__file__).resolve().parents[2] / "roles/nginx"
DIFY = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")


def value(cluster: str, text: str) -> Any:
    return rendered(text, role_variables("nginx", cluster, "hq-gw1"))


def routes(cluster: str) -> dict[str, str]:
    return {location["path"]: location["upstream"] for location in value(cluster, "{{ nginx_locations }}")}


def test_without_dify_models_have_the_whole_of_v1() -> None:
    assert routes(EXAMPLE) == {"/v1/": "model_gateway"}
    assert list(value(EXAMPLE, "{{ nginx_upstreams }}")) == ["model_gateway"]


def test_with_dify_each_path_has_its_service_and_models_keep_theirs() -> None:
    assert routes(DIFY) == {
        **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"), "model_gateway"),
        **dict.fromkeys(("/console/api", "/api", "/v1", "/openapi", "/files", "/mcp", "/triggers"), "dify_api"),
        "/socket.io/": "dify_websocket",
        "/e/": "dify_plugin_daemon",
        "/": "dify_web",
    }


def test_with_dify_each_path_takes_one_kind_of_key() -> None:
    kinds = {location["path"]: location["key_kind"] for location in value(DIFY, "{{ nginx_locations }}")}
    assert {path for path, kind in kinds.items() if kind == "model"} == {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"}
    assert {path for path, kind in kinds.items() if kind == "application"} == {"/v1"}
    assert set(kinds.values()) == {"model", "application", "not_model"}


def test_the_gateways_paths_are_those_that_the_gateway_serves() -> None:
    gateway = yaml.safe_load((ROLE.parent / "model_gateway/vars/main.yml").read_text(encoding="utf-8"))
    ours = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__nginx_model_paths"]
    assert sorted(ours) == sorted([*gateway["__model_gateway_paths"], "/v1/models"])


def test_headers_that_difys_proxies_believe_are_set_or_cleared_at_the_entry() -> None:
    proxies = (ROLE.parent / "dify/templates/haproxy.cfg.j2").read_text(encoding="utf-8").lower()
    believed = set(re.findall(r"req\.f?hdr\(([\w-]+)\)", proxies)) - {"host"}
    ours = set(re.findall(r"proxy_set_header ([\w-]+)", (ROLE / "templates/nginx.conf.j2").read_text(encoding="utf-8").lower()))
    cleared = {name.lower() for name in yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__nginx_cleared_headers"]}
    assert {"x-dify-from", "x-sovereign-tier", "x-request-id"} <= believed <= ours | cleared
    assert ours & cleared == set()


def test_dify_is_asked_with_mutual_tls_and_sockets_stay_with_one_server() -> None:
    upstreams = value(DIFY, "{{ nginx_upstreams }}")
    assert upstreams["dify_api"] == {
        "servers": [{"address": "198.18.1.51", "port": 9441}, {"address": "198.18.1.52", "port": 9441}],
        "tls_name": "dify.hq.lab.internal",
        "sticky": False,
    }
    assert [name for name, upstream in upstreams.items() if upstream.get("sticky")] == ["dify_websocket"]
    (socket,) = [location for location in value(DIFY, "{{ nginx_locations }}") if location["upstream"] == "dify_websocket"]
    assert socket["websocket"] is True
    given = yaml.safe_load((ROLE.parent / "dify/vars/main.yml").read_text(encoding="utf-8"))["__dify_ports"]
    ports = {name: value(DIFY, text) for name, text in given.items() if name.endswith("_tls")}
    assert upstreams["dify_plugin_daemon"]["servers"][0]["port"] == ports["webhooks_tls"]
    assert (ports["api_tls"], ports["websocket_tls"], ports["web_tls"]) == (9441, 9442, 9443)
