"""What the role alertmanager refuses, and what it makes of receivers: routes, integrations, the relay's settings, firewall rules."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.filter.firewall_fragment import firewall_fragment

from tests.role_program import load
from tests.unit import role_variables
from tests.unit.role_variables import PROJECT

CLUSTER = """
plugin: sovereign.dify.cluster
name: lab
domain: lab.internal
sites:
  hq:
    clearance: restricted
    networks: [198.18.1.0/24]
    admin_networks: [198.18.1.0/24]
    hosts:
      hq-mon1: {address: 198.18.1.51, groups: [alertmanager, prometheus]}
      hq-mon2: {address: 198.18.1.52, groups: [alertmanager]}
      hq-mon3: {address: 198.18.1.53, groups: [prometheus, log_store]}
      hq-log1: {address: 198.18.1.54, groups: [log_store]}
  edge:
    clearance: restricted
    networks: [198.18.2.0/24]
    admin_networks: [198.18.1.0/24]
    hosts:
      edge-log1: {address: 198.18.2.54, groups: [log_store]}
"""
FACTS = {"distribution": "Debian", "distribution_major_version": "13"}
SMTP = {"host": "mail.bank.example", "from": "alerts@bank.example"}
ROBOT: dict[str, Any] = {
    "name": "oncall",
    "kind": "feishu",
    "url": "https://open.feishu.cn/open-apis/bot/v2/hook/key-key-key",
    "secret": "SEC-SEC-SEC",
}
HOOK: dict[str, Any] = {"name": "tickets", "kind": "webhook", "url": "http://tickets.bank.example/alerts"}
MAIL: dict[str, Any] = {"name": "archive", "kind": "email", "to": ["a@bank.example", "b@bank.example"]}


def variables(*receivers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return (
        role_variables.role_variables("alertmanager", CLUSTER, "hq-mon1")
        | {"ansible_facts": FACTS, "alertmanager_receivers": list(receivers)}
        | ({"alertmanager_smtp": SMTP} if any(receiver["kind"] == "email" for receiver in receivers) else {})
        | changes
    )


def faults(*receivers: dict[str, Any], **changes: Any) -> list[str]:
    return role_variables.faults("alertmanager", "faults", variables(*receivers, **changes))


def read(name: str, *receivers: dict[str, Any], **changes: Any) -> Any:
    return role_variables.rendered(f"{{{{ {name} }}}}", variables(*receivers, **changes))


def test_what_is_right_is_not_refused() -> None:
    assert faults() == []
    assert faults(ROBOT, HOOK, MAIL, alertmanager_smtp=SMTP | {"user": "alerts", "password": "secret-word", "port": 465}) == []
    assert faults(HOOK | {"url": "https://t.example", "secret": "token", "proxy": "http://proxy.example:3128"}) == []
    assert faults(ROBOT | {"url": "http://127.0.0.1:7001/hook", "severities": ["info"], "resolved": False}) == []


@pytest.mark.parametrize(
    ("receivers", "changes", "said"),
    [
        ([], {"ansible_facts": FACTS | {"distribution_major_version": "12"}}, "the Alertmanager 0.28 of Debian 13, and the host has Debian 12."),
        ([], {"alertmanager_address": "198.18.1.9"}, "must have this host once, at 198.18.1.9 (198.18.1.51, 198.18.1.52)."),
        (
            [ROBOT, HOOK | {"name": "oncall"}],
            {},
            "needs a name of its own, of small letters, digits, - and _, and none of them the name none or watchdog: oncall, oncall.",
        ),
        ([HOOK | {"name": "On call"}], {}, "and none of them the name none or watchdog: On call."),
        ([HOOK | {"name": "none"}], {}, "needs a name of its own"),
        ([{"name": "oncall", "kind": "wecom"}], {}, "need a url that begins with https:// (a webhook, and whatever is on the host itself,"),
        ([ROBOT | {"url": "http://open.feishu.cn/hook/key-key-key"}], {}, "need a url that begins with https://"),
        ([ROBOT | {"url": "http://127.0.0.1.evil.example/hook"}], {}, "need a url that begins with https://"),
        ([HOOK | {"url": "tickets.bank.example"}], {}, "may have http://): tickets."),
        ([MAIL | {"to": []}], {}, "get mails, and need addresses in to, and neither url, secret nor proxy: archive."),
        ([MAIL | {"url": "https://x.example"}], {}, "get mails, and need addresses in to, and neither url, secret nor proxy: archive."),
        ([HOOK | {"to": ["a@bank.example"]}], {}, "get no mails: take to away, or make them of the kind email: tickets."),
        ([ROBOT | {"kind": "wecom"}], {}, "Robots of WeCom know no secret: take it away from oncall in alertmanager_receivers."),
        ([HOOK | {"proxy": "proxy.example:3128"}], {}, "need a proxy that begins with http://: tickets."),
        (
            [HOOK | {"severities": []}],
            {},
            "get no alerts: name one of critical, warning and info in their severities, or take severities away: tickets.",
        ),
        ([HOOK | {"severities": ["critical", "page"]}], {}, "get no alerts: name one of critical, warning and info"),
        ([MAIL], {"alertmanager_smtp": {}}, "Mails need a server: give alertmanager_smtp with host and from, for archive."),
        ([], {"alertmanager_smtp": {"host": "mail"}}, "Mails need a server: give alertmanager_smtp with host and from, or nothing at all."),
        ([MAIL], {"alertmanager_smtp": SMTP | {"user": "alerts"}}, "alertmanager_smtp needs user and password together, or neither."),
        (
            [MAIL],
            {"alertmanager_smtp": SMTP | {"user": "alerts", "password": "secret-word", "tls": False}},
            "alertmanager_smtp has a password that would be sent in clear: take tls: false away.",
        ),
        ([], {"alertmanager_group_interval": "15s"}, "alertmanager_group_interval (15s) must be longer than the 15 s"),
        ([HOOK | {"name": "watchdog"}], {}, "needs a name of its own"),
        ([], {"alertmanager_watchdog": {"url": "signs.example"}}, "alertmanager_watchdog needs a url that begins with https:// or http://"),
        ([], {"alertmanager_watchdog": {"url": "https://signs.example", "proxy": "p:3128"}}, "alertmanager_watchdog needs a url"),
        ([], {"alertmanager_watchdog": {"url": "https://signs.example", "interval": 30}}, "and an interval of 60 seconds or more."),
        ([], {"alertmanager_relay_port": 96}, "alertmanager_relay_port (96) must be above 1023"),
    ],
)
def test_what_is_wrong_is_said_alone_and_without_secrets(receivers: list[dict[str, Any]], changes: dict[str, Any], said: str) -> None:
    found = faults(*receivers, **changes)
    assert len(found) == 1, found
    assert said in found[0]
    for secret in ("key-key-key", "SEC-SEC-SEC", "secret-word"):
        assert secret not in found[0]


def test_each_receiver_gets_its_severities_critical_ones_sooner() -> None:
    routes = read("__alertmanager_routes", ROBOT | {"severities": ["warning", "critical", "info"]}, HOOK | {"severities": ["critical"]}, MAIL)
    critical = {"matchers": ['severity="critical"'], "continue": True, "group_wait": "5s", "repeat_interval": "1h"}
    others = {"continue": True, "group_wait": "10s", "repeat_interval": "12h"}
    assert routes == [
        {"receiver": "oncall", **critical},
        {"receiver": "oncall", "matchers": ['severity=~"info|warning"'], **others},
        {"receiver": "tickets", **critical},
        {"receiver": "archive", **critical},
        {"receiver": "archive", "matchers": ['severity=~"warning"'], **others},
    ]


def test_what_alertmanager_is_told_of_a_receiver() -> None:
    mail = {"send_resolved": False, "to": "a@bank.example, b@bank.example", "html": "", "text": '{{ template "sovereign.zh.text" . }}'}
    given = [
        ROBOT,
        HOOK,
        HOOK | {"name": "b", "secret": "token", "proxy": "http://proxy.example:3128"},
        MAIL | {"resolved": False},
    ]
    assert read("__alertmanager_integrations", *given, alertmanager_language="zh") == [
        {"name": "none"},
        {"name": "oncall", "webhook_configs": [{"send_resolved": True, "url": "http://127.0.0.1:9096/oncall", "max_alerts": 50}]},
        {"name": "tickets", "webhook_configs": [{"send_resolved": True, "url": HOOK["url"]}]},
        {
            "name": "b",
            "webhook_configs": [
                {
                    "send_resolved": True,
                    "url": HOOK["url"],
                    "http_config": {"authorization": {"credentials": "token"}, "proxy_url": "http://proxy.example:3128"},
                }
            ],
        },
        {"name": "archive", "email_configs": [mail | {"headers": {"Subject": '{{ template "sovereign.zh.subject" . }}'}}]},
    ]


def test_a_sign_of_life_goes_to_its_receiver_alone_and_only_once_an_interval() -> None:
    given = {"alertmanager_watchdog": {"url": "https://198.18.1.92/x", "secret": "token", "interval": 120}}
    assert faults(**given) == []
    assert read("__alertmanager_routes", **given) == [
        {
            "receiver": "watchdog",
            "matchers": ['alertname="Watchdog"'],
            "group_by": ["alertname"],
            "group_wait": "1s",
            "group_interval": "120s",
            "repeat_interval": "100s",
        }
    ]
    settings = {"url": "https://198.18.1.92/x", "http_config": {"authorization": {"credentials": "token"}}}
    assert read("__alertmanager_integrations", **given)[1] == {"name": "watchdog", "webhook_configs": [{"send_resolved": False, **settings}]}
    assert (read("__alertmanager_firewall_rules", **given)[-1]["ports"], read("__alertmanager_firewall_rules", **given)[-1]["peers"]) == (
        [443],
        ["198.18.1.92"],
    )
    rules = yaml.safe_load((PROJECT / "roles/prometheus/monitoring/rules.yml").read_text())["groups"][0]["rules"]
    assert [rule["labels"]["severity"] for rule in rules if rule["alert"] == "Watchdog"] == ["none"], "which no receiver asks for"


def test_mails_are_sent_with_tls() -> None:
    assert read("__alertmanager_configuration", HOOK)["global"] == {}
    assert read("__alertmanager_configuration", MAIL)["global"] == {
        "smtp_smarthost": "mail.bank.example:587",
        "smtp_from": "alerts@bank.example",
        "smtp_require_tls": True,
    }
    given = read("__alertmanager_smtp", MAIL, alertmanager_smtp=SMTP | {"host": "2001:db8::25", "port": 465, "user": "alerts", "password": "p"})
    assert given["smtp_smarthost"] == "[2001:db8::25]:465"
    assert (given["smtp_auth_username"], given["smtp_auth_password"]) == ("alerts", "p")


def test_the_texts_of_mails_exist_in_each_language() -> None:
    texts = (PROJECT / "roles/alertmanager/files/texts.tmpl").read_text(encoding="utf-8")
    choices = yaml.safe_load((PROJECT / "roles/alertmanager/meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    languages = choices["alertmanager_language"]["choices"]
    defined = set(re.findall(r'define "sovereign\.(\w+\.\w+)"', texts))
    assert defined == {f"{language}.{part}" for language in languages for part in ("state", "subject", "text")}
    assert set(load("alertmanager", "alert_relay").WORDS) == set(languages)


def test_the_relay_is_given_its_robots_and_nothing_else() -> None:
    relay = load("alertmanager", "alert_relay")
    settings = read("__alertmanager_relay_settings", ROBOT, HOOK, MAIL, ROBOT | {"name": "b", "kind": "wecom", "secret": "", "proxy": "http://p"})
    read_back = relay.read_settings(role_variables.rendered("{{ settings | to_nice_json }}", {"settings": settings}))
    assert sorted(read_back.receivers) == ["b", "oncall"]
    assert read_back.receivers["oncall"] == relay.Receiver("oncall", "feishu", ROBOT["url"], "SEC-SEC-SEC")
    assert read_back.receivers["b"].proxy == "http://p"
    assert (read_back.address, read_back.port, read_back.language, read_back.timeout) == ("127.0.0.1", 9096, "en", 10)


def test_clients_and_members_of_the_site_are_let_in_by_address_and_name() -> None:
    assert read("__alertmanager_allowed_names") == [f"{name}.lab.internal" for name in ("hq-log1", "hq-mon1", "hq-mon2", "hq-mon3")]
    assert read("__alertmanager_member_names") == ["hq-mon1.lab.internal", "hq-mon2.lab.internal"]
    rules = read("__alertmanager_firewall_rules")
    assert [(rule["chain"], rule["ports"], rule["peers"]) for rule in rules] == [
        ("input", [9093], ["198.18.1.51", "198.18.1.52", "198.18.1.53", "198.18.1.54"]),
        ("input", [9094], ["198.18.1.52"]),
        ("output", [9094], ["198.18.1.52"]),
    ]


def test_what_is_named_by_address_can_be_reached() -> None:
    given = [
        ROBOT,
        ROBOT | {"name": "b", "proxy": "http://198.18.1.90:3128"},
        HOOK | {"url": "http://198.18.1.91/x"},
        HOOK | {"name": "c", "url": "https://[2001:db8::1]/x"},
        MAIL,
    ]
    rules = read("__alertmanager_firewall_rules", *given, alertmanager_smtp=SMTP | {"host": "198.18.1.25"})
    assert [(rule["ports"], rule["peers"]) for rule in rules[4:]] == [
        ([3128], ["198.18.1.90"]),
        ([80], ["198.18.1.91"]),
        ([443], ["2001:db8::1"]),
        ([587], ["198.18.1.25"]),
    ]
    assert rules[3] == {"chain": "loopback", "protocol": "tcp", "ports": [9096], "users": ["prometheus"], "comment": "relay to robots"}
    assert "198.18.1.90" in firewall_fragment(rules, "alertmanager")


def test_one_that_is_alone_has_no_cluster() -> None:
    one = [{"name": "hq-mon1", "fqdn": "hq-mon1.lab.internal", "address": "198.18.1.51"}]
    assert faults(alertmanager_members=one) == []
    assert read("__alertmanager_listen", alertmanager_members=one) == [
        {"address": "198.18.1.51", "ports": [9093]},
        {"address": "127.0.0.1", "ports": []},
    ]
    assert read("__alertmanager_listen", ROBOT) == [{"address": "198.18.1.51", "ports": [9093, 9094]}, {"address": "127.0.0.1", "ports": [9096]}]


STATUS = '{"cluster":{"name":"a","peers":[{"address":"198.18.1.52:9094","name":"b"},{"address":"198.18.1.51:9094","name":"a"}],"status":"ready"}}'
METRICS = "# TYPE alertmanager_config_hash gauge\nalertmanager_config_hash 2.5627261684215e+13\nalertmanager_config_last_reload_successful 1\n"
# What md5sum prints of the file whose hash Alertmanager 0.28.1 gives as above.
CHECKSUM = f"{(25627261684215).to_bytes(6, 'little').hex()}00112233445566778899  /etc/alertmanager/alertmanager.yml\n"


def unwell(status: str = STATUS, metrics: str = METRICS, rc: int = 0, checksum: str = CHECKSUM, **changes: Any) -> list[str]:
    text = f"{checksum}{status}\n\n{metrics}"
    answer = {"rc": rc, "stdout": text, "stdout_lines": text.splitlines(), "stderr": "curl: (7) Connection refused\n"}
    return list(read("__alertmanager_unwell", __alertmanager_answer=answer, **changes))


def test_a_member_is_well_that_runs_its_file_and_sees_all() -> None:
    assert unwell() == []
    assert unwell(rc=7) == [
        "Alertmanager on hq-mon1 does not answer at 198.18.1.51:9093 (curl: (7) Connection refused): look at journalctl -u prometheus-alertmanager."
    ]
    assert unwell(metrics=METRICS.replace("2.56", "2.57")) == [
        "Alertmanager on hq-mon1 has not loaded /etc/alertmanager/alertmanager.yml: journalctl -u prometheus-alertmanager says why."
    ]
    assert unwell(metrics="") != []
    assert unwell(STATUS.replace(".52:", ".59:")) == [
        "Alertmanager on hq-mon1 sees 198.18.1.51, 198.18.1.59; members are 198.18.1.51, 198.18.1.52. Bring up those that are missing: until then, "
        "alerts may be sent more than once."
    ]
    one = [{"name": "hq-mon1", "fqdn": "hq-mon1.lab.internal", "address": "198.18.1.51"}]
    assert unwell('{"cluster":{"peers":[],"status":"disabled"}}', alertmanager_members=one) == []
    assert unwell('{"cluster":{"status":"disabled"}}', alertmanager_members=one) == []


def test_addresses_of_members_may_be_of_ipv6() -> None:
    six = [{"name": "hq-mon1", "fqdn": "a", "address": "2001:db8::1"}, {"name": "hq-mon2", "fqdn": "b", "address": "2001:db8::2"}]
    status = STATUS.replace("198.18.1.51", "[2001:db8::1]").replace("198.18.1.52", "[2001:db8::2]")
    assert unwell(status, alertmanager_members=six, alertmanager_address="2001:db8::1") == []
