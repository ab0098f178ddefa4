# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared rules into nftables' language.

A rule is a dictionary::

    {chain: input|output, protocol: tcp|udp|sctp|icmp|ah|esp|gre|vrrp, ports: [443, "8000-8010"], peers: [198.18.1.0/24, "fd00::1"],
     interface: wg0, at: lan, comment: text}

``ports`` belongs to the protocols that have them, and is then required. Without ``peers`` the rule holds for any address. An *empty* list of either
lets nothing through, so that a list that was computed from a group without members never opens a port to the world. ``{from: [...]}`` and
``{to: [...]}`` are short for ``chain: input`` and ``chain: output`` with those peers.

``{chain: loopback, protocol: tcp, ports: [6200], users: [swift]}`` is the one rule that denies: only these users of the host, and root, may connect
to these ports at its loopback addresses.

``at`` says where packets may come in: ``lan`` (what is neither the VPN nor the WAN), ``wan`` (the LAN and the WAN) or ``any``. An input rule
without it is for the LAN, or, where it names an interface, for that interface alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]  # noqa: UP007 - pylint of ansible-test knows no other form

CHAINS = ("input", "output", "loopback")
PORT_PROTOCOLS = ("tcp", "udp", "sctp")
# By number, because nft knows the names only where /etc/protocols is installed.
PLAIN_PROTOCOLS = {"ah": 51, "esp": 50, "gre": 47, "vrrp": 112}
PROTOCOLS = (*PORT_PROTOCOLS, "icmp", *PLAIN_PROTOCOLS)
KEYS = ("chain", "protocol", "ports", "peers", "from", "to", "interface", "at", "users", "comment")
# Where packets come in, and the chain of the table that takes rules for it.
INPUT_CHAINS = {"lan": "declared_input_lan", "wan": "declared_input_wan", "any": "declared_input"}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}|[A-Za-z0-9_.:-]{1,14}\*")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
# nftables takes 128 bytes; the declaring role's name stands in front.
_COMMENT = re.compile(r'[^"\\\n]{0,80}')


class RuleError(ValueError):
    """Declared rules hold mistakes; the text names all of them."""


