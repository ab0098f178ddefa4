# Ansible managed
"""Runs a unit on one host of a site: for as long as this host holds the unit's lease in PostgreSQL, and not a second longer.

The lease is a row with a holder and an end, by the server's clock. The holder asks for more time again and again; it counts its own time, on a
clock that nobody sets, from before it asked, so that it always believes the end to be earlier than the server does. Where no answer comes it kills
the unit shortly before the end: a unit that is asked to stop takes its time, and what a fail-over of PostgreSQL takes must fit in before. Whoever
else asks gets the lease only after the end.

systemd does what this program cannot do when it is dead or hangs: the unit is bound to this one's (BindsTo=), whose watchdog kills it.
"""

from __future__ import annotations

import argparse
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

INTERVAL = 5.0
"""Seconds between two questions."""
PATIENCE = 4.0
"""Seconds that an answer may take."""
STOP = 15.0
"""Seconds that the unit may take to stop, being killed included; its own time-out is shorter."""
KILL = 5.0
"""Seconds that the unit may take to die when it is killed."""
HANGS = 60.0
"""Seconds without an answer after which a unit that runs is taken for dead."""
BACK_OFF = 60.0
"""Seconds for which a host that could not run the unit leaves it to others."""

CREATE = (
    "CREATE SCHEMA IF NOT EXISTS sovereign",
    "CREATE TABLE IF NOT EXISTS sovereign.lease (name text PRIMARY KEY, holder text NOT NULL, ends timestamptz NOT NULL)",
)
# The end is computed before the row is waited for, so that it is rather too early than too late.
RENEW = """
INSERT INTO sovereign.lease AS l (name, holder, ends) VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, ends = EXCLUDED.ends WHERE l.holder = EXCLUDED.holder OR l.ends < clock_timestamp()
RETURNING l.holder
"""
RELEASE = "UPDATE sovereign.lease SET ends = clock_timestamp() WHERE name = %s AND holder = %s"


class UnknownError(Exception):
    """Nobody can say who holds the lease."""


class Store(Protocol):
    """Where leases are kept."""

    def renew(self, seconds: float) -> bool:
        """Ask for the lease, or for more time; tell whether this host holds it now. Raises ``UnknownError``."""

    def release(self) -> None:
        """Give the lease back. Raises ``UnknownError``."""

    def moved(self) -> bool:
        """Tell whether leases are to be kept in another database than the one that is asked."""

    def follow(self) -> None:
        """Ask that other database from now on."""


class Unit(Protocol):
    """What is run."""

    def start(self) -> None:
        """Start it, without waiting."""

    def stop(self) -> None:
        """Stop it, and wait until it is dead."""

    def kill(self) -> None:
        """Stop it without asking, and wait until it is dead."""

    def state(self) -> str:
        """Give systemd's word for its state."""


