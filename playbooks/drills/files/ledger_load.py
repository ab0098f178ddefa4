# SPDX-License-Identifier: GPL-3.0-or-later
"""Write numbers into a service, one after another, and keep a ledger of those that it has acknowledged; then count what it has kept.

``ledger_load.py --service redis --seconds 60`` prints a JSON object: how many writes were tried and acknowledged, which acknowledged ones are lost,
how often one is there twice, and the longest time without an acknowledgement, which is how long the service was gone for its clients. Each write has
a time-out of its own, and a client that fails once connects anew: what is measured is the service, not the patience of a library.

Clients come from the distribution: python3-psycopg2, python3-redis, python3-pika, python3-boto3.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

GOODBYE_S = 0.2
RETRY_PAUSE_S = 0.1


class Service(Protocol):
    """A service that keeps numbers."""

    def connect(self) -> None:
        """Open a new session, in place of any before; raise if that fails."""

    def prepare(self) -> None:
        """Make what the numbers are written into."""

    def write(self, number: int) -> None:
        """Write a number and return once it is acknowledged; raise otherwise."""

    def read(self, kept: Counter[int]) -> None:
        """Count every number that is there. May fail half-way and be called again: what a queue has given counts, and is not there any more."""

    def remove(self) -> None:
        """Take away what ``prepare`` has made."""


@dataclass
class Settings:
    """How to reach a service: address and port, user and password, database or virtual host, and seconds after which an operation has failed."""

    host: str
    port: int
    user: str
    password_file: Path
    database: str
    timeout: float
    run: str

    @property
    def password(self) -> str:
        """The password as it is now: it may be replaced while sessions are open."""
        return self.password_file.read_text(encoding="utf-8").strip()


class Postgresql:
    """Rows of a table."""

    def __init__(self, settings: Settings) -> None:
        """Remember how to reach it."""
        self.settings = settings
        self.table = f"drill_{settings.run}"
        self.session: Any = None

    def connect(self) -> None:
        """Open a new session."""
        import psycopg2

        with suppress(Exception):
            self.session.close()
        s = self.settings
        milliseconds = int(s.timeout * 1000)
        self.session = psycopg2.connect(
            host=s.host,
            port=s.port,
            user=s.user,
            password=s.password,
            dbname=s.database,
            connect_timeout=max(2, int(s.timeout)),
            tcp_user_timeout=milliseconds,
            options=f"-c statement_timeout={milliseconds}",
        )
        self.session.autocommit = True

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement and give its rows."""
        with self.session.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    def prepare(self) -> None:
        """Make the table."""
        self.execute(f"create table {self.table} (number bigint not null)")

    def write(self, number: int) -> None:
        """Insert a row."""
        self.execute(f"insert into {self.table} values (%s)", number)  # noqa: S608 (a name of our own making, here and below)

    def read(self, kept: Counter[int]) -> None:
        """Read all rows."""
        kept.update(int(row[0]) for row in self.execute(f"select number from {self.table}"))  # noqa: S608

    def remove(self) -> None:
        """Drop the table."""
        self.execute(f"drop table {self.table}")