@dataclass(frozen=True)
class Rule:
    """One rule that has been understood. ``peers`` is None for any address; ``ports`` are ranges, both ends included, apart from each other."""

    chain: str
    protocol: str
    ports: tuple[tuple[int, int], ...]
    peers: tuple[Network, ...] | None
    interface: str | None
    comment: str
    at: str = "any"
    users: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Name the chain of the table that takes the rule."""
        return INPUT_CHAINS[self.at] if self.chain == "input" else f"declared_{self.chain}"

    def lines(self, owner: str) -> list[str]:
        """Write the rule, one line for each address family it concerns."""
        if self.protocol in PORT_PROTOCOLS and not self.ports:
            return []
        if self.chain == "loopback":
            return self._denials(owner)
        side, device = ("saddr", "iifname") if self.chain == "input" else ("daddr", "oifname")
        head = [f'{device} "{self.interface}"'] if self.interface else []
        comment = f"{owner}: {self.comment}" if self.comment else owner
        tail = f'counter accept comment "{comment}"'
        lines = []
        for version, addresses in self._families():
            match = [*head, *([_addresses(version, side, addresses)] if addresses else []), self._payload(version)]
            lines.append(" ".join([*match, tail]))
        return lines

    def _denials(self, owner: str) -> list[str]:
        """Write a rule of the loopback: everybody but its users is refused. Root is written by number, as every host has it."""
        users = _set(["0", *(f'"{user}"' for user in self.users)])
        comment = f"{owner}: {self.comment}" if self.comment else owner
        tail = f'{self._payload(None)} meta skuid != {users} counter reject with icmpx admin-prohibited comment "{comment}"'
        return [f"{address} {tail}" for address in ("ip daddr 127.0.0.0/8", "ip6 daddr ::1")]

    def _families(self) -> list[tuple[int | None, list[Network]]]:
        """Peers by address family; a rule for anybody is one rule for both, except that each family has an ICMP of its own."""
        if self.peers is None:
            return [(4, []), (6, [])] if self.protocol == "icmp" else [(None, [])]
        return [(version, members) for version in (4, 6) if (members := [peer for peer in self.peers if peer.version == version])]

    def _payload(self, version: int | None) -> str:
        """Match of the protocol and its ports."""
        if self.protocol in PORT_PROTOCOLS:
            return f"{self.protocol} dport {_set([str(low) if low == high else f'{low}-{high}' for low, high in self.ports])}"
        if self.protocol != "icmp":
            return f"meta l4proto {PLAIN_PROTOCOLS[self.protocol]}"
        # Answers and errors belong to connections that are already known.
        return "icmp type echo-request" if version == 4 else "icmpv6 type echo-request"


def _set(members: Sequence[str]) -> str:
    """One value as it is, several as an anonymous set: nftables looks those up in one step however many there are."""
    return members[0] if len(members) == 1 else f"{{ {', '.join(members)} }}"


def _addresses(version: int | None, side: str, networks: Sequence[Network]) -> str:
    """Match of addresses; overlapping networks are merged, which a set of intervals demands."""
    merged: list[Network] = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
    if any(network.prefixlen == 0 for network in merged):
        return f"meta nfproto ipv{version}"
    family = "ip" if version == 4 else "ip6"
    return f"{family} {side} {_set([str(network.network_address if network.num_addresses == 1 else network) for network in merged])}"


def matches(addresses: Sequence[str], side: str) -> list[str]:
    """Write addresses and networks as matches of ``saddr`` or ``daddr``, one for each family that occurs.

    Raises:
        RuleError: with every text that is no address.
    """
    problems: list[str] = []
    networks = [network for text in addresses if (network := _network(str(text), problems))]
    if problems:
        raise RuleError("; ".join(problems))
    return [_addresses(version, side, members) for version in (4, 6) if (members := [item for item in networks if item.version == version])]


def parse(declared: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Understand declared rules.

    Raises:
        RuleError: with every mistake and where it is, such as ``rule 2 (metrics): port 99999 is not between 1 and 65535``.
    """
    rules: list[Rule] = []
    mistakes: list[str] = []
    for position, entry in enumerate(declared, start=1):
        problems: list[str] = []
        rule = _rule(entry, problems)
        label = f"rule {position}" + (f" ({entry['comment']})" if isinstance(entry, Mapping) and entry.get("comment") else "")
        mistakes.extend(f"{label}: {problem}" for problem in problems)
        if rule and not problems:
            rules.append(rule)
    if mistakes:
        raise RuleError("; ".join(mistakes))
    return rules


def _rule(entry: Any, problems: list[str]) -> Rule | None:  # noqa: ANN401 - whatever somebody has written
    """Understand one rule; what is wrong with it goes into ``problems``."""
    if not isinstance(entry, Mapping):
        problems.append(f"is a {type(entry).__name__}, not a dictionary")
        return None
    unknown = [str(key) for key in entry if key not in KEYS]
    if unknown:
        problems.append(f"unknown keys {', '.join(unknown)}; known are {', '.join(KEYS)}")
    chain, peers = _direction(entry, problems)
    protocol = str(entry.get("protocol", ""))
    if protocol not in PROTOCOLS:
        problems.append(f"protocol '{protocol}' is none of {', '.join(PROTOCOLS)}")
    interface = entry.get("interface") or None
    if interface is not None and not _INTERFACE.fullmatch(str(interface)):
        problems.append(f"'{interface}' is no name of an interface")
    comment = str(entry.get("comment") or "")
    if not _COMMENT.fullmatch(comment):
        problems.append("the comment is longer than 80 characters or holds a quote, a backslash or a line break")
    ports = _ports(entry.get("ports"), protocol, problems)
    at = str(entry.get("at") or ("any" if interface or chain != "input" else "lan"))
    if at not in INPUT_CHAINS:
        problems.append(f"at '{at}' is none of {', '.join(INPUT_CHAINS)}")
    elif at != "any" and (interface or chain != "input"):
        problems.append("at is for input rules that name no interface")
    users = _users(entry, chain, problems)
    if chain == "loopback" and (interface or peers is not None or protocol not in PORT_PROTOCOLS):
        problems.append("a rule of the loopback has ports, and neither peers nor an interface")
    return Rule(chain, protocol, ports, peers, str(interface) if interface else None, comment, at, users)


