"""Print whether Pgpool-II answers, and how many of its sessions are taken: ``sessions.py ADDRESS PORT SESSIONS USER``.

Its processes say in their titles what they do, and there is one process for each session.
"""

from __future__ import annotations

import pwd
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

TIMEOUT_S = 5.0
# GSSENCRequest of PostgreSQL's protocol: answered by one byte, before any login, and not logged.
QUESTION = struct.pack(">ii", 8, 80877104)
TITLE = "pgpool: "
# Titles of processes that serve no session, after the beginning.
OTHERS = ("PCP", "worker process", "health check process", "logger", "lifecheck", "heartbeat", "watchdog")
FREE = "wait for connection request"


def answers(address: str, port: int) -> bool:
    """Whether somebody answers as PostgreSQL does, be it that there is no session left."""
    try:
        with socket.create_connection((address, port), TIMEOUT_S) as stream:
            stream.sendall(QUESTION)
            return stream.recv(1) in {b"N", b"E"}
    except OSError:
        return False


def titles(user: str, proc: Path = Path("/proc")) -> list[str]:
    """Give the titles of a user's processes."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        return []
    found = []
    for process in proc.iterdir():
        if process.name.isdigit():
            try:
                if process.stat().st_uid == uid:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
            except OSError:
                continue
    return found


def taken(processes: Iterable[str]) -> int:
    """Count the processes that have a client."""
    ours = [title.removeprefix(TITLE) for title in processes if title.startswith(TITLE)]
    return sum(not title.startswith((FREE, *OTHERS)) for title in ours)


def report(up: bool, sessions: int, limit: int) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    return [
        "# HELP sovereign_pgpool_up Whether Pgpool-II answers.",
        "# TYPE sovereign_pgpool_up gauge",
        f"sovereign_pgpool_up {int(up)}",
        "# HELP sovereign_pgpool_sessions Sessions of clients.",
        "# TYPE sovereign_pgpool_sessions gauge",
        f"sovereign_pgpool_sessions {sessions}",
        "# HELP sovereign_pgpool_sessions_limit Sessions that there may be at once.",
        "# TYPE sovereign_pgpool_sessions_limit gauge",
        f"sovereign_pgpool_sessions_limit {limit}",
    ]


def main(address: str, port: str, sessions: str, user: str) -> None:
    """Count, ask, and print: the question takes a session itself."""
    count = taken(titles(user))
    print("\n".join(report(answers(address, int(port)), count, int(sessions))))


if __name__ == "__main__":
    main(*sys.argv[1:])
