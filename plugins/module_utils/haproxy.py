# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take servers out of HAProxy's backends and back in, and end sessions, by its sockets.

Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import csv
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ADMIN_MAINTENANCE = 0x01
ADMIN_DRAIN = 0x08
RUNNING = "2"
STOPPED = "0"
ESTABLISHED, CLOSED = 8, 10
"""States of a session's connection to its server, as ``show sess`` writes them (``SC_ST_EST``, ``SC_ST_CLO``)."""
COMMANDS = {"drained": "drain", "ready": "ready"}

DIGEST = "CONFIGURATION_DIGEST"
"""Environment variable by which a configuration names its own content: the process keeps the value of the configuration that it has loaded."""

Ask = Callable[[str], str]


class HaproxyError(Exception):
    """HAProxy did not do what it was asked, or not in time."""


@dataclass(frozen=True)
class Server:
    """A server of one backend, as HAProxy sees it.

    Attributes:
        backend: Name of the backend.
        name: Name of the server in it.
        drained: Whether somebody has taken it out of rotation.
        maintenance: Whether somebody has taken it out altogether, checks included.
        alive: Whether its checks succeed.
        down: Whether its checks fail, or somebody has taken it out altogether: nobody may talk to it. Neither alive nor down is a
            server that gets no new sessions and keeps those that it has.
        sessions: Requests that it is answering.
        status: All of it in HAProxy's word, for instance ``UP`` or ``DRAIN``.
        check: What the last check gave, for instance ``L4TOUT``.
    """

    backend: str
    name: str
    drained: bool
    maintenance: bool
    alive: bool
    sessions: int
    status: str
    check: str = ""
    down: bool = False

    @property
    def set_to(self) -> str:
        """State that somebody has set: ``drained`` or ``ready``."""
        return "drained" if self.drained or self.maintenance else "ready"


