"""Declared rules into nftables' language."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.nftables.rules import Rule, RuleError, fragment, matches, parse

HTTPS: dict[str, Any] = {"chain": "input", "protocol": "tcp", "ports": [443]}


def lines(**keys: Any) -> list[str]:
    return [line for rule in parse([HTTPS | keys]) for line in rule.lines("nginx")]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ['tcp dport 443 counter accept comment "nginx"']),
        ({"comment": "the entry"}, ['tcp dport 443 counter accept comment "nginx: the entry"']),
        ({"peers": ["198.18.1.1"]}, ['ip saddr 198.18.1.1 tcp dport 443 counter accept comment "nginx"']),
        ({"peers": ["198.18.1.0/24", "198.18.3.1"]}, ['ip saddr { 198.18.1.0/24, 198.18.3.1 } tcp dport 443 counter accept comment "nginx"']),
        ({"peers": ["fd00::1"]}, ['ip6 saddr fd00::1 tcp dport 443 counter accept comment "nginx"']),
        ({"chain": "output", "peers": ["198.18.1.1"]}, ['ip daddr 198.18.1.1 tcp dport 443 counter accept comment "nginx"']),
        ({"interface": "wg0"}, ['iifname "wg0" tcp dport 443 counter accept comment "nginx"']),
        ({"interface": "br-*", "chain": "output"}, ['oifname "br-*" tcp dport 443 counter accept comment "nginx"']),
        ({"interface": None, "peers": None}, ['tcp dport 443 counter accept comment "nginx"']),
        ({"protocol": "vrrp", "ports": []}, ['meta l4proto 112 counter accept comment "nginx"']),
        ({"ports": [80, "8000-8010"]}, ['tcp dport { 80, 8000-8010 } counter accept comment "nginx"']),
    ],
)
def test_a_rule_becomes_lines(keys: dict[str, Any], expected: list[str]) -> None:
    assert lines(**keys) == expected


def test_peers_of_both_families_become_one_line_each() -> None:
    assert [line.split(" tcp")[0] for line in lines(peers=["fd00::/8", "198.18.0.0/15"])] == ["ip saddr 198.18.0.0/15", "ip6 saddr fd00::/8"]


def test_everywhere_needs_no_address() -> None:
    assert lines(peers=["0.0.0.0/0", "::/0"]) == lines()
    assert [line.split(" tcp")[0] for line in lines(peers=["0.0.0.0/0", "198.18.0.1"])] == ["meta nfproto ipv4"]


def test_an_empty_list_of_peers_or_ports_opens_nothing() -> None:
    assert lines(ports=[]) == []
    assert lines(peers=[]) == []
    assert fragment([HTTPS | {"peers": []}], "nginx", "inet t") == "table inet t {\n}"


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([443, 443, "443"], ((443, 443),)),
        (["8000-8010", 8005, "8011-8020"], ((8000, 8020),)),
        ([2, 1, "65535"], ((1, 2), (65535, 65535))),
        (["1-65535"], ((1, 65535),)),
    ],
)
def test_ports_that_touch_are_merged_because_a_set_of_intervals_must_not_overlap(ports: list[Any], expected: tuple[tuple[int, int], ...]) -> None:
    assert parse([HTTPS | {"ports": ports}])[0].ports == expected


def test_overlapping_networks_are_merged() -> None:
    assert matches(["198.18.0.0/15", "198.18.1.0/24", "198.18.1.1", "fd00::1"], "saddr") == ["ip saddr 198.18.0.0/15", "ip6 saddr fd00::1"]
    assert matches([], "saddr") == []


def test_a_ping_is_of_the_peers_family() -> None:
    ping: dict[str, Any] = {"chain": "input", "protocol": "icmp"}
    assert [line.split(" counter")[0] for line in parse([ping])[0].lines("x")] == ["icmp type echo-request", "icmpv6 type echo-request"]
    ping["peers"] = ["fd00::1"]
    assert [line.split(" counter")[0] for line in parse([ping])[0].lines("x")] == ["ip6 saddr fd00::1 icmpv6 type echo-request"]


def test_from_and_to_are_short_for_a_chain_with_peers() -> None:
    long = parse([HTTPS | {"peers": ["198.18.1.1"]}, HTTPS | {"chain": "output", "peers": ["198.18.1.2"]}])
    short = parse([{"from": ["198.18.1.1"], "protocol": "tcp", "ports": [443]}, {"to": ["198.18.1.2"], "protocol": "tcp", "ports": [443]}])
    assert short == long


@pytest.mark.parametrize(
    ("rule", "mistake"),
    [
        ({"protocol": "tcp", "ports": [1]}, "give either chain"),
        (HTTPS | {"from": ["198.18.1.1"]}, "give either chain"),
        ({"from": ["198.18.1.1"], "peers": [], "protocol": "tcp", "ports": [1]}, "give either chain"),
        (HTTPS | {"chain": "forward"}, "chain 'forward' is none of input, output"),
        (HTTPS | {"protocol": "quic"}, "protocol 'quic' is none of"),
        ({"chain": "input", "protocol": "tcp"}, "ports is no list"),
        (HTTPS | {"ports": "443"}, "ports is no list"),
        (HTTPS | {"ports": [0]}, "port 0 is not between"),
        (HTTPS | {"ports": [70000]}, "port 70000 is not between"),
        (HTTPS | {"ports": ["90-80"]}, "port 90-80 is not between"),
        (HTTPS | {"ports": ["https"]}, "port https is not between"),
        (HTTPS | {"protocol": "icmp"}, "protocol 'icmp' has no ports"),
        (HTTPS | {"peers": "198.18.1.1"}, "peers is no list"),
        (HTTPS | {"peers": ["gw1.lab.internal"]}, "gw1.lab.internal"),
        (HTTPS | {"peers": ["198.18.1.1/24"]}, "has host bits set"),
        (HTTPS | {"interface": 'wg0" accept'}, "no name of an interface"),
        (HTTPS | {"comment": 'x" accept\n'}, "the comment is longer"),
        (HTTPS | {"comment": "x" * 81}, "the comment is longer"),
        (HTTPS | {"port": 1}, "unknown keys port"),
        (HTTPS | {"users": ["swift"]}, "users are for rules of the loopback"),
        (HTTPS | {"chain": "loopback"}, "users is no list of users"),
        (HTTPS | {"chain": "loopback", "users": ['a" accept']}, "is no name of a user"),
        (HTTPS | {"chain": "loopback", "users": [], "peers": []}, "a rule of the loopback has ports"),
        (HTTPS | {"at": "dmz"}, "at 'dmz' is none of lan, wan, any"),
        (HTTPS | {"at": "wan", "interface": "eth1"}, "at is for input rules that name no interface"),
        (HTTPS | {"at": "lan", "chain": "output"}, "at is for input rules that name no interface"),
        ("tcp/443", "is a str, not a dictionary"),
    ],
)
def test_mistakes_are_named(rule: Any, mistake: str) -> None:
    with pytest.raises(RuleError, match=re.escape(mistake)):
        parse([rule])


def test_all_mistakes_are_named_at_once_each_with_its_rule() -> None:
    with pytest.raises(RuleError) as caught:
        parse([HTTPS | {"ports": [0]}, HTTPS, HTTPS | {"chain": "sideways", "comment": "metrics", "peers": ["x"]}])
    text = str(caught.value)
    assert "rule 1: port 0" in text
    assert "rule 2" not in text
    assert "rule 3 (metrics): chain" in text
    assert "rule 3 (metrics): peer 'x'" in text


def test_a_fragment_fills_the_chains_of_its_table() -> None:
    text = fragment([HTTPS, {"to": ["198.18.1.1"], "protocol": "udp", "ports": [53], "comment": "DNS"}], "nginx", "inet sovereign")
    assert text.splitlines() == [
        "table inet sovereign {",
        "\tchain declared_input_lan {",
        '\t\ttcp dport 443 counter accept comment "nginx"',
        "\t}",
        "\tchain declared_output {",
        '\t\tip daddr 198.18.1.1 udp dport 53 counter accept comment "nginx: DNS"',
        "\t}",
        "}",
    ]


@pytest.mark.parametrize("owner", ["", "../x", "Nginx", 'x" accept'])
def test_an_owner_is_the_name_of_a_role(owner: str) -> None:
    with pytest.raises(RuleError, match="no name of a role"):
        fragment([], owner, "inet sovereign")


def test_rules_are_values() -> None:
    assert parse([HTTPS])[0] == Rule("input", "tcp", ((443, 443),), None, None, "", "lan")


@pytest.mark.parametrize(
    ("keys", "chain"),
    [
        ({}, "declared_input_lan"),
        ({"at": "wan"}, "declared_input_wan"),
        ({"at": "any"}, "declared_input"),
        ({"interface": "wg0"}, "declared_input"),
        ({"chain": "output"}, "declared_output"),
    ],
)
def test_a_rule_is_for_the_lan_unless_it_says_otherwise(keys: dict[str, str], chain: str) -> None:
    assert parse([HTTPS | keys])[0].target == chain


def test_a_rule_of_the_loopback_refuses_everybody_but_its_users_and_root() -> None:
    text = fragment([{"chain": "loopback", "protocol": "tcp", "ports": ["6200-6203"], "users": ["swift", "root"]}], "object_storage", "inet t")
    tail = 'tcp dport 6200-6203 meta skuid != { 0, "swift" } counter reject with icmpx admin-prohibited comment "object_storage"'
    assert text.splitlines()[1:-1] == ["\tchain declared_loopback {", f"\t\tip daddr 127.0.0.0/8 {tail}", f"\t\tip6 daddr ::1 {tail}", "\t}"]
