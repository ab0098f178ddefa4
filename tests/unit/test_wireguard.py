"""WireGuard's files and its live state: read, compared, and without their secrets."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.private_file import is_private, make_private, write_private
from ansible_collections.sovereign.dify.plugins.module_utils.wireguard import (
    ConfigError,
    Interface,
    Peer,
    is_key,
    masked,
    parse_config,
    parse_live,
    silent,
    wanted_action,
    with_private_key,
)


def key(number: int) -> str:
    return base64.b64encode(bytes([number] * 32)).decode()


CONFIG = f"""# Ansible managed
[Interface]
PrivateKey = {key(1)}
Address = 198.19.0.11/24, fd00::b/64
ListenPort = 51820
MTU = 1420
Table = off

# hq-gw1
[Peer]
PublicKey = {key(2)}
PresharedKey = {key(3)}
AllowedIPs = 198.19.0.21/32
Endpoint = 198.18.9.21:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {key(4)}
AllowedIPs = fd00::15/128
"""
DUMP = f"""{key(1)}\t{key(9)}\t51820\toff
{key(2)}\t{key(3)}\t198.18.9.21:40000\t198.19.0.21/32\t1700000000\t188\t212\t25
{key(4)}\t(none)\t(none)\tfd00::15/128\t0\t0\t0\toff
"""
ADDRESSES = json.dumps(
    [
        {
            "mtu": 1420,
            "addr_info": [
                {"local": "198.19.0.11", "prefixlen": 24, "scope": "global"},
                {"local": "fd00::b", "prefixlen": 64, "scope": "global"},
                {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
            ],
        }
    ]
)


def test_a_configuration_is_understood() -> None:
    assert parse_config(CONFIG) == Interface(
        private_key=key(1),
        port=51820,
        addresses=frozenset({"198.19.0.11/24", "fd00::b/64"}),
        mtu=1420,
        peers={
            key(2): Peer(key(3), frozenset({"198.19.0.21/32"}), 25),
            key(4): Peer("", frozenset({"fd00::15/128"}), 0),
        },
    )


def test_the_live_interface_of_that_configuration_needs_nothing_although_a_peer_has_roamed() -> None:
    live, seen = parse_live(DUMP, ADDRESSES)
    assert wanted_action(parse_config(CONFIG), live) == ""
    assert (seen[key(2)].endpoint, seen[key(2)].handshake, seen[key(4)].endpoint) == ("198.18.9.21:40000", 1700000000, "")


@pytest.mark.parametrize(
    ("before", "after", "action"),
    [
        (key(1), key(7), "reloaded"),
        (key(3), key(7), "reloaded"),
        ("ListenPort = 51820", "ListenPort = 51821", "reloaded"),
        ("PersistentKeepalive = 25", "PersistentKeepalive = 20", "reloaded"),
        ("AllowedIPs = 198.19.0.21/32", "AllowedIPs = 198.19.0.22/32", "reloaded"),
        (f"[Peer]\nPublicKey = {key(4)}\nAllowedIPs = fd00::15/128\n", "", "reloaded"),
        ("MTU = 1420", "MTU = 1380", "restarted"),
        ("198.19.0.11/24", "198.19.0.12/24", "restarted"),
        (", fd00::b/64", "", "restarted"),
        ("MTU = 1420\n", "", ""),
    ],
)
def test_sessions_are_only_cut_where_it_must_be(before: str, after: str, action: str) -> None:
    live, _ = parse_live(DUMP, ADDRESSES)
    assert before in CONFIG
    assert wanted_action(parse_config(CONFIG.replace(before, after)), live) == action


def test_a_missing_interface_is_brought_up_by_a_restart_because_its_unit_may_still_count_as_active() -> None:
    assert wanted_action(parse_config(CONFIG), None) == "restarted"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("Address = 198.19.0.11/24", "line 1 is neither"),
        ("[Interface]\nnonsense", "line 2 is neither"),
        ("[Interface]\n\nPrivateKey = short", "PrivateKey in line 3"),
        (f"[Peer]\nPublicKey = {key(1)[:-2]}==", "PublicKey in line 2"),
    ],
)
def test_a_damaged_configuration_is_refused_without_showing_what_it_holds(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake) as caught:
        parse_config(text)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "A" * 44, key(1)[:-1], f"{key(1)}\n", "A" * 42 + "B="])
def test_only_32_bytes_in_base64_are_a_key(text: str) -> None:
    assert is_key(key(255))
    assert not is_key(text)


def test_the_private_key_joins_the_configuration_on_its_host() -> None:
    without = CONFIG.replace(f"PrivateKey = {key(1)}\n", "")
    assert with_private_key(without, key(1)) == CONFIG
    with pytest.raises(ConfigError):
        with_private_key("[Peer]\n", key(1))


def test_secrets_are_hidden_and_public_keys_are_not() -> None:
    shown = masked(CONFIG)
    assert key(1) not in shown
    assert key(3) not in shown
    assert key(2) in shown
    assert shown.count("(hidden)") == 2


def test_silence_is_the_age_of_the_last_handshake() -> None:
    _, seen = parse_live(DUMP, ADDRESSES)
    assert silent(seen, now=1700000100, max_age=180) == [key(4)]
    assert silent(seen, now=1700000200, max_age=180) == [key(2), key(4)]


def test_a_private_file_is_never_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "wg0.key"
    path.touch(mode=0o644)
    assert not is_private(path)
    write_private(path, "secret\n")
    assert is_private(path)
    assert path.read_text() == "secret\n"
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o640)
    make_private(path)
    assert is_private(path)


def test_a_private_file_that_cannot_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "taken", "secret")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