class Redis:
    """Members of a sorted set."""

    def __init__(self, settings: Settings) -> None:
        """Remember how to reach it."""
        self.settings = settings
        self.key = f"drill:{settings.run}"
        self.session: Any = None

    def connect(self) -> None:
        """Open a new session."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        with suppress(Exception):
            self.session.close()
        s = self.settings
        self.session = redis.Redis(
            host=s.host,
            port=s.port,
            username=s.user,
            password=s.password,
            socket_timeout=s.timeout,
            socket_connect_timeout=s.timeout,
            # The library's own retries wait for up to ten seconds each: it would be measured instead of the service.
            retry=Retry(NoBackoff(), 0),
        )
        self.session.ping()

    def prepare(self) -> None:
        """Need nothing."""

    def write(self, number: int) -> None:
        """Add a member."""
        self.session.zadd(self.key, {str(number): number})

    def read(self, kept: Counter[int]) -> None:
        """Read all members."""
        kept.update([int(member) for member in self.session.zrange(self.key, 0, -1)])

    def remove(self) -> None:
        """Delete the set."""
        self.session.delete(self.key)


class Rabbitmq:
    """Messages of a quorum queue, each confirmed by a majority."""

    def __init__(self, settings: Settings) -> None:
        """Remember how to reach it."""
        self.settings = settings
        self.queue = f"drill-{settings.run}"
        self.session: Any = None
        self.channel: Any = None

    def connect(self) -> None:
        """Open a new session."""
        import pika

        s = self.settings
        # A server that has gone would be waited for to say goodbye.
        with suppress(Exception), within(GOODBYE_S):
            self.session.close()
        parameters = pika.ConnectionParameters(
            host=s.host,
            port=s.port,
            virtual_host=s.database,
            credentials=pika.PlainCredentials(s.user, s.password),
            heartbeat=max(2, int(s.timeout)),
            socket_timeout=s.timeout,
            stack_timeout=2 * s.timeout,
            blocked_connection_timeout=s.timeout,
        )
        # A node that waits for another may take a session and then not answer on it.
        with within(2 * s.timeout):
            self.session = pika.BlockingConnection(parameters)
            self.channel = self.session.channel()
            self.channel.confirm_delivery()

    def prepare(self) -> None:
        """Declare the queue."""
        self.channel.queue_declare(self.queue, durable=True, arguments={"x-queue-type": "quorum"})

    def write(self, number: int) -> None:
        """Publish a message and wait for its confirmation."""
        with within(self.settings.timeout):
            self.channel.basic_publish("", self.queue, str(number).encode(), mandatory=True)

    def read(self, kept: Counter[int]) -> None:
        """Consume all messages."""
        while True:
            method, dummy, body = self.channel.basic_get(self.queue)
            if method is None:
                return
            kept[int(body)] += 1
            self.channel.basic_ack(method.delivery_tag)

    def remove(self) -> None:
        """Delete the queue."""
        self.channel.queue_delete(self.queue)


class ObjectStorage:
    """S3: an object a number. What was tried is asked for by its name: a listing may be behind."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings."""
        self.settings = settings
        self.session: Any = None
        self.tried: list[int] = []

    def connect(self) -> None:
        """Make a new client, which tries nothing twice."""
        import boto3
        from botocore.config import Config

        s = self.settings
        config = Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=s.timeout,
            read_timeout=s.timeout,
            parameter_validation=False,
        )
        self.session = boto3.client(
            "s3",
            endpoint_url=f"http://{s.host}:{s.port}",
            region_name="us-east-1",
            aws_access_key_id=s.user,
            aws_secret_access_key=s.password,
            config=config,
        )

    def name(self, number: int) -> str:
        """Name the object of a number."""
        return f"drill-{self.settings.run}/{number}"

    def prepare(self) -> None:
        """Look whether the bucket is there."""
        self.session.head_bucket(Bucket=self.settings.database)

    def write(self, number: int) -> None:
        """Put an object."""
        self.tried.append(number)
        with within(2 * self.settings.timeout):
            self.session.put_object(Bucket=self.settings.database, Key=self.name(number), Body=str(number).encode())

    def read(self, kept: Counter[int]) -> None:
        """Get all objects that were tried; those that are not there are told apart from those that cannot be had."""

        def get(number: int) -> int | None:
            try:
                return int(self.session.get_object(Bucket=self.settings.database, Key=self.name(number))["Body"].read())
            except self.session.exceptions.NoSuchKey:
                return None

        for number, found in zip(self.tried, self._each(get), strict=True):
            if found is None:
                kept.pop(number, None)
            else:
                kept[found] = 1

    def remove(self) -> None:
        """Delete the objects."""
        self._each(lambda number: self.session.delete_object(Bucket=self.settings.database, Key=self.name(number)))

    def _each(self, do: Callable[[int], Any]) -> list[Any]:
        """Do something with each number that was tried, several at a time: one after another, hundreds take minutes."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(do, self.tried))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End what takes longer than so many seconds: the library waits for answers without a limit of its own."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


SERVICES: dict[str, tuple[Callable[[Settings], Service], int]] = {
    "postgresql": (Postgresql, 5432),
    "redis": (Redis, 6379),
    "rabbitmq": (Rabbitmq, 5672),
    "object_storage": (ObjectStorage, 9000),
}


@dataclass
class Report:
    """What came of it. Times are in seconds; ``gap_began`` is Unix time."""

    service: str
    seconds: float
    attempted: int = 0
    acknowledged: int = 0
    failed: int = 0
    lost: int = 0
    repeated: int = 0
    longest_gap_s: float = 0.0
    gap_began: float = 0.0
    lost_numbers: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    reads: dict[str, Any] | None = None


def timed_out(*dummy: object) -> None:
    """End an operation that has taken too long."""
    raise TimeoutError("no confirmation in time")


def load(service: Service, report: Report, interval: float, until: Callable[[], bool]) -> list[int]:
    """Write numbers until the time is over; return those that were acknowledged."""
    acknowledged: list[int] = []
    errors: Counter[str] = Counter()
    last, connected = time.time(), True
    while not until():
        number = report.attempted
        report.attempted += 1
        try:
            if not connected:
                service.connect()
                connected = True
            service.write(number)
        except Exception as error:  # whatever a client library raises means the same here: not acknowledged
            connected = False
            errors[f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:120]] += 1
            time.sleep(RETRY_PAUSE_S)
            continue
        now = time.time()
        acknowledged.append(number)
        if now - last > report.longest_gap_s:
            report.longest_gap_s, report.gap_began = now - last, last
        last = now
        time.sleep(interval)
    if time.time() - last > report.longest_gap_s:
        report.longest_gap_s, report.gap_began = time.time() - last, last
    report.acknowledged, report.failed, report.errors = len(acknowledged), report.attempted - len(acknowledged), dict(errors)
    return acknowledged


class Readers:
    """Reads beside the writes, in sessions of a few statements each, as short-lived clients do."""

    SESSION = 10
    # As many sessions in a row have seen what was made before reading begins: the balancer deals them out in turn, so all replicas have it.
    SEEN = 12

    def __init__(self, make: Callable[[Settings], Service], settings: Settings, interval: float) -> None:
        """Remember how to reach the service, and begin."""
        self.service, self.interval = make(settings), interval
        self.count: Counter[str] = Counter(read=0, failed=0)
        self.errors: Counter[str] = Counter()
        self.longest = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        # What has just been made comes to where it is read a moment later, to each replica in its own time.
        patiently(self._seen_everywhere, self.service.connect, 30.0)
        last = time.time()
        while not self.over.is_set():
            try:
                self.service.connect()
                for dummy in range(self.SESSION):
                    self.service.read(Counter())
                    self.count["read"] += 1
                    self.longest, last = max(self.longest, time.time() - last), time.time()
                    time.sleep(self.interval)
            except Exception as error:  # as in load()
                self.count["failed"] += 1
                self.errors[f"{type(error).__name__}: {str(error).strip()}"[:160]] += 1
                time.sleep(RETRY_PAUSE_S)

    def _seen_everywhere(self) -> None:
        for dummy in range(self.SEEN):
            self.service.connect()
            self.service.read(Counter())

    def end(self) -> dict[str, Any]:
        """Stop, and say what came of it."""
        self.over.set()
        self.thread.join(10)
        return {**self.count, "longest_gap_s": self.longest, "errors": dict(self.errors)}


def patiently(operation: Callable[[], Any], connect: Callable[[], None], seconds: float) -> Any:  # noqa: ANN401
    """Do something that must succeed in the end, over a new session at each attempt."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect()
            return operation()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_PAUSE_S * 5)


