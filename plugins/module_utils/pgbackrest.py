# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a repository of pgBackRest holds, as ``pgbackrest info --output=json`` tells it. Without Ansible: hosts run it, too."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

# Status of a stanza, as pgBackRest counts.
OK, MISSING_PATH, NO_BACKUP, MISSING_DATA = 0, 1, 2, 3
COLUMNS = ("backup", "type", "restorable from", "took s", "cluster MB", "added MB", "ok")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LOCKED = 50
"""Exit code where another process holds the lock (pgBackRest's LockAcquireError)."""


class PgbackrestError(Exception):
    """The repository does not answer, or not what can be read."""


@dataclass(frozen=True)
class Backup:
    """A backup that is complete.

    Attributes:
        label: Its name in the repository.
        kind: ``full``, ``diff`` or ``incr``.
        started: When it was begun, in seconds since 1970.
        stopped: From when on the cluster can be restored by it.
        database_bytes: Size of the cluster as it would be restored.
        repository_bytes: What the backup added to the repository.
        wal_from: First segment that a restore needs.
        wal_to: Last segment without which nothing can be restored.
        errors: Whether pages with wrong checksums were found.
    """

    label: str
    kind: str
    started: int
    stopped: int
    database_bytes: int
    repository_bytes: int
    wal_from: str
    wal_to: str
    errors: bool


@dataclass(frozen=True)
class Repository:
    """What is known of one stanza.

    Attributes:
        code: pgBackRest's status, ``OK`` and others.
        message: The same in words.
        running: Whether a backup of it is being made on this host.
        backups: The backups, oldest first.
        systems: System identifiers of the clusters that it has seen, the present one last.
        archive: Where in the repository the log of the present one lies.
        archive_to: Last archived segment of the present one.
    """

    code: int
    message: str
    running: bool
    backups: tuple[Backup, ...]
    systems: tuple[str, ...]
    archive: str
    archive_to: str

    @property
    def exists(self) -> bool:
        """Whether the stanza has been made."""
        return self.code in {OK, NO_BACKUP}


def read(text: str, stanza: str) -> Repository:
    """Read what ``info`` has printed.

    Raises:
        PgbackrestError: The repository could not be read, with pgBackRest's own reason.
    """
    try:
        listed = json.loads(text)
    except ValueError:
        raise PgbackrestError(f"pgbackrest info answers: {reason(text) or 'nothing'}") from None
    found = next((item for item in listed if item.get("name") == stanza), None)
    if found is None:
        return Repository(MISSING_PATH, "missing stanza path", False, (), (), "", "")
    status = found["status"]
    # One that could not be reached or decrypted is "other": the reason stands beside the repository.
    reasons = [
        item["status"]["message"] for item in found.get("repo", []) if item["status"]["code"] not in {OK, MISSING_PATH, NO_BACKUP, MISSING_DATA}
    ]
    if status["code"] not in {OK, MISSING_PATH, NO_BACKUP, MISSING_DATA}:
        raise PgbackrestError(reason("\n".join(reasons or [status["message"]])))
    archives = found.get("archive") or [{}]
    return Repository(
        code=status["code"],
        message=status["message"],
        running=bool(status.get("lock", {}).get("backup", {}).get("held")),
        backups=tuple(sorted((_backup(item) for item in found.get("backup", [])), key=lambda backup: backup.stopped)),
        systems=tuple(str(item["system-id"]) for item in found.get("db", [])),
        archive=f"archive/{stanza}/{archives[-1]['id']}" if archives[-1].get("id") else "",
        archive_to=archives[-1].get("max") or "",
    )


def when_unlocked(
    command: Callable[[], tuple[int, str, str]], attempts: int = 60, sleep: Callable[[float], None] = time.sleep
) -> tuple[int, str, str]:
    """Run a command of pgBackRest as soon as nobody else holds the stanza's lock.

    A server that runs already has segments to archive, and each attempt at it, which fails while there is no stanza, holds the lock for a moment.

    Args:
        command: Runs it; gives its exit code and what it printed.
        attempts: How often, a second apart.
        sleep: Waits some seconds.

    Returns:
        What the last attempt gave.
    """
    for dummy in range(attempts - 1):
        done = command()
        if done[0] != LOCKED:
            return done
        sleep(1)
    return command()


def reason(text: str) -> str:
    """Give what pgBackRest complains of in a form that people can read: what could not be decrypted, it prints."""
    lines = [line.strip() for line in text.splitlines() if "\ufffd" not in line and line.isprintable()]
    said = " ".join(line for line in lines if line and not line.startswith(("FormatError: key/value", "FormatError: invalid")))
    if "FormatError" in text or "CryptoError" in text:
        said += " It is damaged, or was encrypted with another passphrase (pgbackrest_cipher_passphrase)."
    return said


