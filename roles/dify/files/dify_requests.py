# Ansible managed
"""Ends requests to Dify's api that have lasted longer than any may.

Dify ends an app or a workflow by itself (``APP_MAX_EXECUTION_TIME``, ``WORKFLOW_MAX_EXECUTION_TIME``), and HAProxy an answer of which nothing comes
any more. One that neither has ended holds its place for ever: for instance a stream that is kept open by pings, while nobody works on it any more.

A service: ``dify_requests.py --socket <HAProxy's> --longest <seconds>``.
"""

from __future__ import annotations

import argparse
import re

from haproxy import Ask, runtime, sessions, watch

INTERVAL = 15.0
"""Seconds between two looks."""
BACKENDS = re.compile(r"api(_|$)")
"""Those of the api. What is open for long elsewhere is meant to be: web sockets."""


def end_overdue(ask: Ask, longest: float) -> list[str]:
    """End what has lasted longer than it may.

    Args:
        ask: Sends a command to HAProxy.
        longest: Seconds that a request may last.

    Returns:
        What was ended, a sentence for each server.

    Raises:
        OSError: HAProxy does not answer.
    """
    ended: dict[str, list[int]] = {}
    for session in sessions(ask):
        if BACKENDS.match(session.backend) and session.age > longest:
            ask(f"shutdown session {session.identity}")
            ended.setdefault(f"{session.backend}/{session.server}", []).append(session.age)
    return [
        f"<4>ended {len(ages)} request(s) at {place} that had lasted for up to {max(ages)} s, of {longest:.0f}; if more come, restart the api"
        for place, ages in ended.items()
    ]


def main() -> None:
    """Look for ever."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--socket", required=True, help="HAProxy's, for administration")
    parser.add_argument("--longest", type=float, required=True, metavar="SECONDS", help="how long a request may last")
    given = parser.parse_args()
    watch(lambda: end_overdue(runtime(given.socket), given.longest), INTERVAL)


if __name__ == "__main__":
    main()