@dataclass
class Supervisor:
    """Brings lease and unit together.

    Attributes:
        store: Where the lease is kept.
        unit: What is run.
        seconds: How long a lease lasts.
        patience: Seconds that the unit may take, in all its attempts, until it serves.
        answers: Asks a unit that runs whether it serves.
        clock: Seconds of a clock that only goes forward.
        say: Writes a line into the journal.
    """

    store: Store
    unit: Unit
    seconds: float
    patience: float = 330.0
    answers: Callable[[], bool] = lambda: True
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = print
    until: float | None = field(default=None, init=False)
    """When the unit has to be killed; nothing where this host does not hold the lease."""
    rests: float = field(default=0.0, init=False)
    """When this host may ask again."""
    served: float = field(default=0.0, init=False)
    """When the unit was seen to serve last; at first, when it was started."""
    silent_since: float | None = field(default=None, init=False)
    """When the former database failed to answer first, while this host waits to leave it."""

    def tick(self) -> None:
        """Ask once, and act on the answer."""
        asked = self.clock()
        if asked < self.rests:
            return
        if self.store.moved():
            self._leave()
            return
        try:
            held: bool | None = self.store.renew(self.seconds)
        except UnknownError as error:
            self.say(f"nobody says who holds the lease: {error}")
            held = None
        if held:
            if self.until is None:
                self.say(f"this host holds the lease, for {self.seconds:.0f} s at a time")
                self.unit.start()
                self.served = self.clock()
            self.until = asked + self.seconds - KILL - PATIENCE - INTERVAL
            self._keep_running()
        elif held is False:
            self.until = None
            # Also what somebody has started by hand.
            if self.unit.state() not in ("inactive", "failed"):
                self._kill("another host holds the lease")
        elif held is None and self.until is not None and self.clock() >= self.until:
            self._kill("the lease ends, and nobody gives more time")

    def _leave(self) -> None:
        """Change to the other database once no host can run the unit by the former one's lease.

        That is when this host holds the former lease, with its own unit stopped: other hosts that still ask there are refused until the lease
        ends, and the same play changes their file before that. Where the former database is silent for a whole lease, its holder has killed the
        unit by then.
        """
        if self.until is not None:
            self.say("leases are kept in another database now")
            self._end(self.until)
        try:
            free = self.store.renew(self.seconds)
            self.silent_since = None
        except UnknownError as error:
            self.say(f"the former database does not say who holds the lease: {error}")
            now = self.clock()
            self.silent_since = now if self.silent_since is None else self.silent_since
            free = now - self.silent_since >= self.seconds + INTERVAL
        if free:
            self.store.follow()
            self.silent_since = None

    def _kill(self, why: str) -> None:
        self.say(why)
        self.unit.kill()
        self.until = None

    def _keep_running(self) -> None:
        """Start what somebody has stopped, kill what hangs; leave it to others where it does not run on this host, whatever is tried."""
        state = self.unit.state()
        if state == "active" and self.answers():
            self.served = self.clock()
            return
        silent = self.clock() - self.served
        if state == "failed" or silent >= self.patience:
            self.say(f"the unit does not run on this host; others may have it for {BACK_OFF:.0f} s")
            self.close()
            self.rests = self.clock() + BACK_OFF
        elif state == "inactive":
            self.unit.start()
        elif state == "active" and silent >= HANGS:
            self.say(f"the unit has not answered for {silent:.0f} s, and begins again")
            self.unit.kill()
            self.unit.start()

    def _release(self) -> None:
        try:
            self.store.release()
        except UnknownError as error:
            self.say(f"the lease could not be given back, and ends by itself: {error}")

    def close(self) -> None:
        """Stop the unit and give the lease back, so that another host has it at once."""
        if self.until is None:
            self.unit.stop()
            return
        self._end(self.until)
        self._release()

    def _end(self, until: float) -> None:
        """Stop the unit, by force where its lease would end before a stop has."""
        in_time = self.clock() + STOP <= until + KILL + PATIENCE + INTERVAL
        (self.unit.stop if in_time else self.unit.kill)()
        self.until = None


