"""What the role grafana refuses, and what it makes of a site: settings, data sources, dashboards, firewall rules, what is wrong with an answer."""

from __future__ import annotations

import configparser
import json
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.filter.firewall_fragment import firewall_fragment

from tests.unit import role_variables

CLUSTER = """
plugin: sovereign.dify.cluster
name: lab
domain: lab.internal
sites:
  hq:
    clearance: restricted
    networks: [198.18.1.0/24]
    admin_networks: [198.18.9.0/24]
    hosts:
      hq-mon1: {address: 198.18.1.51, groups: [prometheus]}
      hq-mon2: {address: 198.18.1.52, groups: [prometheus]}
      hq-db1: {address: 198.18.1.21, groups: [etcd]}
"""
FACTS = {"distribution": "Debian", "distribution_major_version": "13"}
KEY = {"grafana_repository_key_sha256": "0" * 64}


def variables(host: str = "hq-mon2", **changes: Any) -> dict[str, Any]:
    given = role_variables.role_variables("grafana", CLUSTER, host)
    members = dict(given["site"]["members"])
    members["grafana"] = [member for member in members["prometheus"] if member["name"] == "hq-mon2"]
    contract = {
        "site": given["site"] | {"members": members},
        "cluster": given["cluster"] | {"ports": {**given["cluster"]["ports"], "grafana": 3000}},
    }
    secrets = {"grafana_admin_password": "pass-word", "grafana_secret_key": "secret-key"}
    return given | contract | {"ansible_facts": FACTS, "ansible_managed": "Managed"} | secrets | KEY | changes


def read(name: str, **changes: Any) -> Any:
    return role_variables.rendered(f"{{{{ {name} }}}}", variables(**changes))


def template(name: str, **changes: Any) -> str:
    return role_variables.template("grafana", name, variables(**changes))


def settings(**changes: Any) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(template("grafana.ini", **changes))
    return {section: dict(parser[section]) for section in parser.sections()}


def test_what_is_right_is_not_refused() -> None:
    assert read("__grafana_faults") == []
    archive = {"grafana_source": "archive", "grafana_archive": "/srv/grafana.deb", "grafana_archive_sha256": "0" * 64}
    assert read("__grafana_faults", grafana_repository_key_sha256="", **archive) == []
    assert read("__grafana_faults", grafana_version="13.2.2", grafana_client_networks=[]) == []
    assert read("__grafana_faults", grafana_public_url="https://dashboards.test:3000/sub/path/", **KEY) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ansible_facts": FACTS | {"distribution_major_version": "12"}}, "made for Debian 13, and the host has Debian 12."),
        ({"grafana_repository_key_sha256": ""}, "grafana_repository_key_sha256 is missing: whoever holds the key"),
        ({"grafana_source": "archive", "grafana_archive": "/x.deb"}, "give grafana_archive, the package on the controller, and its"),
        ({"grafana_version": "13.2.1"}, "Grafana 13.2.1 loses the data source of Prometheus"),
        ({"grafana_version": "13.2.0+security-01"}, "Grafana 13.2.0+security-01 loses the data source"),
        ({"grafana_prometheus": []}, "grafana_prometheus is empty"),
        ({"grafana_client_networks": ["198.18.9.0/24", "0.0.0.0/0"]}, "grafana_client_networks (198.18.9.0/24, 0.0.0.0/0) holds all networks"),
        ({"grafana_client_networks": ["::/0"]}, "holds all networks"),
        ({"grafana_public_url": "http://grafana.bank.example/"}, "must begin with https:// and end with /."),
        ({"grafana_public_url": "https://grafana.bank.example/x"}, "must begin with https:// and end with /."),
        ({"grafana_extra_dashboards": ["/a/x.json", "/b/x.json"]}, "grafana_extra_dashboards has two files of one name: x.json, x.json."),
    ],
)
def test_what_is_wrong_is_said_alone(changes: dict[str, Any], said: str) -> None:
    found = read("__grafana_faults", **changes)
    assert len(found) == 1, found
    assert said in found[0]


def test_the_version_is_that_of_the_repository_alone() -> None:
    assert read("__grafana_packages") == ["grafana"]
    assert read("__grafana_packages", grafana_version="13.2.3") == ["grafana=13.2.3"]
    assert read("__grafana_packages", grafana_version="13.2.3", grafana_source="archive") == ["grafana"]


def test_settings_speak_tls_keep_secrets_out_and_call_nobody() -> None:
    found = settings()
    server = found["server"]
    assert (server["protocol"], server["http_addr"], server["http_port"]) == ("https", "198.18.1.52", "3000")
    assert (server["domain"], server["root_url"]) == ("hq-mon2.lab.internal", "https://hq-mon2.lab.internal:3000/")
    assert server["min_tls_version"] == "TLS1.2"
    assert settings(grafana_tls_versions=["TLSv1.3"])["server"]["min_tls_version"] == "TLS1.3"
    assert found["security"]["admin_password"] == "$__file{/etc/sovereign/grafana/admin_password}"
    assert found["security"]["secret_key"] == "$__file{/etc/sovereign/grafana/secret_key}"
    assert found["security"]["data_source_proxy_whitelist"] == "198.18.1.51:9090 198.18.1.52:9090"
    assert found["auth.anonymous"]["enabled"] == "false"
    off = [("analytics", "reporting_enabled"), ("analytics", "check_for_updates"), ("analytics", "check_for_plugin_updates")]
    off += [("news", "news_feed_enabled"), ("plugins", "plugin_admin_enabled"), ("plugins", "preinstall_auto_update")]
    off += [("snapshots", "external_enabled"), ("public_dashboards", "enabled"), ("users", "allow_sign_up")]
    assert {found[section][name] for section, name in off} == {"false"}
    assert (found["security"]["disable_gravatar"], found["plugins"]["preinstall_disabled"]) == ("true", "true")
    assert "pass-word" not in template("grafana.ini")
    assert "secret-key" not in template("grafana.ini")


