"""Make psycopg2 wait for its server without stopping all of gevent's other greenlets."""

from __future__ import annotations

from typing import Any

import psycopg2
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions


def _wait(connection: Any) -> None:
    waits = {extensions.POLL_READ: wait_read, extensions.POLL_WRITE: wait_write}
    while (state := connection.poll()) != extensions.POLL_OK:
        if state not in waits:
            raise psycopg2.OperationalError(f"unexpected state {state} of a connection")
        waits[state](connection.fileno())


def patch_psycopg() -> None:
    """Set the wait callback of all of psycopg2's connections."""
    extensions.set_wait_callback(_wait)
    print("psycopg2 patched with gevent.", flush=True)
