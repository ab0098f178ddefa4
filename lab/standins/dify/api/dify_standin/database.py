"""The connection to PostgreSQL: Dify's pool, its start-up parameters, and the ways it waits under gevent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from gevent.monkey import is_module_patched

from .settings import SETTINGS

Row = dict[str, Any]


def make_engine(celery_worker: bool) -> Any:
    """Return the process's engine.

    Args:
        celery_worker: Whether this is a Celery worker: under gevent those keep SQLAlchemy's own pool size of 5, whatever
            SQLALCHEMY_POOL_SIZE says (upstream's issue 30536).
    """
    if SETTINGS.DB_TYPE != "postgresql":
        raise NotImplementedError(f"the stand-in has PostgreSQL only, not DB_TYPE={SETTINGS.DB_TYPE}")
    options = SETTINGS.engine_options
    if celery_worker and is_module_patched("socket"):
        options["pool_size"] = 5
    return sa.create_engine(SETTINGS.database_url, **options)


def select(connection: Any, statement: str, **values: Any) -> list[Row]:
    """Run a query and return its rows; it opens a transaction that stays open until the caller ends it."""
    found: list[Row] = [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]
    return found


def first(connection: Any, statement: str, **values: Any) -> Row | None:
    """Run a query and return its first row, if it has one."""
    return next(iter(select(connection, statement, **values)), None)


def insert(connection: Any, table: str, values: Mapping[str, Any]) -> None:
    """Insert one row."""
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({places})"), dict(values))  # noqa: S608  (names are this program's)


def execute(connection: Any, statement: str, **values: Any) -> int:
    """Run a statement and return how many rows it changed."""
    count: int = connection.execute(sa.text(statement), values).rowcount
    return count


def new_id() -> str:
    """Return a fresh identifier."""
    return str(uuid.uuid4())


def now() -> datetime:
    """Return the time, in UTC and without saying so, as Dify keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def timestamp(moment: datetime | None) -> int | None:
    """Return a stored time as Dify's answers give it: seconds since 1970."""
    return int(moment.replace(tzinfo=UTC).timestamp()) if moment else None
