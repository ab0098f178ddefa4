# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dify's migration of its database: once for each image, and believed by what it prints.

Its exit code says nothing: who is too late for the lock says "skipped" and exits with 0, on the old schema.
Runs on managed hosts: the standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

DONE = "Database migration successful!"
SKIPPED = "Database migration skipped"
NEWER = "Can't locate revision"

CREATE = (
    "CREATE SCHEMA IF NOT EXISTS sovereign",
    "CREATE TABLE IF NOT EXISTS sovereign.migration (id bool PRIMARY KEY DEFAULT true CHECK (id), image text NOT NULL, at timestamptz NOT NULL)",
)
READ = "SELECT image FROM sovereign.migration"
WRITE = """
INSERT INTO sovereign.migration (image, at) VALUES (%s, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET image = EXCLUDED.image, at = EXCLUDED.at
"""


class MigrationError(Exception):
    """The database is not migrated."""


def unmigrated(former: str, image: str) -> str:
    """Say that a host may not run an image, and what to do.

    Args:
        former: Image that has migrated the database last; empty for none.
        image: The host's image.
    """
    return (
        f"Dify's database was migrated by {former or 'no image yet'}, and this host is to run {image}, which may not know that schema. "
        "The first host of the site's api migrates: run without --limit, or name that host in it, too. Nothing has been changed on this host."
    )


class Record(Protocol):
    """Which image has migrated the database last, kept in the database itself."""

    def read(self) -> str:
        """Give the image; nothing where none has."""

    def write(self, image: str) -> None:
        """Note an image."""


@dataclass(frozen=True)
class Migration:
    """A migration by one image.

    Attributes:
        image: The image.
        record: What has been done.
        run: Runs the migration, and gives what it printed.
        attempts: How often it is tried while somebody else migrates.
        pause: Seconds between two attempts.
        sleep: Waits some seconds.
    """

    image: str
    record: Record
    run: Callable[[], str]
    attempts: int = 12
    pause: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def apply(self) -> None:
        """Migrate, and note it.

        Raises:
            MigrationError: It has not said that it succeeded; with its last lines, and what to do.
        """
        printed = ""
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(self.pause)
            printed = self.run()
            if DONE in printed:
                self.record.write(self.image)
                return
            if SKIPPED not in printed:
                break
        if SKIPPED in printed:
            msg = (
                f"Somebody else has held the lock of Dify's migration for {self.attempts * self.pause:.0f} s. Another run, or one that died: "
                "its lock in Redis (db_upgrade_lock) ends by itself. Run again."
            )
            raise MigrationError(msg)
        lines = "\n".join(printed.strip().splitlines()[-20:])
        advice = "What runs, runs on with the former schema. Mend the cause and run again."
        if NEWER in printed:
            advice = "The database is newer than this image: go on with the newer release, or restore a backup of before."
        raise MigrationError(f"Dify's migration did not say that it succeeded. {advice} Its last lines:\n{lines}")
