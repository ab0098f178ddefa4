# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and networks, v4 and v6. The only module that touches netaddr, so that the rest stays typed and importable without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

try:
    import netaddr

    HAS_NETADDR = True
except ImportError:
    HAS_NETADDR = False

_PREFIXED = re.compile(r"^[^/]+/[0-9]+$")


class UnfitError(ValueError):
    """A text is no address or network; carries the problem and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Keep both halves of the sentence."""
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Address:
    """One unicast address; ``text`` is its canonical form."""

    text: str = field(compare=False)
    version: int
    value: int

    def __str__(self) -> str:
        """Give the canonical form."""
        return self.text

    def endpoint(self, port: int) -> str:
        """Address and port as URLs and WireGuard write them."""
        return f"[{self.text}]:{port}" if self.version == 6 else f"{self.text}:{port}"


@dataclass(frozen=True)
class Network:
    """One network; ``first`` and ``last`` are its lowest and highest address as numbers."""

    text: str = field(compare=False)
    version: int
    first: int
    last: int
    prefix: int

    def __str__(self) -> str:
        """Give the canonical form."""
        return self.text

    def __contains__(self, address: Address) -> bool:
        """Tell whether an address lies inside."""
        return self.version == address.version and self.first <= address.value <= self.last

    def overlaps(self, other: Network) -> bool:
        """Tell whether two networks share an address."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def reserved(self, address: Address) -> str | None:
        """Name the role of an address that no host can have in this network, if it is one."""
        if self.version == 4 and self.prefix < 31:
            if address.value == self.first:
                return "network address"
            if address.value == self.last:
                return "broadcast address"
        if self.version == 6 and self.prefix < 127 and address.value == self.first:
            return "subnet-router anycast address"
        return None


def _netaddr(name: str) -> Callable[[str], Any]:
    """Give one of netaddr's classes, which has no type annotations."""
    found: Callable[[str], Any] = getattr(netaddr, name)
    return found


def parse_address(text: str) -> Address:
    """Read one unicast address.

    Raises:
        UnfitError: the text is something else, with what it seems to be.
    """
    if "/" in text:
        raise UnfitError(f"'{text}' has a prefix length", f"give the address alone: '{text.partition('/')[0]}'")
    try:
        address = _netaddr("IPAddress")(text)
    except (netaddr.AddrFormatError, ValueError):
        raise UnfitError(f"'{text}' is no IP address", "give an IPv4 or IPv6 address, not a name") from None
    kind = _special(address)
    if kind:
        raise UnfitError(f"{text} is {kind}", "give the host's own unicast address")
    return Address(str(address), int(address.version), int(address))


def _special(address: Any) -> str | None:  # noqa: ANN401
    """Say why an address cannot be the address of one host."""
    if int(address) == 0:
        return "the unspecified address"
    if address.is_ipv4_mapped():
        return "an IPv4 address in IPv6 clothing"
    if address.is_loopback():
        return "a loopback address"
    if address.is_multicast():
        return "a multicast address"
    if address.is_link_local():
        return "a link-local address"
    if address.version == 4 and int(address) == 0xFFFFFFFF:
        return "the broadcast address"
    return None


def parse_network(text: str) -> Network:
    """Read one network in CIDR notation.

    Raises:
        UnfitError: the text is something else, with the network that was probably meant.
    """
    if not _PREFIXED.match(text):
        raise UnfitError(f"'{text}' is no network", "write address/prefix length, such as 10.20.0.0/16 or fd00:20::/48")
    try:
        network = _netaddr("IPNetwork")(text)
    except (netaddr.AddrFormatError, ValueError):
        raise UnfitError(f"'{text}' is no network", "write address/prefix length, such as 10.20.0.0/16 or fd00:20::/48") from None
    if network.ip != network.network:
        raise UnfitError(f"{text} has host bits set", f"the network is {network.cidr}")
    return Network(str(network.cidr), int(network.version), int(network.first), int(network.last), int(network.prefixlen))
