# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which process, and which unit, listens on a TCP port of this host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

_USER = re.compile(r'\("(?P<name>(?:[^"\\]|\\.)*)",pid=(?P<pid>\d+),fd=\d+\)')
_WILDCARDS = {"*": {4, 6}, "0.0.0.0": {4}, "::": {6}}  # noqa: S104 - compared, not bound
"""Addresses that stand for all of a family; ``ss`` writes ``*`` where one socket takes both."""


@dataclass(frozen=True)
class Listener:
    """A listening socket.

    Attributes:
        address: Its address as ``ss`` writes it, without brackets and interface.
        port: Its port.
        process: Name of the process that holds it; empty for the kernel's own.
        pid: Number of that process; 0 for the kernel's own.
        unit: systemd's unit of that process; empty where it has none.
    """

    address: str
    port: int
    process: str = ""
    pid: int = 0
    unit: str = ""

    def __str__(self) -> str:
        """Name socket and holder."""
        place = f"{self.address if ':' not in self.address else f'[{self.address}]'}:{self.port}"
        if not self.pid:
            return f"{place} is held by the kernel"
        return f"{place} is held by {self.process} (pid {self.pid}, {f'unit {self.unit}' if self.unit else 'of no unit'})"


def parse(text: str, unit_of: Callable[[int], str]) -> list[Listener]:
    """Read what ``ss -H -tlpn`` prints.

    Args:
        text: Its output.
        unit_of: Tells the unit of a process by its number.

    Returns:
        The sockets. Of several processes that share one, such as a service and systemd that has opened its socket, the one with the highest number.
    """
    found = []
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or fields[0] != "LISTEN":
            continue
        address, dummy, port = fields[3].rpartition(":")
        holders = [(int(match["pid"]), match["name"]) for match in _USER.finditer(fields[5] if len(fields) > 5 else "")]
        pid, process = max(holders, default=(0, ""))
        found.append(Listener(address.partition("%")[0].strip("[]"), int(port), process, pid, unit_of(pid) if pid else ""))
    return found


def unit_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Tell the unit of a process by its control group; nothing where it has none, or has gone.

    Args:
        pid: Its number.
        proc: Where the kernel tells of processes.
    """
    try:
        groups = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return ""
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            units = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
            if units:
                return units[-1]
    return ""


def foreign(listeners: Iterable[Listener], wanted: Sequence[Mapping[str, Any]], units: Sequence[str]) -> list[Listener]:
    """Find the sockets in the way of those that a role is about to open.

    Args:
        listeners: What listens now.
        wanted: ``address`` and ``ports`` of what is to listen.
        units: Patterns of units whose sockets are the role's own, or will be replaced by it.
    """
    return [
        listener
        for listener in listeners
        if any(listener.port in place["ports"] and _overlap(listener.address, place["address"]) for place in wanted)
        and not any(fnmatchcase(listener.unit, pattern) for pattern in units)
    ]


def _overlap(one: str, other: str) -> bool:
    """Whether two sockets with these addresses, and the same port, stand in each other's way."""
    families = _families(one) & _families(other)
    return bool(families) and (one in _WILDCARDS or other in _WILDCARDS or _plain(one) == _plain(other))


def _families(address: str) -> set[int]:
    return _WILDCARDS.get(address) or {_plain(address).version}


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address to compare; an IPv4 address that is written as IPv6 is one of IPv4."""
    found = ip_address(address)
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
