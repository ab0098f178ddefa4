# Ansible managed
"""Waits until a container answers, so that its unit is active when it works: for ExecStartPost=.

A server that is late is waited for; one whose process has ended is not.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
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


def main() -> int:
    """Wait."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=float, required=True, help="seconds")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--url", help="page that answers")
    asked.add_argument("--listens", help="address and port that take connections")
    given = parser.parse_args()
    process = Path("/proc") / os.environ.get("MAINPID", "self")
    deadline = time.monotonic() + given.timeout
    while time.monotonic() < deadline:
        if not process.exists():
            print("it has ended before it answered", file=sys.stderr)
            return 1
        if answers(given.url) if given.url else listens(given.listens):
            return 0
        time.sleep(PAUSE)
    print(f"it has not answered in {given.timeout:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
