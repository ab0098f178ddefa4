# Ansible managed
"""Restarts workers that have lost their queues and do not know it; and waits for one that starts until it has them.

Celery's worker under gevent can lose the connection that it consumes by while it acknowledges a task: kombu then opens another one in silence, on
which nothing is consumed, and the worker waits for ever, alive by all that it says of itself. So RabbitMQ is asked. Each worker consumes a queue of
its own, too (Celery's ``worker_direct``), by the same connection as its others: nobody there means that nobody is at the others. A restart is warm:
tasks that it has are ended. Where the broker does not answer nothing is known, and nothing is done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

INTERVAL = 5.0
"""Seconds between two looks."""
PAUSE = 1.0
"""The same, while one that starts is waited for."""
PATIENCE = 5.0
"""Seconds that an answer of the broker may take."""
AWAY = 3 * INTERVAL
"""Seconds between two answers from which on the broker was away."""
DEAF, DEAF_AT_LATEST = 20.0, 45.0
"""Seconds without a consumer after which a worker that runs is restarted: so many, and twice as many as the broker was away for. One that reconnects
tries after 2, 4, 6 and up to 30 s (kombu's ``ensure_connection``), so that the next time lies the further off the longer it has tried."""
QUEUE = "{}.dq2"
"""Celery's name of the queue of a worker's own (``celery.utils.nodenames.WORKER_DIRECT_QUEUE_FORMAT``)."""


class UnknownError(Exception):
    """The broker does not answer."""


@dataclass
class Watch:
    """Who has been without a consumer since when.

    Attributes:
        since: When a worker was first seen without one, by its unit.
        answered: When the broker answered last, if it has.
        away: Seconds for which the broker was away when it was last.
    """

    since: dict[str, float] = field(default_factory=dict)
    answered: float | None = None
    away: float = 0.0

    @property
    def limit(self) -> float:
        """Seconds without a consumer that are too many."""
        return min(DEAF + 2 * self.away, DEAF_AT_LATEST)

    def unknown(self) -> None:
        """Take a look at which the broker did not answer: of nobody is it known since when."""
        self.since = {}

    def deaf(self, consumers: Mapping[str, int], running: Iterable[str], now: float) -> list[str]:
        """Take a look's result, and give the units that are to be restarted; they get their time anew.

        Args:
            consumers: Consumers of each worker's own queue, by the worker's unit.
            running: Units that systemd calls active.
            now: Seconds of a clock that only goes forward.
        """
        if self.answered is None or now - self.answered >= AWAY:
            # Of what was before the first look nothing is known.
            self.away = DEAF_AT_LATEST if self.answered is None else now - self.answered
        self.answered = now
        silent = {unit for unit in running if not consumers.get(unit)}
        self.since = {unit: self.since.get(unit, now) for unit in silent}
        if not silent:
            self.away = 0.0
        found = sorted(unit for unit, begun in self.since.items() if now - begun >= self.limit)
        for unit in found:
            del self.since[unit]
        return found


class Broker:
    """RabbitMQ, as the workers' environments have it."""

    def __init__(self, environment: Path) -> None:
        """Connect at the first question, by what the file then says: a password may have been replaced since."""
        self.environment = environment
        self.connection: Any = None

    def consumers(self, worker: str) -> int:
        """Count the consumers of a worker's own queue.

        Raises:
            UnknownError: nobody answers.
        """
        import amqp  # the distribution's, on the host

        try:
            if self.connection is None:
                self.connection = amqp.Connection(**endpoint(self.environment.read_text()), read_timeout=PATIENCE, write_timeout=PATIENCE)
                self.connection.connect()
            channel = self.connection.channel()
            try:
                return int(channel.queue_declare(QUEUE.format(worker), passive=True).consumer_count)
            except amqp.NotFound:
                return 0
            finally:
                if channel.is_open:
                    channel.close()
        except (amqp.AMQPError, OSError) as error:
            self.close()
            raise UnknownError(str(error)) from error

    def close(self) -> None:
        """Drop the connection, and wait for nobody."""
        if self.connection is not None:
            self.connection.collect()
            self.connection = None


def endpoint(environment: str) -> dict[str, Any]:
    """Read how the broker is reached out of a worker's environment."""
    (url,) = [line.partition("=")[2] for line in environment.splitlines() if line.startswith("CELERY_BROKER_URL=")]
    parts = urlsplit(url)
    return {
        "host": f"{parts.hostname}:{parts.port or 5672}",
        "userid": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "virtual_host": unquote(parts.path[1:]),
        "connect_timeout": PATIENCE,
    }


def active(units: Iterable[str]) -> list[str]:
    """Give those of the units that systemd calls active."""
    asked = list(units)
    states = subprocess.run(["systemctl", "is-active", *asked], capture_output=True, text=True, check=False).stdout.split()
    # It says nothing at all while the host goes down.
    return [unit for unit, state in zip(asked, states, strict=False) if state == "active"]


def ready(broker: Broker, workers: Iterable[str], seconds: float, process: Path) -> bool:
    """Wait until workers have their queues.

    Args:
        broker: Who knows.
        workers: Their names there.
        seconds: How long.
        process: Directory of the process that is waited for, in /proc: when it has ended there is nothing to wait for.

    Returns:
        Whether they have.
    """
    awaited, deadline, unknown = list(workers), time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        if not process.exists():
            print("it has ended before it consumed", file=sys.stderr)
            return False
        try:
            awaited, unknown = [worker for worker in awaited if not broker.consumers(worker)], ""
        except UnknownError as error:
            unknown = f": the broker does not answer: {error}"
        if not awaited:
            return True
        time.sleep(PAUSE)
    print(f"{', '.join(awaited)} consumed nothing for {seconds:.0f} s{unknown}", file=sys.stderr)
    return False


def main() -> int:
    """Watch, or wait."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environment", type=Path, required=True, help="environment of any of the workers")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="only wait until all of the workers have their queues: for ExecStartPost=")
    parser.add_argument("workers", nargs="*", metavar="UNIT=WORKER", help="units, and the names by which the broker knows their workers")
    given = parser.parse_args()
    workers = dict(pair.split("=", 1) for pair in given.workers)
    broker, watch = Broker(given.environment), Watch()
    if given.wait is not None:
        return 0 if ready(broker, workers.values(), given.wait, Path("/proc") / os.environ.get("MAINPID", "self")) else 1
    while True:
        try:
            counted = {unit: broker.consumers(worker) for unit, worker in workers.items()}
        except UnknownError as error:
            print(f"the broker does not answer: {error}", flush=True)
            watch.unknown()
        else:
            for unit in watch.deaf(counted, active(workers), time.monotonic()):
                print(f"{unit} has consumed nothing for {watch.limit:.0f} s and does not know it: it is restarted", flush=True)
                subprocess.run(["systemctl", "restart", "--no-block", unit], check=False)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    sys.exit(main())
