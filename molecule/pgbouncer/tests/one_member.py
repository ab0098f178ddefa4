"""PgBouncer and PostgreSQL, as the client's host sees them."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PKI = "/etc/sovereign/pki"
ADDRESS = "198.18.62.11"
CLIENT = "mol-pgbouncer-client"


@dataclass(frozen=True)
class Site:
    """Asks them from inside the hosts."""

    on: Callable[[str], Any]
    secrets: Path

    def password(self, user: str) -> str:
        """Password of a role, as its owner was given it."""
        return (self.secrets / user).read_text().strip()

    def psql(self, port: int, sql: str, user: str = "app", *, database: str = "app", password: str | None = None, more: str = "") -> Any:
        """Run a statement on the client's host, through what listens there."""
        secret = shlex.quote(self.password(user) if password is None else password)
        dsn = f"host=127.0.0.1 port={port} user={user} dbname={database} connect_timeout=10 {more}"
        return self.on("client").run(f"PGPASSWORD={secret} timeout 60 psql --no-psqlrc -qAtd {shlex.quote(dsn)} -c {shlex.quote(sql)}")

    @contextmanager
    def session(self, port: int) -> Iterator[Callable[[str], str]]:
        """Keep a session open on the client's host; what is given runs a line of SQL in it, and gives the next line of answers."""
        dsn = f"host=127.0.0.1 port={port} user=app dbname=app"
        psql = ["timeout", "300", "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "-qAtd", dsn]
        command = ["docker", "exec", "--interactive", "--env", "PGPASSWORD", CLIENT, *psql]
        environment = {**os.environ, "PGPASSWORD": self.password("app")}
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:

            def ask(sql: str) -> str:
                assert client.stdin
                assert client.stdout
                client.stdin.write(f"{sql}\n")
                client.stdin.flush()
                return client.stdout.readline().strip()

            yield ask

    def bench(self, port: int, options: str) -> str:
        """Run pgbench on the client's host, and give what it prints."""
        command = f"PGPASSWORD={shlex.quote(self.password('app'))} timeout 120 pgbench -h 127.0.0.1 -p {port} -U app {options} app 2>&1"
        return str(self.on("client").run_expect([0], command).stdout)

    def inside(self, sql: str) -> str:
        """Ask PostgreSQL as its administrator does, through the socket."""
        command = f"setpriv --reuid=postgres --regid=postgres --clear-groups psql --no-psqlrc -qAtc {shlex.quote(sql)}"
        return str(self.on("db").check_output(command)).strip()

    def process(self) -> str:
        """PgBouncer's main process."""
        return str(self.on("db").check_output("systemctl show --property=MainPID --value pgbouncer"))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds, and fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