def main() -> int:
    """Load, count, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", required=True, choices=SERVICES)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="the service's usual one, where service_proxy offers it, if not given")
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-file", type=Path, required=True, help="file that holds the password alone")
    parser.add_argument("--database", default="", help="database, virtual host, or bucket")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to write; a file named by --stop ends it earlier")
    parser.add_argument("--interval", type=float, default=0.02, help="seconds between two writes")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds after which a write has failed")
    parser.add_argument("--recovery", type=float, default=120.0, help="seconds to wait for the service when its numbers are counted")
    parser.add_argument("--read-port", type=int, help="read at this port, too, all the while")
    parser.add_argument("--started", type=Path, help="file to create when the first number has been acknowledged")
    parser.add_argument("--stop", type=Path, help="file whose appearance ends the writing")
    arguments = parser.parse_args()
    make, port = SERVICES[arguments.service]
    settings = Settings(
        host=arguments.host,
        port=arguments.port or port,
        user=arguments.user,
        password_file=arguments.password_file,
        database=arguments.database,
        timeout=arguments.timeout,
        run=uuid.uuid4().hex[:12],
    )
    signal.signal(signal.SIGALRM, timed_out)
    service = make(settings)
    report = Report(service=arguments.service, seconds=arguments.seconds)
    patiently(service.prepare, service.connect, arguments.recovery)
    readers = Readers(make, replace(settings, port=arguments.read_port), arguments.interval) if arguments.read_port else None
    end = time.monotonic() + arguments.seconds

    def over() -> bool:
        if arguments.started and report.attempted == 1:
            arguments.started.touch()
        return time.monotonic() > end or bool(arguments.stop and arguments.stop.exists())

    acknowledged = load(service, report, arguments.interval, over)
    if readers:
        report.reads = readers.end()
    kept: Counter[int] = Counter()
    patiently(lambda: service.read(kept), service.connect, arguments.recovery)
    lost = sorted(set(acknowledged) - set(kept))
    report.lost, report.lost_numbers = len(lost), lost[:20]
    report.repeated = sum(count - 1 for count in kept.values())
    with suppress(Exception):
        service.remove()
    print(json.dumps(asdict(report)))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
