# Ansible managed
"""Takes a process of the api out of HAProxy's rotation and waits until its requests have ended, or puts it back: for ExecStop= and ExecStartPost=.

Requests are counted by the process's connections: after a reload HAProxy's statistics know nothing of those that its former process has brought.
Where HAProxy does not run, nobody is sent to the process, and nothing is to do.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path

PAUSE = 0.5
ESTABLISHED = "01"


def ask(path: Path, command: str) -> str:
    """Give HAProxy's answer to a command of its runtime API."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(5)
        channel.connect(str(path))
        channel.sendall(command.encode() + b"\n")
        answer = b""
        while part := channel.recv(65536):
            answer += part
    return answer.decode()


def connections(port: int, table: Path = Path("/proc/net/tcp")) -> int:
    """Count the connections to a port of this host that are established."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == ESTABLISHED for dummy, local, dummy, state, *dummy in rows)


def main() -> int:
    """Drain, or put back."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--socket", type=Path, required=True, help="HAProxy's runtime socket")
    parser.add_argument("--backends", nargs="+", required=True, help="backends that have the server")
    parser.add_argument("--server", required=True, help="name of the server")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1 that it listens on")
    parser.add_argument("--ready", action="store_true", help="put it back")
    parser.add_argument("--timeout", type=float, default=0, help="seconds to wait for its requests")
    given = parser.parse_args()
    try:
        for backend in given.backends:
            ask(given.socket, f"set server {backend}/{given.server} state {'ready' if given.ready else 'drain'}")
        deadline = time.monotonic() + given.timeout
        while not given.ready and (left := connections(given.port)):
            if time.monotonic() >= deadline:
                print(f"{left} requests are cut off: they have not ended in {given.timeout:.0f} s", file=sys.stderr)
                break
            time.sleep(PAUSE)
    except OSError as error:
        print(f"HAProxy is not asked: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
