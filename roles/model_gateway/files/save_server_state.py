# Ansible managed
"""Save what HAProxy knows of its servers for the process that a reload starts.

Without it a reload, for instance after the renewal of a certificate, would send requests to servers that are drained or dead until the first
health checks have failed.
"""

from __future__ import annotations

import socket
import sys
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


def keep_configured_addresses(state: str) -> str:
    """Return the state without addresses and ports, which are the new configuration's to say.

    HAProxy would otherwise go on using a port that has been changed.

    Raises ValueError if the state is not of the version that is known.
    """
    lines = state.strip().splitlines()
    if len(lines) < 2 or lines[0] != VERSION or not lines[1].startswith("# "):
        raise ValueError(f"not a state of version {VERSION}: {state[:80]!r}")
    names = lines[1].removeprefix("# ").split()
    address, port = names.index("srv_addr"), names.index("srv_port")
    kept = lines[:2]
    for line in lines[2:]:
        fields = line.split(" ")
        fields[address], fields[port] = "-", "0"
        kept.append(" ".join(fields))
    return "\n".join(kept) + "\n"


def main(socket_path: str, state_path: str) -> None:
    """Write the state of the HAProxy behind a socket to a file, whole or not at all."""
    target = Path(state_path)
    partial = target.with_suffix(".partial")
    partial.write_text(keep_configured_addresses(ask(socket_path, COMMAND)))
    partial.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
