"""What a repository of pgBackRest says, and what follows from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.pgbackrest import (
    Backup,
    Gap,
    PgbackrestError,
    base,
    directories,
    gap,
    interrupted,
    moment,
    next_kind,
    outside,
    read,
    reason,
    rows,
    when_unlocked,
)

# A Sunday.
NOW = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)


def backup(kind: str, **ago: float) -> Backup:
    """A backup that was made some time ago, and took a minute."""
    stopped = int((NOW - timedelta(**ago)).timestamp())
    return Backup(f"{kind}-{stopped}", kind, stopped - 60, stopped, 2_000_000_000, 300_000_000, "0" * 24, "0" * 24, False)


def info(code: int = 0, message: str = "ok", **more: Any) -> str:
    status = {"code": code, "message": message}
    stanza = {
        "name": "lab",
        "status": {**status, "lock": {"backup": {"held": False}}},
        "repo": [{"key": 1, "status": status}],
        "db": [],
        "backup": [],
    }
    return json.dumps([stanza | more])


def test_a_repository_is_read() -> None:
    listed = {
        "label": "20261122-013000F",
        "type": "full",
        "timestamp": {"start": 1, "stop": 2},
        "info": {"size": 5_000_000, "repository": {"delta": 2_000_000}},
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000003"},
        "error": False,
    }
    found = read(
        info(
            backup=[listed],
            db=[{"id": 1, "system-id": 7, "version": "17"}, {"id": 2, "system-id": 8, "version": "17"}],
            archive=[{"id": "17-1", "max": "A"}, {"id": "17-2", "max": "B"}],
        ),
        "lab",
    )
    assert found.exists
    assert found.systems == ("7", "8")
    assert (found.archive, found.archive_to) == ("archive/lab/17-2", "B")
    assert rows(found.backups) == [
        {
            "backup": "20261122-013000F",
            "type": "full",
            "restorable from": "1970-01-01 00:00:02+00",
            "took s": 1,
            "cluster MB": 5,
            "added MB": 2.0,
            "ok": True,
        }
    ]


@pytest.mark.parametrize("text", ["[]", info(1, "missing stanza path"), info(3, "missing stanza data")])
def test_a_cluster_that_is_not_there_yet_is_no_mistake(text: str) -> None:
    assert not read(text, "lab").exists


def test_a_repository_that_cannot_be_read_says_why() -> None:
    broken = "[FormatError] unable to load info file '/r/backup.info':\nFormatError: key/value found outside of section at line 1: \ufffd\x01B"
    with pytest.raises(PgbackrestError, match=r"unable to load info file '/r/backup.info': It is damaged, or was encrypted with another passphrase"):
        read(info(99, broken), "lab")
    with pytest.raises(PgbackrestError, match="pgbackrest info answers: ERROR: no such option"):
        read("ERROR: no such option", "lab")


def test_what_cannot_be_printed_is_left_out() -> None:
    assert reason("ERROR: [082]: a segment\n   HINT: look\n\x07bell") == "ERROR: [082]: a segment HINT: look"


@pytest.mark.parametrize(
    ("backups", "kind"),
    [
        ([], "full"),
        ([backup("diff", hours=1)], "full"),
        ([backup("full", days=7)], "full"),
        ([backup("full", hours=1)], "diff"),
        ([backup("full", days=9), backup("diff", days=1)], "full"),
    ],
    ids=["none", "no full one", "the day for it", "made today", "missed for longer"],
)
def test_the_kind_of_the_next_backup(backups: list[Backup], kind: str) -> None:
    assert next_kind(backups, NOW, ["Sun"]) == kind


def test_on_other_days_it_is_differential_until_a_full_one_was_missed() -> None:
    monday = NOW + timedelta(days=1)
    assert next_kind([backup("full", hours=1)], monday, ["Sun"]) == "diff"
    assert next_kind([backup("full", days=6)], monday, ["Sun"]) == "diff"
    assert next_kind([backup("full", days=7, hours=1)], monday, ["Sun"]) == "full"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("2026-11-22 01:00:00+00", ""),
        ("2026-11-22T02:00:00.5+01:00", ""),
        ("2026-11-22 01:00:00", "has no time zone"),
        ("yesterday", "is no time"),
        ("2026-11-01 01:00:00+00", "before the end of the first backup, 2026-11-20 01:30:00+00"),
        ("2026-11-23 01:00:00+00", "in the future; it is 2026-11-22 01:30:00+00"),
    ],
)
def test_a_target_is_inside_or_the_reason_is_told(target: str, complaint: str) -> None:
    found = outside([backup("full", days=2)], target, NOW)
    assert complaint in found
    assert bool(found) == bool(complaint)


def test_a_restore_begins_with_the_newest_backup_before_the_target() -> None:
    backups = [backup("full", days=2), backup("diff", days=1), backup("diff", hours=1)]
    assert base(backups, "") == backups[2]
    assert base(backups, "2026-11-21 12:00:00+00") == backups[1]
    assert base(backups, "2026-11-21 12:00:00+00", backups[0].label) == backups[0]
    assert base(backups, "2026-11-01 12:00:00+00") is None


def test_a_gap_is_found_across_directories_and_timelines() -> None:
    hash_ = "-" + "a" * 40 + ".zst"
    files = {
        f"0000000100000000000000FE{hash_}": 10,
        f"0000000100000000000000FF{hash_}": 20,
        f"000000010000000100000000.partial{hash_}": 25,
        f"000000020000000100000000{hash_}": 30,
        f"000000020000000100000003{hash_}": 40,
        "0000000100000000000000FE.00000028.backup": 50,
    }
    listing = {name: {"type": "file", "time": time} for name, time in files.items()}
    assert gap(listing, "0000000100000000000000FE", "000000020000000100000000") is None
    found = gap(listing, "0000000100000000000000FE", "000000020000000100000003")
    assert found == Gap("000000020000000100000001", 30)
    assert interrupted(found, "1970-01-01 00:00:29+00") == ""
    assert "000000020000000100000001" in interrupted(found, "1970-01-01 00:00:31+00")
    assert "1970-01-01 00:00:30+00" in interrupted(found, "")
    wanted = ["0000000100000001", "0000000200000001"]
    assert (
        directories({".": {}, "0000000100000000": {}, "00000002.history": {}, **{name: {} for name in wanted}}, "000000010000000100000004") == wanted
    )


def test_times_are_read_as_postgresql_writes_them() -> None:
    assert moment("2026-11-22 01:30:00+00") == NOW
    assert moment("2026-11-22 02:30:00.000+01") == NOW
    assert moment("2026-11-22T01:30:00Z") == NOW


def test_a_command_waits_for_the_lock_that_archiving_holds_for_a_moment() -> None:
    slept: list[float] = []
    answers = [(50, "", "locked"), (50, "", "locked"), (0, "made", "")]
    assert when_unlocked(lambda: answers.pop(0), sleep=slept.append) == (0, "made", "")
    assert slept == [1, 1]
    # Another failure is no reason to try again, and a lock that stays is told.
    assert when_unlocked(lambda: (28, "", "mismatch"), sleep=slept.append)[0] == 28
    assert when_unlocked(lambda: (50, "", "locked"), attempts=3, sleep=slept.append) == (50, "", "locked")
    assert len(slept) == 4
