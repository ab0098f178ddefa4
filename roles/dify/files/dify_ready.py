# Ansible managed
"""Waits until a container answers, so that its unit is active when it works: for ExecStartPost=.

A server that is late is waited for; one whose process has ended is not.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PAUSE = 1.0
PATIENCE = 30.0


def answers(url: str) -> bool:
    """Ask for a page; whatever is no server's error will do."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=PATIENCE) as answer:
            return bool(answer.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, http.client.HTTPException):
        return False


def listens(where: str) -> bool:
    """Open a connection to ``address:port``."""
    address, dummy, port = where.rpartition(":")
    try:
        socket.create_connection((address, int(port)), PATIENCE).close()
    except OSError:
        return False
    return True


def succeeds(command: list[str]) -> bool:
    """Run a command."""
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE * 2, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> int:
    """Wait."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=float, required=True, help="seconds")
    parser.add_argument("--url", help="page that answers")
    parser.add_argument("--listens", help="address and port that take connections")
    parser.add_argument("command", nargs="*", help="command that succeeds")
    given = parser.parse_args()
    process = Path("/proc") / os.environ.get("MAINPID", "self")
    deadline = time.monotonic() + given.timeout
    while time.monotonic() < deadline:
        if not process.exists():
            print("it has ended before it answered", file=sys.stderr)
            return 1
        if answers(given.url) if given.url else listens(given.listens) if given.listens else succeeds(given.command):
            return 0
        time.sleep(PAUSE)
    print(f"it has not answered in {given.timeout:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
