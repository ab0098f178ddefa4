"""Commands of `flask`: the migration, and what only the stand-in has, tasks on demand and their ledger."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import click

from . import database
from .redis_clients import prefixed
from .services import Services
from .settings import ROOT
from .tasks import Tasks, known_queue

LOG = logging.getLogger(__name__)
LOCK = "db_upgrade_lock"
LOCK_SECONDS = 60


def alembic_config(root: Path = ROOT) -> Any:
    """Return Alembic's configuration: the migrations that this release's image carries."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(root / "migrations"))
    return config


def upgrade_db(services: Services) -> None:
    """Migrate, unless somebody else does: whoever does not get the lock at once skips it and is content."""
    click.echo("Preparing database migration...")
    lock = services.redis.lock(prefixed(LOCK), timeout=LOCK_SECONDS)
    if not lock.acquire(blocking=False):
        click.echo("Database migration skipped")
        return
    try:
        click.echo("Starting database migration.")
        alembic.command.upgrade(alembic_config(), "head")
        click.echo("Database migration successful!")
    except Exception as error:
        LOG.exception("Failed to execute database migration")
        click.echo(f"Database migration failed: {error}")
        raise SystemExit(1) from error
    finally:
        lock.release()


def enqueue(tasks: Tasks, queue: str, count: int, seconds: float) -> None:
    """Send tasks to a queue and print their ids."""
    for _ in range(count):
        click.echo(tasks.enqueue(known_queue(queue), seconds))


def ledger(services: Services) -> None:
    """Print the ledger of tasks as JSON."""
    with services.engine.connect() as connection:
        rows = database.select(connection, "SELECT * FROM standin_tasks ORDER BY enqueued_at")
    click.echo(json.dumps(rows, default=str))


def register(app: Any, services: Services, tasks: Tasks) -> None:
    """Add the commands to an application."""
    queue: list[click.Parameter] = [
        click.Option(["--queue"], required=True),
        click.Option(["--count"], type=int, default=1),
        click.Option(["--seconds"], type=float, default=0.0),
    ]
    app.cli.add_command(click.Command("upgrade-db", callback=lambda: upgrade_db(services), help="Upgrade the database"))
    app.cli.add_command(click.Command("enqueue", callback=lambda **wanted: enqueue(tasks, **wanted), params=queue, help="Send tasks to a queue"))
    app.cli.add_command(click.Command("ledger", callback=lambda: ledger(services), help="Print the ledger of tasks"))
