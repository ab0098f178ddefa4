# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a member of an object storage is: its servers, its way to the others, its rings, its copies. The standard library only."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("account", "container", "object")

Get = Callable[[str, int, str], bytes]
"""Asks an address, at a port, for a path; gives the answer's body, or raises OSError."""


def get(address: str, port: int, path: str) -> bytes:
    """Ask a server of this host, or through the mesh one of another."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no answer: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{path} gives {answer.status}")
    return body


def greet(address: str, port: int) -> None:
    """Have rsync greet.

    Raises:
        OSError: it does not.
    """
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.settimeout(5)
        if not connection.recv(64).startswith(b"@RSYNCD:"):
            raise OSError("rsync does not greet")


@dataclass
class Health:
    """A member, seen from itself.

    Attributes:
        address: Its address in the rings.
        members: Those of all members.
        ports: Ports of the servers, with ``rsync`` and ``proxy``.
        get: Asks a server.
        greet: Asks rsync.
    """

    address: str
    members: Sequence[str]
    ports: Mapping[str, int]
    get: Get = get
    greet: Callable[[str, int], None] = greet

    def faults(self, since: float | None = None) -> list[str]:
        """Tell what keeps the member from doing its part; with a time, also what has not been copied since then, on any member."""
        found = []
        for service in (*KINDS, "proxy"):
            try:
                self.get(self.address, self.ports[service], "/healthcheck")
            except OSError as error:
                found.append(f"{service} server: {error}")
        try:
            self.greet(self.address, self.ports["rsync"])
        except OSError as error:
            found.append(f"rsync: {error}")
        if found:
            return found
        found += self.rings()
        if since is not None:
            for member in self.members:
                found += self.copies(member, since)
        return found

    def rings(self) -> list[str]:
        """Tell whether enough members are there for writes, and all of them have the same rings."""
        own = self.ask(self.address, "ringmd5")
        reached, found = 1, []
        for member in self.members:
            if member == self.address:
                continue
            try:
                theirs = self.ask(member, "ringmd5")
                self.greet(member, self.ports["rsync"])
            except OSError:
                continue
            reached += 1
            if theirs != own:
                found.append(f"{member} has other rings")
        if 2 * reached <= len(self.members):
            found.append(f"only {reached} of {len(self.members)} members can be reached")
        return found

    def copies(self, member: str, since: float) -> list[str]:
        """Tell which copies of a member are not yet with those who shall have them."""
        found = []
        for kind in KINDS:
            try:
                told = self.ask(member, f"replication/{kind}")
            except OSError as error:
                return [f"{member}: {error}"]
            last = told.get("replication_last" if kind != "object" else "object_replication_last") or 0
            duration = told.get("object_replication_time" if kind == "object" else "replication_time") or 0
            # The object replicator counts minutes. What began before the time in question may have passed by what was written since.
            begun = last - duration * (60 if kind == "object" else 1)
            stats = told.get("replication_stats") or {}
            if begun < since:
                found.append(f"{member}: no pass over {kind}s has begun and ended since")
            elif stats.get("failure"):
                found.append(f"{member}: {stats['failure']} {kind}s could not be copied")
        return found

    def ask(self, member: str, what: str) -> dict[str, Any]:
        """Ask a member what its daemons have noted."""
        answer = json.loads(self.get(member, self.ports["object"], f"/recon/{what}"))
        if not isinstance(answer, dict):
            raise OSError(f"/recon/{what} gives no answer")
        return answer
