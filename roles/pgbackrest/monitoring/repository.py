"""Print what the repository of pgBackRest holds, whether the log in it has a gap, and what became of the timer's runs: ``repository.py STANZA``.

The repository is read every five minutes; in between, what was read last is printed. Of the log, only what came since then is looked at.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Beside the role's own programs, and the same as they import.
sys.path.insert(0, "/usr/local/lib/sovereign")

from pgbackrest import Backup, PgbackrestError, Repository, directories, gap, read

MEMORY = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/sovereign/textfiles")) / "pgbackrest.json"
USER = "postgres"
INTERVAL_S, RETRY_S = 300.0, 60.0
# All questions together: who runs this program ends it after ten seconds.
LIMIT_S = 8.0
TYPES = ("full", "diff", "incr")
TIMER, SERVICES = "pgbackrest-backup.timer", "pgbackrest-backup@*.service"

Ask = Callable[..., str]
"""Runs pgBackRest with some words, and gives what it prints."""


@dataclass
class Memory:
    """What is kept from one run to the next.

    Attributes:
        stanza: Name of the cluster in the repository.
        tried: When the repository was last asked, in seconds since 1970.
        read: When it last answered.
        up: Whether it answered when it was last asked.
        info: What it answered last.
        archive: Where the log lies that was looked at.
        verified: Number of the segment up to which it is whole.
        missing: Number of the first segment that is not there, or nothing.
    """

    stanza: str = ""
    tried: float = 0
    read: float = 0
    up: bool = False
    info: str = ""
    archive: str = ""
    verified: int = -1
    missing: int | None = None


def number(segment: str) -> int:
    """Give the place of a segment in the log, on whichever timeline."""
    return (int(segment[8:16], 16) << 8) + int(segment[16:24], 16)


def segment(place: int) -> str:
    """Give a name for the segment at a place."""
    return f"{0:08X}{place >> 8:08X}{place & 0xFF:08X}"


def remaining(deadline: float) -> float:
    """Give the seconds until a deadline."""
    return max(0.01, deadline - time.monotonic())


def asking(stanza: str, deadline: float) -> Ask:
    """Give what asks pgBackRest, as the user whom its configuration is for, until the deadline.

    Raises:
        PgbackrestError: It fails.
        subprocess.TimeoutExpired: It does not answer in time.
    """
    identity: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}

    def ask(*words: str) -> str:
        command = ["pgbackrest", f"--stanza={stanza}", "--output=json", *words]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd="/", timeout=remaining(deadline), **identity
        )
        if done.returncode:
            raise PgbackrestError((done.stderr or done.stdout).strip())
        return done.stdout

    return ask


def look(memory: Memory, ask: Ask, now: float, more: Callable[[], bool]) -> None:
    """Read the repository, and note what was found.

    Args:
        memory: What is known, and is brought up to date.
        ask: Asks pgBackRest.
        now: Seconds since 1970.
        more: Whether there is time for more.
    """
    memory.tried, memory.up = now, False
    try:
        info = ask("info")
        repository = read(info, memory.stanza)
        memory.info, memory.read, memory.up = info, now, True
        check(memory, repository, ask, more)
    except (PgbackrestError, subprocess.TimeoutExpired) as error:
        print(f"pgbackrest: {error}", file=sys.stderr)


def check(memory: Memory, repository: Repository, ask: Ask, more: Callable[[], bool]) -> None:
    """Look for a gap in the log since the newest backup, as far as time allows; the next run goes on from there."""
    if not repository.backups or not repository.archive_to or not repository.backups[-1].wal_from:
        memory.verified, memory.missing = -1, None
        return
    first, last = number(repository.backups[-1].wal_from), number(repository.archive_to)
    if memory.archive != repository.archive or not first <= memory.verified <= last:
        memory.archive, memory.verified, memory.missing = repository.archive, first - 1, None
    begin = memory.verified + 1
    if begin > last:
        memory.missing = None
        return
    there = directories(json.loads(ask("repo-ls", repository.archive)), segment(begin))
    for log in range(begin >> 8, (last >> 8) + 1):
        if not more():
            return
        listing: dict[str, Any] = {}
        for name in there:
            if int(name[8:16], 16) == log:
                listing |= json.loads(ask("repo-ls", f"{repository.archive}/{name}"))
        end = min(last, (log << 8) + 255)
        found = gap(listing, segment(max(begin, log << 8)), segment(end))
        if found:
            memory.missing = number(found.missing)
            memory.verified = memory.missing - 1
            return
        memory.verified = end
    memory.missing = None


def systemctl(deadline: float, *words: str) -> str:
    """Ask systemd.

    Raises:
        subprocess.CalledProcessError: It does not answer as it should.
    """
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True, timeout=remaining(deadline)).stdout


@dataclass(frozen=True)
class Runs:
    """What systemd says of the timer, and of the runs of this host.

    Attributes:
        active: Whether the timer runs. While a backup is being made, it does, and has no next call.
        last: When it last called for one, in seconds since 1970.
        next: When it will call for the next.
        failed: When a run has last failed.
    """

    active: bool
    last: float | None
    next: float | None
    failed: float | None


def runs(state: str, timers: str, services: str) -> Runs:
    """Read what systemd says.

    Args:
        state: The state of the timer.
        timers: What ``systemctl list-timers --output=json`` prints of the timer, times in microseconds.
        services: What ``systemctl show --timestamp=unix`` prints of the services.
    """
    listed: list[dict[str, Any]] = json.loads(timers or "[]")
    called, due = (listed[0].get("last"), listed[0].get("next")) if listed else (None, None)
    units = [dict(line.split("=", 1) for line in unit.splitlines() if "=" in line) for unit in services.split("\n\n")]
    ends = [unit.get("ExecMainExitTimestamp", "") for unit in units if unit.get("ActiveState") == "failed"]
    return Runs(
        active=state.strip() == "active",
        last=called / 1e6 if called else None,
        next=due / 1e6 if due else None,
        failed=max((float(end[1:]) for end in ends if end.startswith("@")), default=None),
    )


def known(deadline: float) -> Runs:
    """Ask systemd about the timer and what it runs."""
    return runs(
        systemctl(deadline, "show", "--property=ActiveState", "--value", TIMER),
        systemctl(deadline, "list-timers", "--all", "--output=json", TIMER),
        systemctl(deadline, "show", "--timestamp=unix", "--property=ActiveState,ExecMainExitTimestamp", SERVICES),
    )


def report(memory: Memory, told: Runs) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    lines: list[str] = []

    def metric(name: str, text: str, *values: tuple[float | None, str]) -> None:
        lines.extend([f"# HELP sovereign_pgbackrest_{name} {text}", f"# TYPE sovereign_pgbackrest_{name} gauge"])
        for value, kind in values:
            label = f',type="{kind}"' if kind else ""
            if value is not None:
                lines.append(f'sovereign_pgbackrest_{name}{{stanza="{memory.stanza}"{label}}} {value:.15g}')

    metric("repository_up", "Whether the repository can be read.", (int(memory.up), ""))
    if memory.info:
        backups = read(memory.info, memory.stanza).backups
        newest: dict[str, Backup] = {one.kind: one for one in backups}
        metric("repository_read_timestamp_seconds", "When it was last read, in seconds since 1970.", (memory.read, ""))
        metric("backups", "Backups in it.", *((sum(one.kind == kind for one in backups), kind) for kind in TYPES))
        metric("backup_timestamp_seconds", "When the newest was complete.", *((one.stopped, kind) for kind, one in newest.items()))
        metric("backup_duration_seconds", "How long it has taken.", *((one.stopped - one.started, kind) for kind, one in newest.items()))
        metric("backup_database_bytes", "Size of the cluster in it.", *((one.database_bytes, kind) for kind, one in newest.items()))
        metric("backup_repository_bytes", "What it has added to the repository.", *((one.repository_bytes, kind) for kind, one in newest.items()))
        metric("backup_damaged", "Whether pages with wrong checksums are in the newest.", (int(backups[-1].errors) if backups else None, ""))
        metric("archive_gap", "Whether a segment of the log is missing since the newest backup.", (int(memory.missing is not None), ""))
    metric("timer_active", "Whether the timer of backups runs.", (int(told.active), ""))
    metric("timer_last_timestamp_seconds", "When it last called for a backup.", (told.last, ""))
    metric("timer_next_timestamp_seconds", "When it will call for the next.", (told.next, ""))
    metric("failed_timestamp_seconds", "When a run on this host has last failed.", (told.failed, ""))
    return lines


def recall(path: Path, stanza: str) -> Memory:
    """Read what is known of a stanza."""
    try:
        memory = Memory(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return Memory(stanza)
    return memory if memory.stanza == stanza else Memory(stanza)


def main(stanza: str) -> None:
    """Look, keep, and print."""
    deadline = time.monotonic() + LIMIT_S
    told = known(deadline)
    memory, now = recall(MEMORY, stanza), time.time()
    if not 0 <= now - memory.tried < (INTERVAL_S if memory.up else RETRY_S):
        look(memory, asking(stanza, deadline), now, lambda: time.monotonic() < deadline - 2)
        draft = MEMORY.with_suffix(".draft")
        draft.write_text(json.dumps(dataclasses.asdict(memory)), encoding="utf-8")
        draft.replace(MEMORY)
    print("\n".join(report(memory, told)))


if __name__ == "__main__":
    main(*sys.argv[1:])
