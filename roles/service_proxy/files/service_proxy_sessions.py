# Ansible managed
"""End the sessions with servers that clients must no longer talk to.

HAProxy can do so itself (``on-marked-down shutdown-sessions``), but in TCP mode version 3.0 forgets the client of a session that is still being
connected or retried at that moment: its server's side is closed, its client waits for ever. This program looks at what HAProxy says of servers and
sessions, again and again, and ends those that are established with a server that is down or no longer configured. A session that is being connected
is left to HAProxy, which tries another server or closes it. So is one of a backend whose requests HAProxy repeats at another server.

It covers the processes of before a reload too, which check no server any more. They last as long as their sessions. When there are more than a given
number of them, the oldest one's sessions are ended one by one, slowly, so that no pool of a client loses all its connections at once.

A service: ``service_proxy_sessions.py <master socket> <number of former processes> <backend that repeats requests>...``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

from haproxy import CLOSED, ESTABLISHED, Ask, runtime, servers, sessions, watch, worker, workers

INTERVAL_S = 0.5
DRAIN_S = 2.0
"""Seconds between two sessions that are ended because there are too many former processes."""
ABANDONED_S = 60
"""Age in seconds from which a session without a server is reported: connecting, with all retries and the queue, takes less than half of it."""
SEARCH_S = 60.0
"""Seconds between two searches for them."""


class Supervisor:
    """Looks at one HAProxy, and ends sessions."""

    def __init__(self, master: Ask, former: int, repeated: Collection[str] = ()) -> None:
        """Take one HAProxy.

        Args:
            master: Sends a command to its master process.
            former: How many processes of before a reload may have sessions.
            repeated: Backends whose requests HAProxy sends to another server when one dies with them.
        """
        self._master = master
        self._former = former
        self._repeated = set(repeated)
        self._drained = self._searched = float("-inf")

    def look(self, now: float) -> list[str]:
        """Look once.

        Args:
            now: Monotonic time in seconds.

        Returns:
            What was done or found, a sentence each.

        Raises:
            OSError: HAProxy does not answer.
            KeyError: HAProxy does not answer with its servers, for instance because the process has just ended.
        """
        processes = workers(self._master)
        known = servers(worker(self._master, processes.current)) if processes.current else []
        if not known:
            return []
        usable = {(server.backend, server.name) for server in known if not server.down}
        told: list[str] = []
        search = now - self._searched >= SEARCH_S
        self._searched = now if search else self._searched
        for process in filter(None, (processes.current, *processes.former)):
            ask = worker(self._master, process)
            # Listing sessions costs more than counting them, and nearly always there is nothing to end.
            counted = known if process == processes.current else servers(ask)
            if not search and not any(server.sessions and (server.backend, server.name) not in usable for server in counted):
                continue
            abandoned = 0
            ended: dict[str, int] = {}
            for session in sessions(ask):
                if search and session.connection == CLOSED and session.age >= ABANDONED_S:
                    abandoned += 1
                if session.connection == ESTABLISHED and session.backend not in self._repeated and (session.backend, session.server) not in usable:
                    ask(f"shutdown session {session.identity}")
                    place = f"{session.backend}/{session.server}"
                    ended[place] = ended.get(place, 0) + 1
            told += [f"ended sessions with {place}, which is down: {count}" for place, count in ended.items()]
            if abandoned:
                told.append(f"<4>{abandoned} sessions have lost their server and not their client; a restart of service_proxy.service ends them")
        if len(processes.former) > self._former and now - self._drained >= DRAIN_S:
            self._drained = now
            oldest = processes.former[0]
            ask = worker(self._master, oldest)
            # The youngest first: one that has lasted for long may be kept on purpose, for instance by a consumer of a queue.
            for session in sorted(sessions(ask), key=lambda session: session.age)[:1]:
                ask(f"shutdown session {session.identity}")
                place = f"{session.backend}/{session.server}"
                told.append(f"ended a session with {place} in process {oldest}: {len(processes.former)} former processes are too many")
        return told


def main(socket: str, former: str, *repeated: str) -> None:
    """Look for ever."""
    supervisor = Supervisor(runtime(socket), int(former), repeated)
    watch(lambda: supervisor.look(time.monotonic()), INTERVAL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