def _users(entry: Mapping[str, Any], chain: str, problems: list[str]) -> tuple[str, ...]:
    """Read the users of a rule of the loopback."""
    users = entry.get("users")
    if chain != "loopback":
        if users is not None:
            problems.append("users are for rules of the loopback")
        return ()
    if isinstance(users, str) or not isinstance(users, Iterable):
        problems.append("users is no list of users; nobody but root is []")
        return ()
    named = tuple(sorted({str(user) for user in users}))
    problems.extend(f"'{user}' is no name of a user" for user in named if not _USER.fullmatch(user))
    return tuple(user for user in named if user != "root")


def _direction(entry: Mapping[str, Any], problems: list[str]) -> tuple[str, tuple[Network, ...] | None]:
    """Read ``chain`` and ``peers``, or one of their short forms."""
    forms = [key for key in ("from", "to", "chain") if entry.get(key) is not None]
    if len(forms) != 1 or (forms != ["chain"] and "peers" in entry):
        problems.append("give either chain (and peers), or from, or to")
        return "", None
    if forms == ["chain"]:
        chain, addresses = str(entry["chain"]), entry.get("peers")
    else:
        chain, addresses = ("input" if forms == ["from"] else "output"), entry[forms[0]]
    if chain not in CHAINS:
        problems.append(f"chain '{chain}' is none of {', '.join(CHAINS)}")
    if addresses is None:
        return chain, None
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        problems.append("peers is no list of addresses")
        return chain, None
    networks = tuple(network for address in addresses if (network := _network(str(address), problems)))
    # Everywhere in both families is the same as no peers, in one line less.
    return chain, None if {network.version for network in networks if network.prefixlen == 0} == {4, 6} else networks


def _network(text: str, problems: list[str]) -> Network | None:
    """Read an address or a network."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        problems.append(f"peer {error}")
        return None


def _ports(ports: Any, protocol: str, problems: list[str]) -> tuple[tuple[int, int], ...]:  # noqa: ANN401 - whatever somebody has written
    """Read ports and ranges of ports; merge those that touch or overlap."""
    if protocol not in PORT_PROTOCOLS:
        if ports:
            problems.append(f"protocol '{protocol}' has no ports")
        return ()
    if isinstance(ports, str) or not isinstance(ports, Iterable):
        problems.append('ports is no list of ports; all of them is ["1-65535"]')
        return ()
    ranges: list[tuple[int, int]] = []
    for port in ports:
        match = _PORTS.fullmatch(str(port))
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= 65535:
            problems.append(f"port {port} is not between 1 and 65535, nor a range such as 8000-8010")
            continue
        ranges.append((low, high))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def fragment(declared: Sequence[Mapping[str, Any]], owner: str, table: str) -> str:
    """Write the rules that a role declares as a part of a table.

    Args:
        declared: The rules, see above.
        owner: Name of the role; stands in each rule's comment.
        table: The table's family and name, such as ``inet sovereign``. Its chains ``declared_input``, ``declared_input_wan``,
            ``declared_input_lan``, ``declared_output`` and ``declared_loopback`` take the rules.

    Raises:
        RuleError: with every mistake.
    """
    if not _NAME.fullmatch(owner):
        raise RuleError(f"'{owner}' is no name of a role")
    rules = parse(declared)
    lines = [f"table {table} {{"]
    for chain in (*INPUT_CHAINS.values(), "declared_output", "declared_loopback"):
        body = [f"\t\t{line}" for rule in rules if rule.target == chain for line in rule.lines(owner)]
        if body:
            lines.extend([f"\tchain {chain} {{", *body, "\t}"])
    lines.append("}")
    return "\n".join(lines)