def test_settings_of_ones_own_come_before_the_roles_and_keep_their_signs() -> None:
    own = {"auth.ldap": {"enabled": True, "config_file": "/etc/x#y"}, "users": {"auto_assign_org_role": "Editor"}}
    found = settings(grafana_extra_settings=own)
    assert found["auth.ldap"] == {"enabled": "true", "config_file": '"""/etc/x#y"""'}
    assert found["users"]["auto_assign_org_role"] == "Editor"
    assert found["users"]["allow_sign_up"] == "false"


def test_each_prometheus_is_a_source_and_that_of_the_host_the_default() -> None:
    found = yaml.safe_load(template("datasources.yml"))
    assert found["prune"] is True
    sources = {one["uid"]: one for one in found["datasources"]}
    assert {uid: (one["isDefault"], one["url"]) for uid, one in sources.items()} == {
        "prometheus-hq-mon1": (False, "https://198.18.1.51:9090"),
        "prometheus-hq-mon2": (True, "https://198.18.1.52:9090"),
    }
    one = sources["prometheus-hq-mon1"]
    assert one["jsonData"]["tlsAuth"] is one["jsonData"]["tlsAuthWithCACert"] is True
    assert one["jsonData"]["serverName"] == "hq-mon1.lab.internal"
    assert one["secureJsonData"] == {
        "tlsCACert": "$__file{/etc/sovereign/pki/ca.crt}",
        "tlsClientCert": "$__file{/etc/sovereign/pki/host.crt}",
        "tlsClientKey": "$__file{/etc/sovereign/pki/host.key}",
    }
    elsewhere = [one["isDefault"] for one in read("__grafana_sources", grafana_address="198.18.1.60")]
    assert elsewhere == [True, False]


def test_the_dashboards_are_those_of_the_sites_groups() -> None:
    found = {file["dest"]: file for file in read("__grafana_dashboard_files", grafana_extra_dashboards=["/srv/own.json"])}
    assert found["/etc/sovereign/grafana/dashboards/extra_own.json"]["copy"] == "/srv/own.json"
    assert "/etc/sovereign/grafana/dashboards/redis.json" not in found
    overview = json.loads(found["/etc/sovereign/grafana/dashboards/prometheus.json"]["content"])
    titles = {panel["title"] for panel in overview["panels"]}
    assert "etcd leader" in titles
    assert "Redis masters" not in titles
    legends = [target["legendFormat"] for panel in overview["panels"] for target in panel.get("targets", [])]
    assert "{{role}}" in legends, "nothing of a dashboard is a template of Ansible's"
    assert settings()["dashboards"]["default_home_dashboard_path"] == "/etc/sovereign/grafana/dashboards/prometheus.json"
    assert {"sovereign-etcd", "sovereign-prometheus", "sovereign-baseline"} <= set(read("__grafana_uids"))


def test_administrators_alone_come_in_and_it_goes_to_the_other_prometheus() -> None:
    rules = read("__grafana_firewall_rules")
    assert [(rule["chain"], rule["ports"], rule["peers"]) for rule in rules] == [
        ("input", [3000], ["198.18.9.0/24"]),
        ("output", [9090], ["198.18.1.51"]),
    ]
    assert "198.18.9.0/24" in firewall_fragment(rules, "grafana")


@pytest.mark.parametrize(
    ("answer", "sources", "said"),
    [
        ({"status": -1, "msg": "refused"}, [], ["Grafana does not answer at https://198.18.1.52:3000 (refused)"]),
        ({"status": 401}, [], ["Grafana does not take the password of admin"]),
        ({"status": 200, "json": [{"uid": "sovereign-etcd"}]}, [], ["Grafana has not loaded sovereign-prometheus"]),
        (
            {"status": 200, "json": [{"uid": "sovereign-etcd"}, {"uid": "sovereign-prometheus"}]},
            [{"status": 200}, {"status": 400, "json": {"message": "bad certificate"}}],
            ["Prometheus hq-mon2 does not answer Grafana (bad certificate)"],
        ),
        ({"status": 200, "json": [{"uid": "sovereign-etcd"}, {"uid": "sovereign-prometheus"}]}, [{"status": 200}, {"status": 200}], []),
    ],
)
def test_what_grafana_answers_is_understood(answer: dict[str, Any], sources: list[dict[str, Any]], said: list[str]) -> None:
    items = [{"name": "Prometheus hq-mon1"}, {"name": "Prometheus hq-mon2"}]
    results = [{"item": item, **source} for item, source in zip(items, sources, strict=False)]
    changes = {"__grafana_found_dashboards": answer, "__grafana_found_sources": {"results": results}, "grafana_groups": ["etcd", "prometheus"]}
    found = read("__grafana_unwell", **changes)
    assert len(found) == len(said)
    for sentence, begins in zip(found, said, strict=True):
        assert sentence.startswith(begins)
