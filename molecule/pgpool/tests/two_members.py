"""The cluster under test, as the client's host sees it."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PKI = "/etc/sovereign/pki"
MEMBERS = {"db1": "198.18.51.11", "db2": "198.18.51.12"}


@dataclass(frozen=True)
class Site:
    """Asks PostgreSQL and Patroni from inside the hosts."""

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

    def bench(self, port: int, options: str, session: str = "") -> str:
        """Run pgbench on the client's host, and give what it prints; ``session`` is what its sessions set."""
        command = f"timeout 120 pgbench -h 127.0.0.1 -p {port} -U app {options} app 2>&1"
        return str(
            self.on("client").run_expect([0], f"PGPASSWORD={shlex.quote(self.password('app'))} PGOPTIONS={shlex.quote(session)} {command}").stdout
        )

    def inside(self, host: str, sql: str, database: str = "postgres") -> str:
        """Ask a member as its administrator does, through the socket."""
        command = f"setpriv --reuid=postgres --regid=postgres --clear-groups psql --no-psqlrc -qAtd {database} -c {shlex.quote(sql)}"
        return str(self.on(host).check_output(command)).strip()

    def roles(self) -> dict[str, str]:
        """Role of each member, as whoever answers first sees it; members that are not well have none."""
        for address in MEMBERS.values():
            answer = self.on("client").run(f"curl -sf --noproxy '*' --max-time 3 --cacert {PKI}/ca.crt https://{address}:8008/cluster")
            if answer.rc == 0:
                members = json.loads(answer.stdout)["members"]
                return {member["name"]: member["role"] for member in members if member["state"] in ("running", "streaming")}
        return {}

    def leader(self) -> str:
        """Name of the member that leads now."""
        return next(name for name, role in self.roles().items() if role == "leader")

    def follower(self) -> str:
        """Name of the member that follows."""
        return next(name for name in MEMBERS if name != self.leader())

    def wait_until_whole(self) -> None:
        """Wait until one leads and the other is its synchronous standby, and the proxy knows."""
        wait_until(lambda: sorted(self.roles().values()) == ["leader", "sync_standby"], 60)
        reading = MEMBERS[self.follower()]
        for port in (5433, 6433):
            wait_until(lambda port=port: self.psql(port, "SELECT inet_server_addr()").stdout.strip() == reading, 30)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds, and fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


def docker(*words: str) -> None:
    """Do something to a container from outside, as a power switch would."""
    subprocess.run(["docker", *words], check=True, capture_output=True, timeout=60)
