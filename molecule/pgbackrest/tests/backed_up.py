"""The cluster and its repository, as operators see them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from lab.testing import rerun

ADDRESS = {"db1": "198.18.53.11", "db2": "198.18.53.12"}
STANZA = "mol-pgbackrest-hq"
PGBACKREST = f"runuser --user=postgres -- pgbackrest --stanza={STANZA}"
RESTORE = "../../playbooks/ops/restore.yml"


class Cluster:
    """Two members and what they have stored."""

    def __init__(self, on: Callable[[str], Any]) -> None:
        """Keep the way to the hosts."""
        self.on = on

    def members(self) -> dict[str, dict[str, Any]]:
        """Members as Patroni lists them, by name; empty if nobody answers."""
        for host, address in ADDRESS.items():
            answer = self.on(host).run(
                f"curl --silent --fail --noproxy '*' --max-time 3 --cacert /etc/sovereign/pki/ca.crt https://{address}:8008/cluster"
            )
            if answer.rc == 0:
                return {member["name"]: member for member in json.loads(answer.stdout)["members"]}
        return {}

    def leader(self) -> str:
        """Name of the member that leads."""
        return next(name for name, member in self.members().items() if member["role"] == "leader")

    def follower(self) -> str:
        """Name of the other."""
        return next(name for name in ADDRESS if name != self.leader())

    def wait_until_whole(self, seconds: float = 90) -> None:
        """Wait until one leads and the other follows in step."""
        self.wait_until(
            lambda: (
                sorted((member["role"], member["state"]) for member in self.members().values())
                == [("leader", "running"), ("sync_standby", "streaming")]
            ),
            seconds,
        )

    def wait_until(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds."""
        end = monotonic() + seconds
        while not true():
            assert monotonic() < end, f"not after {seconds} s"
            sleep(1)

    def sql(self, *statements: str, host: str = "") -> str:
        """Run statements in the database of the application, as the superuser, on who leads."""
        words = " ".join(f'-c "{statement}"' for statement in statements)
        return str(self.on(host or self.leader()).check_output(f"runuser --user=postgres -- psql -Atqd app -v ON_ERROR_STOP=1 {words}"))

    def backups(self) -> list[dict[str, Any]]:
        """Backups that the repository has, oldest first."""
        listed = json.loads(self.on("db1").check_output(f"{PGBACKREST} --output=json info"))
        return list(listed[0]["backup"])

    def wait_for_backups(self, number: int) -> None:
        """Wait until there are as many."""
        self.wait_until(lambda: len(self.backups()) >= number, 60)

    def archived(self) -> str:
        """The newest segment in the repository."""
        listed = json.loads(self.on("db1").check_output(f"{PGBACKREST} --output=json info"))
        return str(listed[0]["archive"][-1]["max"])

    def close_segment(self) -> str:
        """Have PostgreSQL hand its present segment over, and give its name."""
        segment = self.sql("SELECT pg_walfile_name(pg_create_restore_point('test'))")
        self.sql("SELECT pg_switch_wal()")
        return segment

    def archive(self) -> str:
        """Have the present segment archived, and wait for it."""
        segment = self.close_segment()
        self.wait_until(lambda: self.archived() >= segment, 30)
        return segment

    def waiting(self) -> int:
        """How many segments wait on who leads until the repository takes them."""
        return int(self.on(self.leader()).check_output("find /var/lib/postgresql/17/main/pg_wal/archive_status -name '*.ready' | wc -l"))

    def now(self) -> str:
        """Give the time to restore to: what is done before lies more than a second before, what comes after more than a second after."""
        sleep(1.1)
        moment = self.sql("SELECT date_trunc('milliseconds', now())")
        sleep(1.1)
        return moment


def restore(**variables: object) -> subprocess.CompletedProcess[str]:
    """Run the playbook."""
    return rerun(playbook=RESTORE, **variables)


def said(run: subprocess.CompletedProcess[str]) -> str:
    """What a run has printed, without the line breaks that are there for people."""
    return re.sub(r"\s+", " ", run.stdout + run.stderr)
