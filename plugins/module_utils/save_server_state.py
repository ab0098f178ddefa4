# Ansible managed
# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Save what HAProxy knows of its servers for the process that a reload starts: a program that roles install beside it.

Without it a reload, for instance after the renewal of a certificate, would send requests to servers that are drained or dead until the first
health checks have failed.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

COMMAND = b"show servers state\n"
VERSION = "1"


def ask(path: str, command: bytes) -> str:
    """Send one command to HAProxy's runtime socket and return the whole answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(command)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def configured(configuration: str) -> Iterator[tuple[str, str, str]]:
    """Give backend, name and ``address:port`` of each server in a configuration."""
    backend = ""
    for line in configuration.splitlines():
        if section := re.match(r"(\w+) ?(\S*)", line):
            backend = section[2] if section[1] in {"backend", "listen"} else ""
        elif backend and (server := re.match(r"\s+server (\S+) (\S+)", line)):
            yield backend, server[1], server[2]


def unmoved(state: str, configuration: str) -> str:
    """Return the state of the servers that the new configuration has where they are.

    HAProxy takes a server's port from the state: one that has moved must begin without.

    Raises ValueError if the state is not of the version that is known.
    """
    lines = state.strip().splitlines()
    if len(lines) < 2 or lines[0] != VERSION or not lines[1].startswith("# "):
        raise ValueError(f"not a state of version {VERSION}: {state[:80]!r}")
    columns = lines[1].removeprefix("# ").split()
    places = set(configured(configuration))
    kept = lines[:2]
    for line in lines[2:]:
        server = dict(zip(columns, line.split(" "), strict=False))
        if (server["be_name"], server["srv_name"], f"{server['srv_addr']}:{server['srv_port']}") in places:
            kept.append(line)
    return "\n".join(kept) + "\n"


def main(socket_path: str, configuration_path: str, state_path: str) -> None:
    """Write the state of the HAProxy behind a socket to a file, whole or not at all."""
    target = Path(state_path)
    partial = target.with_suffix(".partial")
    partial.write_text(unmoved(ask(socket_path, COMMAND), Path(configuration_path).read_text()))
    partial.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
