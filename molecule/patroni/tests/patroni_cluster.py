"""The cluster, as its clients and its members see it, and what can be done to it from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
CLUSTER = "mol-patroni"
ADDRESS = {"db1": "198.18.41.11", "db2": "198.18.41.12", "db3": "198.18.41.13"}
PKI = "/etc/sovereign/pki"

# Runs inside the client: writes numbers, one a transaction, to whoever takes writes, until it is told to stop.
# Notes which were acknowledged, and when.
WRITER = """
import json, os, sys, time
import psycopg2
job = json.load(sys.stdin)
connection, acknowledged, doubtful, number = None, [], [], 0
begun = time.monotonic()
while not os.path.exists(job["stop"]) and time.monotonic() - begun < job["limit"]:
    number += 1
    sent = False
    try:
        if connection is None:
            connection = psycopg2.connect(job["dsn"])
            connection.autocommit = True
        with connection.cursor() as cursor:
            sent = True
            cursor.execute("INSERT INTO ledger VALUES (%s)", (number,))
        acknowledged.append((number, time.monotonic() - begun))
        time.sleep(0.02)
    except psycopg2.Error as error:
        if sent:
            doubtful.append((number, time.monotonic() - begun, str(error)[:80]))
        connection = None
        time.sleep(0.1)
print(json.dumps({"acknowledged": acknowledged, "doubtful": doubtful}))
"""


@dataclass(frozen=True)
class Ledger:
    """What a writer was told.

    Attributes:
        acknowledged: Numbers whose commit was acknowledged, and when, in seconds.
        doubtful: Numbers whose fate the writer does not know, when it learnt so, and why.
    """

    acknowledged: list[tuple[int, float]]
    doubtful: list[tuple[int, float, str]]

    @property
    def gap(self) -> float:
        """Longest time without an acknowledged write, in seconds."""
        moments = [moment for _, moment in self.acknowledged]
        return max(later - earlier for earlier, later in pairwise(moments))


class Cluster:
    """Asks PostgreSQL and Patroni, from inside the hosts."""

    def __init__(self, on: Callable[[str], Any]) -> None:
        """Keep the way to the hosts."""
        self.on = on

    def psql(
        self, source: str, target: str, sql: str, *, user: str = "app", database: str = "app", password: str | None = None, tls: str = ""
    ) -> Any:
        """Ask ``target`` from ``source`` over the network; ``tls`` is more of libpq's words."""
        address = ADDRESS[target]
        tls = tls or f"sslmode=verify-full sslrootcert={PKI}/ca.crt"
        dsn = f"host={address} dbname={database} user={user} connect_timeout=4 {tls}"
        command = "PGPASSWORD=%s timeout 20 psql --no-psqlrc --no-align --tuples-only --quiet --dbname %s --command %s"
        return self.on(source).run(command, password_of(user) if password is None else password, dsn, sql)

    def ask(self, sql: str) -> str:
        """Ask the leader as a client does."""
        answer = self.psql("client", self.leader(), sql)
        assert answer.rc == 0, answer.stderr
        return str(answer.stdout.strip())

    def inside(self, host: str, sql: str) -> str:
        """Ask a member as its administrator does, through the socket."""
        command = "setpriv --reuid=postgres --regid=postgres --clear-groups psql --no-psqlrc --no-align --tuples-only --quiet --command %s"
        return str(self.on(host).check_output(command, sql).strip())

    def members(self) -> dict[str, dict[str, Any]]:
        """Members by name, as whoever answers first sees them."""
        for address in ADDRESS.values():
            command = f"curl --silent --fail --noproxy '*' --max-time 3 --cacert {PKI}/ca.crt https://{address}:8008/cluster"
            answer = self.on("client").run(command)
            if answer.rc == 0:
                return {member["name"]: member for member in json.loads(answer.stdout)["members"]}
        return {}

    def leader(self) -> str:
        """Name of the member that leads now."""
        for name, member in self.members().items():
            if member["role"] == "leader":
                return name
        raise AssertionError("nobody leads")

    def wait_until_whole(self, seconds: float = 90) -> float:
        """Wait until one leads, one is its synchronous standby, and all follow; give the seconds it took."""
        begun = monotonic()
        while monotonic() - begun < seconds:
            members = self.members()
            roles = sorted(member["role"] for member in members.values())
            states = {member["state"] for member in members.values()}
            if roles == ["leader", "replica", "sync_standby"] and states <= {"running", "streaming"}:
                return monotonic() - begun
            sleep(1)
        raise AssertionError(f"not whole after {seconds} s: {self.members()}")

    def wait_for(self, host: str, sql: str, answer: str, seconds: float = 15) -> None:
        """Wait until a member answers so, after a reload for instance."""
        begun = monotonic()
        while self.inside(host, sql) != answer:
            assert monotonic() - begun < seconds, f"{host} does not answer {answer} to {sql} after {seconds} s"
            sleep(0.5)

    def started(self) -> dict[str, str]:
        """When each PostgreSQL and each Patroni was started: what changes if anything restarts one."""
        patroni = "systemctl show --property=ExecMainStartTimestampMonotonic --value patroni"
        return {host: self.inside(host, "SELECT pg_postmaster_start_time()") + self.on(host).check_output(patroni) for host in ADDRESS}

    def write_until(self, stop: Callable[[], None], limit: float = 120) -> Ledger:
        """Write from the client for as long as ``stop`` takes to do what it does."""
        hosts = ",".join(ADDRESS.values())
        dsn = f"host={hosts} dbname=app user=app password={password_of('app')} target_session_attrs=read-write connect_timeout=2"
        dsn += f" tcp_user_timeout=3000 sslmode=verify-full sslrootcert={PKI}/ca.crt"
        job = {"dsn": dsn, "stop": "/run/stop-writing", "limit": limit}
        self.on("client").check_output("rm -f /run/stop-writing")
        command = ["docker", "exec", "--interactive", f"{CLUSTER}-client", "python3", "-c", WRITER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            try:
                assert writer.stdin
                writer.stdin.write(json.dumps(job))
                writer.stdin.close()
                writer.stdin = None
                sleep(3)
                stop()
            finally:
                self.on("client").check_output("touch /run/stop-writing")
            out, _ = writer.communicate(timeout=60)
        return Ledger(**json.loads(out))


def password_of(role: str) -> str:
    """Password of a role, as its owner was given it."""
    return (SCENARIO / "inventory/.state/secrets/patroni" / role).read_text().strip()


def changes(run: subprocess.CompletedProcess[str]) -> set[int]:
    """How many tasks changed something, over all hosts."""
    return {int(count) for count in re.findall(r"changed=(\d+)", run.stdout)}
