"""A migration is done when it says so, whatever it exits with, and then never again for the same image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.sovereign.dify.plugins.module_utils.dify_migration import Migration, MigrationError, unmigrated

DONE = "Running migrations\nPreparing database migration...\nDatabase migration successful!\nMigration completed, exiting normally\n"
SKIPPED = "Running migrations\nDatabase migration skipped\nMigration completed, exiting normally\n"


class Record:
    """What the database remembers."""

    image = ""

    def read(self) -> str:
        """Give the image."""
        return self.image

    def write(self, image: str) -> None:
        """Note an image."""
        self.image = image


def migration(record: Record, *printed: str) -> tuple[Migration, list[float]]:
    slept: list[float] = []
    outputs = iter(printed)
    run: Callable[[], str] = lambda: next(outputs)  # noqa: E731
    return Migration("api@sha256:new", record, run, attempts=3, sleep=slept.append), slept


def test_what_says_that_it_succeeded_is_noted() -> None:
    record = Record()
    migration(record, DONE)[0].apply()
    assert record.image == "api@sha256:new"


def test_one_that_was_skipped_is_not_taken_for_done_though_it_exits_well() -> None:
    record = Record()
    todo, slept = migration(record, SKIPPED, SKIPPED, DONE)
    todo.apply()
    assert (record.image, slept) == ("api@sha256:new", [10.0, 10.0])


def test_a_lock_that_stays_ends_the_run() -> None:
    record = Record()
    with pytest.raises(MigrationError, match="held the lock of Dify's migration for 30 s"):
        migration(record, SKIPPED, SKIPPED, SKIPPED)[0].apply()
    assert record.image == ""


@pytest.mark.parametrize("printed", ["", "Migration completed, exiting normally\n", "Database migration failed: connection refused\n"])
def test_whatever_else_it_prints_is_a_failure_told_with_its_last_lines(printed: str) -> None:
    record = Record()
    with pytest.raises(MigrationError) as error:
        migration(record, printed)[0].apply()
    assert str(error.value).endswith(printed.strip())
    assert "runs on with the former schema" in str(error.value)
    assert record.image == ""


def test_an_older_image_on_a_newer_database_is_told_the_two_ways_out() -> None:
    with pytest.raises(MigrationError, match="go on with the newer release, or restore a backup"):
        migration(Record(), "alembic.util.exc.CommandError: Can't locate revision identified by 'f00'\n")[0].apply()


def test_a_host_that_may_not_migrate_is_told_who_does() -> None:
    told = unmigrated("", "localhost/api:2")
    assert "migrated by no image yet" in told
    assert "localhost/api:2" in told
    assert "run without --limit" in told
