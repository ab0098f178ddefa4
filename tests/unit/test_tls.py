"""TLS versions and cipher suites come from the contract alone, and are what they promise to be."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.filter.haproxy_tls import FilterModule, haproxy_tls
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import TLS_CIPHERS, TLS_CIPHERSUITES, TLS_VERSIONS

PROJECT = Path(__file__).resolve().parents[2]
# Suites, groups of them, and versions below 1.3, in the spellings of OpenSSL, of those who use it, and of Erlang.
NAMED = re.compile(r"\bEC?DHE\b|AES(?:128|256)?-?GCM|CHACHA20|\bHIGH:|TLS_(?:AES|CHACHA)|\b(?:TLS|tls)v?1[._][012]\b")
ROLES = ("dify", "model_gateway", "nginx", "object_storage", "patroni", "pgpool", "rabbitmq", "redis", "service_proxy", "vllm")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_suite_has_forward_secrecy_and_authenticated_encryption() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(":".join(TLS_CIPHERS))
    found = {cipher["name"]: cipher for cipher in context.get_ciphers()}
    assert set(found) == {*TLS_CIPHERS, *TLS_CIPHERSUITES}
    assert all(cipher["aead"] for cipher in found.values())
    assert {found[name]["kea"] for name in TLS_CIPHERS} == {"kx-ecdhe"}
    assert TLS_VERSIONS == ("TLSv1.2", "TLSv1.3")


def test_nothing_else_names_versions_or_suites() -> None:
    files = [
        path
        for pattern in ("roles/*/[!m]*/**/*", "playbooks/**/*", "plugins/**/*.py", "inventories/**/*.yml")
        for path in PROJECT.glob(pattern)
        if path.suffix in {".yml", ".j2", ".py", ".sh", ".lua", ""} and path.is_file() and path.name != "contract.py"
    ]
    assert {path.parts[len(PROJECT.parts) + 1] for path in files if path.is_relative_to(PROJECT / "roles")} >= set(ROLES)
    named = {str(path.relative_to(PROJECT)): NAMED.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {name: found for name, found in named.items() if found} == {}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_them_in_one_place_and_uses_them(role: str) -> None:
    here, first = (PROJECT / "roles" / name for name in (role, ROLES[0]))
    knob = f"{role}_tls"
    assert load(here / "defaults/main.yml")[knob] == "{{ cluster.tls }}"
    options, others = (load(path / "meta/argument_specs.yml")["argument_specs"]["main"]["options"] for path in (here, first))
    assert options[knob]["options"] == others[f"{ROLES[0]}_tls"]["options"]
    texts = [path.read_text(encoding="utf-8") for folder in ("templates", "vars") for path in (here / folder).glob("*")]
    assert any(re.search(rf"\b{knob}\b", text) for text in texts)


def test_haproxy_is_held_to_them_on_both_sides() -> None:
    lines = haproxy_tls({"versions": ["TLSv1.2", "TLSv1.3"], "ciphers": ["A", "B"], "ciphersuites": ["C"]}).splitlines()
    assert lines == [
        "ssl-default-bind-options ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.3",
        "ssl-default-bind-ciphers A:B",
        "ssl-default-bind-ciphersuites C",
        "ssl-default-server-options ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.3",
        "ssl-default-server-ciphers A:B",
        "ssl-default-server-ciphersuites C",
    ]
    assert FilterModule().filters() == {"haproxy_tls": haproxy_tls}