class Postgresql:
    """Leases in PostgreSQL. Every question has an end: what has no answer by then counts as none, and its connection is closed.

    The server's own time-outs would not do: a commit that waits for its standby and is cancelled is reported as done.
    """

    def __init__(self, conninfo: Path, name: str, holder: str, memory: Path) -> None:
        """Connect at the first question, by what the file then says: a password may have been replaced since.

        Whom this host asked last is remembered: one that is started again while leases move must still leave the former database first.
        """
        import psycopg2  # the distribution's, on the host
        from psycopg2 import extensions

        self.psycopg2, self.extensions = psycopg2, extensions
        self.conninfo, self.name, self.holder = conninfo, name, holder
        self.memory = memory
        self.connection: Any = None
        self.used = self._remembered()
        self.deadline = 0.0

    def renew(self, seconds: float) -> bool:
        """Ask for the lease, or for more time."""
        return self._ask(RENEW, (self.name, self.holder, seconds)) == [(self.holder,)]

    def release(self) -> None:
        """Give the lease back."""
        self._ask(RELEASE, (self.name, self.holder))

    def moved(self) -> bool:
        """Tell whether the file names another server or database than the one that is asked; a new password alone is taken up."""
        try:
            given = self.conninfo.read_text().strip()
            if self.used and self._place(given) != self._place(self.used):
                return True
        except (self.psycopg2.Error, OSError):
            return False
        if given != self.used:
            self._remember(given)
        self.used = given
        return False

    def follow(self) -> None:
        """Ask by what the file says from now on."""
        self._close()
        self.used = ""

    def _remembered(self) -> str:
        try:
            said = self.memory.read_text().strip()
            self.extensions.parse_dsn(said)
        except (self.psycopg2.Error, OSError, UnicodeDecodeError):
            return ""  # the first start here, or cut while it was written
        return said

    def _remember(self, conninfo: str) -> None:
        beside = self.memory.with_suffix(".new")
        try:
            beside.touch(mode=0o600)
            beside.write_text(f"{conninfo}\n")
            beside.replace(self.memory)
        except OSError as error:
            print(f"{self.memory} could not be written, and a start while leases move may forget the former database: {error}", flush=True)

    def _place(self, conninfo: str) -> dict[str, str]:
        words: dict[str, str] = self.extensions.parse_dsn(conninfo)
        return {name: words[name] for name in ("host", "hostaddr", "port", "dbname") if name in words}

    def _ask(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        self.deadline = time.monotonic() + PATIENCE
        self.extensions.set_wait_callback(self._wait)
        try:
            return self._execute(statement, values)
        except (self.psycopg2.errors.UndefinedTable, self.psycopg2.errors.InvalidSchemaName):
            pass
        except (self.psycopg2.Error, OSError) as error:
            self._close()
            raise UnknownError(str(error).strip()) from error
        try:
            for create in CREATE:
                self._execute(create, ())
            return self._execute(statement, values)
        except (self.psycopg2.Error, OSError) as error:
            self._close()
            raise UnknownError(str(error).strip()) from error

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        if self.connection is None or self.connection.closed:
            self.connection = self.psycopg2.connect(self.used or self.conninfo.read_text().strip())
            self.connection.autocommit = True
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def _wait(self, connection: Any) -> None:  # noqa: ANN401 - psycopg2 is untyped
        """Wait for the server, but not for ever."""
        while (state := connection.poll()) != self.extensions.POLL_OK:
            left = self.deadline - time.monotonic()
            reading = [connection] if state == self.extensions.POLL_READ else []
            writing = [connection] if state == self.extensions.POLL_WRITE else []
            if left <= 0 or not any(select.select(reading, writing, [], left)):
                msg = f"no answer in {PATIENCE:.0f} s"
                raise self.psycopg2.OperationalError(msg)

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@dataclass(frozen=True)
class Service:
    """A unit of systemd."""

    name: str

    def start(self) -> None:
        """Start it, without waiting."""
        subprocess.run(["systemctl", "reset-failed", self.name], check=False, capture_output=True)
        subprocess.run(["systemctl", "start", "--no-block", self.name], check=False)

    def stop(self) -> None:
        """Stop it, and wait until it is dead."""
        subprocess.run(["systemctl", "stop", self.name], check=False)

    def kill(self) -> None:
        """Stop it without asking, and wait until it is dead."""
        # The stop comes first, so that systemd does not start again what has been killed.
        subprocess.run(["systemctl", "stop", "--no-block", self.name], check=False)
        subprocess.run(["systemctl", "kill", "--signal=SIGKILL", self.name], check=False, capture_output=True)
        self.stop()

    def state(self) -> str:
        """Give systemd's word for its state."""
        return subprocess.run(["systemctl", "is-active", self.name], capture_output=True, text=True, check=False).stdout.strip()


def answers(url: str) -> bool:
    """Ask for a page; tell whether it came. What is not asked is taken at systemd's word."""
    try:
        return not url or 200 <= urllib.request.urlopen(url, timeout=PATIENCE).status < 300  # noqa: S310 - its own host's
    except (OSError, http.client.HTTPException):
        return False


def notify(message: str) -> None:
    """Tell systemd something, if it listens."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def main() -> int:
    """Supervise until told to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--conninfo", type=Path, required=True, help="file with libpq's connection string")
    parser.add_argument("--memory", type=Path, required=True, help="file that keeps the connection string by which was asked last")
    parser.add_argument("--lease", required=True, help="name of the lease")
    parser.add_argument("--holder", required=True, help="name of this host")
    parser.add_argument("--seconds", type=float, required=True, help="how long a lease lasts")
    parser.add_argument("--unit", required=True, help="unit to run")
    parser.add_argument("--patience", type=float, required=True, help="seconds that the unit may take until it serves")
    parser.add_argument(
        "--health", action="append", default=[], metavar="LEASE=URL", help="page that the unit of a lease answers with when it serves"
    )
    given = parser.parse_args()
    health = dict(pair.split("=", 1) for pair in given.health).get(given.lease, "")
    unit = Service(given.unit)
    supervisor = Supervisor(
        Postgresql(given.conninfo, given.lease, given.holder, given.memory),
        unit,
        given.seconds,
        given.patience,
        lambda: answers(health),
        say=lambda line: print(line, flush=True),
    )
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, dummy: ended.append(number))
    # What an earlier supervisor may have left behind has no lease.
    unit.stop()
    notify("READY=1")
    while not ended:
        begun = time.monotonic()
        supervisor.tick()
        notify(f"WATCHDOG=1\nSTATUS={'holds the lease' if supervisor.until is not None else 'waits for the lease'}")
        while not ended and (left := begun + INTERVAL - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
    supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