def runtime(path: str) -> Ask:
    """Return a function that sends a command to the socket at ``path`` and gives the answer; OSError where nobody listens."""

    def ask(command: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(f"{command}\n".encode())
            # The master process answers, but waits for more commands until its client has no more to say.
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode().strip()

    return ask


def servers(ask: Ask) -> list[Server]:
    """List every server of every backend."""
    state = ask("show servers state").splitlines()[1:]
    rows = csv.DictReader([line.removeprefix("# ") for line in state if line], delimiter=" ")
    admin = {(row["be_name"], row["srv_name"]): row for row in rows}
    statistics = csv.DictReader(ask("show stat -1 4 -1").removeprefix("# ").splitlines())
    found = []
    for row in statistics:
        place = (row["pxname"], row["svname"])
        if place in admin:
            flags = int(admin[place]["srv_admin_state"])
            found.append(
                Server(
                    backend=place[0],
                    name=place[1],
                    drained=bool(flags & ADMIN_DRAIN),
                    maintenance=bool(flags & ADMIN_MAINTENANCE),
                    alive=admin[place]["srv_op_state"] == RUNNING,
                    sessions=int(row["scur"] or 0),
                    status=row["status"],
                    check=" ".join(filter(None, (row.get("check_status", ""), row.get("last_chk", "")))),
                    down=admin[place]["srv_op_state"] == STOPPED,
                )
            )
    return found


@dataclass(frozen=True)
class Session:
    """A client's connection through HAProxy.

    Attributes:
        identity: HAProxy's own name for it, for ``shutdown session``.
        backend: Name of the backend.
        server: Name of the server in it.
        connection: State of the connection to that server, for instance :data:`ESTABLISHED`.
        age: Seconds since the client connected.
    """

    identity: str
    backend: str
    server: str
    connection: int
    age: int


SESSION = re.compile(r"(0x[0-9a-f]+): .* be=(\S+) srv=(\S+) .* age=(\S+) .* scb=\[(\d+),")
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def sessions(ask: Ask) -> list[Session]:
    """List the sessions that have a server."""
    found = [match.groups() for line in ask("show sess").splitlines() if (match := SESSION.match(line))]
    return [
        Session(identity, backend, server, int(state), sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", age)))
        for identity, backend, server, age, state in found
        if server != "<none>"
    ]


@dataclass(frozen=True)
class Workers:
    """Processes of one HAProxy.

    Attributes:
        current: The one that takes new sessions and checks servers; nothing while a reload is under way.
        former: Those of before a reload that still have sessions, the oldest first.
    """

    current: int | None
    former: tuple[int, ...]


def workers(master: Ask) -> Workers:
    """Ask the master process for its workers.

    Args:
        master: Sends a command to the master's socket (``haproxy -S``).
    """
    current, former, section = None, [], ""
    for line in master("show proc").splitlines():
        if line.startswith("# "):
            section = line.removeprefix("# ").strip()
        elif (fields := line.split()) and fields[1:2] == ["worker"]:
            if section == "workers":
                current = int(fields[0])
            elif section == "old workers":
                former.append((-int(fields[2]), int(fields[0])))
    return Workers(current, tuple(process for _reloads, process in sorted(former)))


def worker(master: Ask, process: int) -> Ask:
    """Return a function that sends a command to one worker by way of the master's socket."""
    return lambda command: master(f"@!{process} {command}")


def watch(look: Callable[[], list[str]], interval: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Look for ever; print what there is to tell, once that HAProxy does not answer, and once that it does again.

    Args:
        look: Looks once, and gives what there is to tell, a sentence each. One look may fall into a reload: that it raises OSError, KeyError or
            ValueError is told, and no reason to end.
        interval: Seconds between two looks.
        sleep: Waits some seconds.
    """
    failing = False
    while True:
        try:
            told = look()
            told += ["HAProxy answers again"] if failing else []
            failing = False
        except (OSError, KeyError, ValueError) as error:
            told = [] if failing else [f"HAProxy did not answer: {error!r}"]
            failing = True
        for sentence in told:
            sys.stdout.write(f"{sentence}\n")
            sys.stdout.flush()
        sleep(interval)


def select(known: Sequence[Server], name: str, backends: Sequence[str]) -> list[Server]:
    """Return the server of that name in each of the backends; HaproxyError where one does not have it."""
    chosen = [server for server in known if server.name == name and server.backend in backends]
    if missing := sorted(set(backends) - {server.backend for server in chosen}):
        places = ", ".join(f"{server.backend}/{server.name}" for server in known) or "none"
        raise HaproxyError(f"no server {name} in backend {', '.join(missing)}; HAProxy knows {places}")
    return chosen


def settle(ask: Ask, name: str, backends: Sequence[str], state: str, timeout: float | None, pause: float = 0.5) -> list[Server]:
    """Set a server's state in some backends and wait until it is reached.

    Args:
        ask: Sends a command to HAProxy.
        name: Name of the server.
        backends: Names of the backends.
        state: ``drained``: it gets no new request, and has answered the last of its old ones, whether it is alive or not;
            ``ready``: it gets requests, as its checks succeed.
        timeout: Seconds to wait; nothing means not to wait at all.
        pause: Seconds between two looks.

    Returns:
        The server in each backend, afterwards. HaproxyError where HAProxy refuses, or where the time is over.
    """
    end = time.monotonic() + (timeout or 0)
    for server in select(servers(ask), name, backends):
        # HAProxy says nothing where it obeys.
        if server.set_to != state and (complaint := ask(f"set server {server.backend}/{server.name} state {COMMANDS[state]}")):
            raise HaproxyError(f"{server.backend}/{server.name}: {complaint}")
    while True:
        now = select(servers(ask), name, backends)
        waiting = [server for server in now if (server.sessions if state == "drained" else not server.alive)]
        if not waiting or timeout is None:
            return now
        if time.monotonic() > end:
            what = ", ".join(f"{server.backend}/{server.name} is {server.status} with {server.sessions} requests" for server in waiting)
            raise HaproxyError(f"not {state} after {timeout:g} s: {what}")
        time.sleep(pause)


def await_alive(ask: Ask, backends: Sequence[str], timeout: float, pause: float = 0.5) -> list[Server]:
    """Wait until each of some backends has a server that is alive.

    Args:
        ask: Sends a command to HAProxy.
        backends: Names of the backends.
        timeout: Seconds to wait.
        pause: Seconds between two looks.

    Returns:
        The servers of those backends. HaproxyError where one has nobody when the time is over, with what the checks of its servers gave.
    """
    end = time.monotonic() + timeout
    while True:
        found = [server for server in servers(ask) if server.backend in backends]
        empty = [name for name in backends if not any(server.alive for server in found if server.backend == name)]
        if not empty:
            return found
        if time.monotonic() > end:
            seen = {name: [f"{server.name} {server.status} ({server.check})" for server in found if server.backend == name] for name in empty}
            raise HaproxyError("; ".join(f"nobody answers for {name}: {', '.join(states) or 'no servers'}" for name, states in seen.items()))
        time.sleep(pause)


def differences(ask: Ask, configuration: Path, digest: str | None = None) -> list[str]:
    """Compare what a running HAProxy has loaded with what is written on its host.

    Args:
        ask: Sends a command to HAProxy.
        configuration: Its configuration file, which says ``setenv CONFIGURATION_DIGEST <digest>``.
        digest: What the configuration should be; None to compare with the file alone.

    Returns:
        Sentences, one for each difference: the configuration, and each table (map or list of patterns) that was loaded from a file.
    """
    found = []
    running = ask(f"show env {DIGEST}").partition("=")[2].strip()
    assigned = re.search(rf"^\s*setenv {DIGEST} (\S+)", configuration.read_text(), flags=re.MULTILINE)
    if running != (assigned[1] if assigned else ""):
        found.append(f"HAProxy runs another configuration than {configuration} holds")
    if digest is not None and running != digest:
        found.append("HAProxy runs another configuration than the inventory declares")
    for kind in ("map", "acl"):
        for name in sorted(set(re.findall(r"^\S+ \((/[^)]+)\)", ask(f"show {kind}"), flags=re.MULTILINE))):
            loaded = sorted(line.partition(" ")[2].strip() for line in ask(f"show {kind} {name}").splitlines() if line.startswith("0x"))
            if loaded != _entries(Path(name)):
                found.append(f"HAProxy runs with another {name} than is written")
    return found


def _entries(table: Path) -> list[str]:
    """Return the entries of a table's file in order of the alphabet; none where it is gone."""
    lines = table.read_text().splitlines() if table.exists() else []
    return sorted(re.sub(r"\s+", " ", line.strip(), count=1) for line in lines if line.strip() and not line.lstrip().startswith("#"))


def await_loaded(ask: Ask, configuration: Path, digest: str | None, timeout: float, pause: float = 0.5) -> list[str]:
    """Compare as `differences` does, again and again until there are none or the time is over: a reload takes a moment."""
    end = time.monotonic() + timeout
    while (found := differences(ask, configuration, digest)) and time.monotonic() < end:
        time.sleep(pause)
    return found
