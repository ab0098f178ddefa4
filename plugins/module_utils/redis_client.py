# Ansible managed
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redis and Sentinel, spoken to without a library: by modules, and by a member that is about to start. The standard library only.

The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/ (version 2).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PKI = Path("/etc/sovereign/pki")


class RedisError(Exception):
    """An answer that is an error, or none."""


class Connection:
    """One connection, logged in."""

    def __init__(self, stream: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = stream
        self._answers = stream.makefile("rb")

    @classmethod
    def unix(cls, path: str, user: str, passwords: Iterable[str], timeout: float = 5) -> Connection:
        """Connect to a server of this host.

        Raises:
            OSError: nobody listens.
            RedisError: none of the passwords is the user's.
        """
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect(path)
        except OSError:
            stream.close()
            raise
        return cls(stream)._logged_in(user, passwords)

    @classmethod
    def tls(cls, address: str, port: int, user: str, passwords: Iterable[str], timeout: float = 2, pki: Path = PKI) -> Connection:
        """Connect to a server of any member, with this host's certificate.

        Raises:
            OSError: nobody listens, or not the one who should.
            RedisError: none of the passwords is the user's.
        """
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "host.crt", pki / "host.key")
        stream = socket.create_connection((address, port), timeout)
        try:
            secured = context.wrap_socket(stream, server_hostname=address)
        except OSError:
            stream.close()
            raise
        return cls(secured)._logged_in(user, passwords)

    @classmethod
    def tcp(cls, address: str, port: int, user: str, passwords: Iterable[str], timeout: float = 5) -> Connection:
        """Connect to what this host's own proxy, or another trusted one, forwards without TLS.

        Raises:
            OSError: nobody listens.
            RedisError: none of the passwords is the user's.
        """
        return cls(socket.create_connection((address, port), timeout))._logged_in(user, passwords)

    def _logged_in(self, user: str, passwords: Iterable[str]) -> Connection:
        refusal = RedisError("no password was given")
        for password in passwords:
            try:
                self("AUTH", user, password)
            except RedisError as error:
                if not str(error).startswith("WRONGPASS"):
                    raise
                refusal = error
            else:
                return self
        self.close()
        raise refusal

    def __call__(self, *words: str | int) -> Any:  # noqa: ANN401 - text, number, list or None, as the command has it
        """Send a command and give the answer.

        Raises:
            RedisError: the answer is an error, or the connection ended.
        """
        parts = [str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401
        line = self._answers.readline().rstrip(b"\r\n").decode(errors="replace")
        kind, rest = line[:1], line[1:]
        if kind == "+":
            return rest
        if kind == ":":
            return int(rest)
        if kind == "$":
            return self._answers.read(int(rest) + 2)[:-2].decode(errors="replace") if int(rest) >= 0 else None
        if kind == "*":
            return [self._answer() for dummy in range(int(rest))] if int(rest) >= 0 else None
        raise RedisError(rest or "the connection ended")

    def pairs(self, *words: str | int) -> dict[str, str]:
        """Send a command whose answer is a flat list of names and values."""
        answer = self(*words)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def info(self, section: str) -> dict[str, str]:
        """Give a section of INFO."""
        lines = str(self("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self) -> None:
        """End the connection."""
        self._answers.close()
        self._socket.close()

    def __enter__(self) -> Connection:
        """Close it after the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


@dataclass(frozen=True)
class View:
    """What one Sentinel holds for true.

    Attributes:
        sentinel: Address of the Sentinel.
        master: Address of the master.
        epoch: Grows with each fail-over: the higher one knows better.
    """

    sentinel: str
    master: str
    epoch: int


def views(addresses: Iterable[str], port: int, name: str, passwords: Iterable[str]) -> list[View]:
    """Ask Sentinels who leads; who does not answer, or does not know, is left out."""
    found = []
    keys = list(passwords)
    for address in addresses:
        with contextlib.suppress(OSError, RedisError), Connection.tls(address, port, "admin", keys) as sentinel:
            told = sentinel.pairs("SENTINEL", "MASTER", name)
            found.append(View(address, told["ip"], int(told["config-epoch"])))
    return found


def leader(seen: Iterable[View]) -> str | None:
    """Give the address of the master that the best informed Sentinel knows."""
    best = max(seen, key=lambda view: view.epoch, default=None)
    return best.master if best else None


def passwords(path: Path) -> list[str]:
    """Read the passwords in a file, one a line; the first is the one to use from now on."""
    return path.read_text().split()