def _backup(item: dict[str, Any]) -> Backup:
    size, archive = item["info"], item.get("archive") or {}
    return Backup(
        label=item["label"],
        kind=item["type"],
        started=item["timestamp"]["start"],
        stopped=item["timestamp"]["stop"],
        database_bytes=size["size"],
        repository_bytes=size["repository"].get("delta", 0),
        wal_from=archive.get("start") or "",
        wal_to=archive.get("stop") or "",
        errors=bool(item.get("error")),
    )


@dataclass(frozen=True)
class Gap:
    """Where the archived log is interrupted.

    Attributes:
        missing: The first segment that is not there.
        since: When the last one before it was archived, in seconds since 1970.
    """

    missing: str
    since: int


def directories(listing: Mapping[str, Any], wal_from: str) -> list[str]:
    """Choose the directories of an archive in which segments from one on lie, as ``repo-ls`` lists them."""
    return sorted(name for name in listing if re.fullmatch("[0-9A-F]{16}", name) and name[8:] >= wal_from[8:16])


def gap(listing: Mapping[str, Any], wal_from: str, last: str) -> Gap | None:
    """Find the first gap in a log; segments are 16 MB, as PostgreSQL has them unless it is told otherwise.

    Args:
        listing: Files of all ``directories``, as ``repo-ls`` lists them. A segment counts on whichever timeline it is.
        wal_from: Segment from which the log is needed.
        last: Last archived segment.
    """
    found: dict[int, int] = {}
    for name, file in listing.items():
        if segment := re.fullmatch("([0-9A-F]{24})(-[0-9a-f]+([.][a-z0-9]+)?)?", name):
            found[_number(segment[1])] = max(found.get(_number(segment[1]), 0), int(file.get("time", 0)))
    for number in range(_number(wal_from), _number(last) + 1):
        if number not in found:
            return Gap(f"{last[:8]}{number >> 8:08X}{number & 0xFF:08X}", found.get(number - 1, 0))
    return None


def _number(segment: str) -> int:
    return (int(segment[8:16], 16) << 8) + int(segment[16:24], 16)


def base(backups: Sequence[Backup], target: str, label: str = "") -> Backup | None:
    """Give the backup that a restore begins with, as pgBackRest chooses it: the one that is named, or the newest before the target."""
    if label:
        return next((backup for backup in backups if backup.label == label), None)
    before = [backup for backup in backups if not target or backup.stopped < moment(target).timestamp()]
    return before[-1] if before else None


def interrupted(found: Gap, target: str) -> str:
    """Say why a gap keeps a cluster from being restored to a time, or to the newest state; nothing if it does not."""
    if target and moment(target).timestamp() < found.since:
        return ""
    return (
        f"the archived log has a gap: {found.missing} was dropped or lost, so that nothing later than about {written(found.since)} can be restored, "
        "until the next backup"
    )


def next_kind(backups: Sequence[Backup], now: datetime, full_days: Sequence[str]) -> str:
    """Say which kind of backup is due.

    Args:
        backups: Those that there are.
        now: The present time of the host, with its zone.
        full_days: Days of the week for full backups.

    Returns:
        ``full`` where there is none, on a day for it that has none yet, and where one was missed: the newest is older than a week and a day.
    """
    full = [backup.started for backup in backups if backup.kind == "full"]
    if not full:
        return "full"
    newest = datetime.fromtimestamp(max(full), now.tzinfo)
    if DAYS[now.weekday()] in full_days and newest.date() != now.date():
        return "full"
    return "full" if now - newest > timedelta(days=8) else "diff"


def moment(text: str) -> datetime:
    """Read a time as PostgreSQL writes it, such as ``2026-11-22 12:00:00+00``.

    Raises:
        ValueError: It is none, or has no zone.
    """
    short = text.strip().replace(" ", "T", 1)
    if len(short) >= 3 and short[-3] in "+-" and short[-2:].isdigit():
        short += ":00"
    time = datetime.fromisoformat(short.replace("Z", "+00:00"))
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time


def outside(backups: Sequence[Backup], target: str, now: datetime) -> str:
    """Say why a cluster cannot be restored to a time; nothing if it can, as far as the list of backups tells."""
    try:
        time = moment(target)
    except ValueError as error:
        return f"{target!r} is no time: {error}; write it like '2026-11-22 12:00:00+00'"
    if not backups:
        return "the repository has no backup"
    first = min(backup.stopped for backup in backups)
    if time <= datetime.fromtimestamp(first, UTC):
        return f"{target} lies before the end of the first backup, {written(first)}"
    if time > now:
        return f"{target} lies in the future; it is {written(now.timestamp())}"
    return ""


def written(seconds: float) -> str:
    """Write a time so that people and PostgreSQL can read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S+00")


def rows(backups: Sequence[Backup]) -> list[dict[str, Any]]:
    """Give one row a backup for people to read."""
    return [
        {
            "backup": backup.label,
            "type": backup.kind,
            "restorable from": written(backup.stopped),
            "took s": backup.stopped - backup.started,
            "cluster MB": backup.database_bytes // 1000**2,
            "added MB": round(backup.repository_bytes / 1000**2, 1),
            "ok": not backup.errors,
        }
        for backup in backups
    ]
