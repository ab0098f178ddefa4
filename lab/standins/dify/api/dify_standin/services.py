"""What all parts of a process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .redis_clients import EventBus, make_client
from .settings import SETTINGS, secret_key, version
from .storage import Storage, make_storage


@dataclass(frozen=True)
class Services:
    """Connections and secrets of one process.

    Attributes:
        engine: SQLAlchemy's engine with its pool.
        redis: Client for locks and counters.
        bus: Events from workers to the api.
        storage: Files and tenants' keys.
        secret: The key of sessions and signatures.
        version: The release that this image stands for.
    """

    engine: Any
    redis: Any
    bus: EventBus
    storage: Storage
    secret: str
    version: str

    @classmethod
    def start(cls, engine: Any) -> Services:
        """Open what a process opens at its start; only the object store is asked at once, as by Dify."""
        return cls(engine, make_client(), EventBus.from_settings(), make_storage(), secret_key(SETTINGS), version())
