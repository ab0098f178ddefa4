# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH connection that a process on a host belongs to."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = b"SSH_CONNECTION="


@dataclass(frozen=True)
class Session:
    """An SSH connection as the host's sshd sees it: the client's address, and the address and port of the host that it came to."""

    client: str
    address: str
    port: int


def parse(text: str) -> Session | None:
    """Read the value of SSH_CONNECTION: client address, client port, server address, server port. None where it is something else.

    Example: ``198.18.1.1 43210 198.18.1.11 2222``.
    """
    fields = text.split()
    if len(fields) != 4 or not fields[3].isdigit():
        return None
    try:
        client, address = (_plain(field) for field in (fields[0], fields[2]))
    except ValueError:
        return None
    return Session(client, address, int(fields[3]))


def _plain(text: str) -> str:
    """Write an address without its zone, and an IPv4 address that came through an IPv6 socket as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def current(proc: Path = Path("/proc"), process: int | None = None) -> Session | None:
    """Find the connection of a process, by default this one's, or of the nearest ancestor that has one.

    sudo removes SSH_CONNECTION from the environment, but the shell that started sudo still has it.
    """
    # What this process was started with, it may no longer have; and what it has, nobody sees from outside.
    if process is None and (found := parse(os.environ.get("SSH_CONNECTION", ""))):
        return found
    pid = os.getpid() if process is None else process
    while pid > 1:
        try:
            environment = (proc / str(pid) / "environ").read_bytes().split(b"\0")
            # Behind the name, which may hold spaces and parentheses: the state, then the parent.
            parent = int((proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        for entry in environment:
            if entry.startswith(_VARIABLE) and (found := parse(entry[len(_VARIABLE) :].decode(errors="replace"))):
                return found
        pid = parent
    return None
