# SPDX-License-Identifier: GPL-3.0-or-later
"""WireGuard as files and as the kernel has it: read both, compare them, keep secrets out of sight. Nothing in here knows Ansible."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# 32 bytes in base64: the last character before the padding carries four bits.
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_SECRET = re.compile(r"^((?:Private|Preshared)Key\s*=\s*)\S+", re.MULTILINE)
_NONE = ("(none)", "off")


class ConfigError(ValueError):
    """A text is no configuration of WireGuard."""


def is_key(text: str) -> bool:
    """Tell whether a text is a key: 32 bytes in base64."""
    return bool(_KEY.fullmatch(text))


@dataclass(frozen=True)
class Peer:
    """What defines a peer. Its endpoint is not part of that: a peer that roams has another one than the file."""

    preshared_key: str
    allowed_ips: frozenset[str]
    keepalive: int


@dataclass(frozen=True)
class Interface:
    """An interface, from a file or from the kernel. ``mtu`` is 0 where the file leaves it open."""

    private_key: str
    port: int
    addresses: frozenset[str]
    mtu: int
    peers: Mapping[str, Peer] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A peer's life signs: seconds since the epoch of the last handshake (0: never), bytes, and where it was seen last."""

    endpoint: str
    handshake: int
    received: int
    sent: int


def parse_config(text: str) -> Interface:
    """Read a configuration in wg-quick's form.

    Raises:
        ConfigError: a line is no setting, or a key is none.
    """
    interface: dict[str, str] = {}
    peers: list[dict[str, str]] = []
    section: dict[str, str] | None = None
    addresses: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.partition("#")[0].strip()
        if not bare:
            continue
        if bare in ("[Interface]", "[Peer]"):
            section = interface if bare == "[Interface]" else {}
            if bare == "[Peer]":
                peers.append(section)
            continue
        name, equals, value = (part.strip() for part in bare.partition("="))
        if not equals or section is None:
            raise ConfigError(f"line {number} is neither a section nor a setting")
        if name.endswith("Key") and not is_key(value):
            raise ConfigError(f"the {name} in line {number} is no key of 32 bytes in base64")
        if name == "Address":
            addresses.update(_list(value))
        section[name] = value
    return Interface(
        private_key=interface.get("PrivateKey", ""),
        port=int(interface.get("ListenPort", 0)),
        addresses=frozenset(addresses),
        mtu=int(interface.get("MTU", 0)),
        peers={
            peer["PublicKey"]: Peer(
                peer.get("PresharedKey", ""), frozenset(_list(peer.get("AllowedIPs", ""))), int(peer.get("PersistentKeepalive", 0))
            )
            for peer in peers
        },
    )


def parse_live(dump: str, addresses: str) -> tuple[Interface, dict[str, Seen]]:
    """Read an interface as it is.

    Args:
        dump: What ``wg show INTERFACE dump`` prints.
        addresses: What ``ip -json address show dev INTERFACE`` prints.

    Returns:
        The interface, and the life signs of each peer by its public key.
    """
    first, *rest = [line.split("\t") for line in dump.splitlines()]
    link = json.loads(addresses)[0]
    peers, seen = {}, {}
    for public, preshared, endpoint, allowed, handshake, received, sent, keepalive in rest:
        peers[public] = Peer(_or_empty(preshared), frozenset(_list(_or_empty(allowed))), int(_or_empty(keepalive) or 0))
        seen[public] = Seen(_or_empty(endpoint), int(handshake), int(received), int(sent))
    # The kernel adds a link-local address of its own to interfaces that have one.
    own = frozenset(f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"] if item["scope"] == "global")
    return Interface(_or_empty(first[0]), int(first[2]), own, int(link["mtu"]), peers), seen


def wanted_action(wanted: Interface, live: Interface | None) -> str:
    """Say what brings the live interface to what is wanted: ``restarted``, ``reloaded``, or nothing.

    A reload exchanges keys and peers and keeps the sessions of all others; addresses and the MTU need a restart.
    """
    if live is None or live.addresses != wanted.addresses or (wanted.mtu and live.mtu != wanted.mtu):
        return "restarted"
    same = (live.private_key, live.port, dict(live.peers)) == (wanted.private_key, wanted.port, dict(wanted.peers))
    return "" if same else "reloaded"


def with_private_key(text: str, key: str) -> str:
    """Put the private key into a configuration that was written elsewhere, without it."""
    head, section, tail = text.partition("[Interface]\n")
    if not section:
        raise ConfigError("there is no section [Interface]")
    return f"{head}{section}PrivateKey = {key}\n{tail}"


def masked(text: str) -> str:
    """Hide the secrets of a configuration, for a person to read."""
    return _SECRET.sub(r"\1(hidden)", text)


def silent(seen: Mapping[str, Seen], now: int, max_age: int) -> list[str]:
    """Public keys of the peers without a handshake in the last ``max_age`` seconds."""
    return [key for key, signs in seen.items() if now - signs.handshake > max_age]


def _list(text: str) -> list[str]:
    """Split a list as configurations write it."""
    return [item for part in text.split(",") if (item := part.strip())]


def _or_empty(text: str) -> str:
    """Take ``wg``'s words for nothing as nothing."""
    return "" if text in _NONE else text
