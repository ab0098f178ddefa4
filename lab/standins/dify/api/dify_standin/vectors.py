"""Knowledge retrieval from pgvector: the connections that it makes, without any vectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from psycopg2.pool import SimpleConnectionPool

from .settings import SETTINGS

SEARCHES = ("embedding", "full_text")
TIMEOUT_SECONDS = 3600


def retrieve(config: dict[str, Any]) -> None:
    """Search the datasets of an app's configuration by hybrid search, in as many threads as Dify.

    Args:
        config: The app's `model_config`; datasets are named as Dify names them, in `dataset_configs.datasets.datasets`.
    """
    listed = ((config.get("dataset_configs") or {}).get("datasets") or {}).get("datasets") or []
    for entry in listed:
        if not entry["dataset"].get("enabled"):
            continue
        with ThreadPoolExecutor(max_workers=SETTINGS.RETRIEVAL_SERVICE_EXECUTORS) as executor:
            for search in as_completed([executor.submit(_search) for _ in SEARCHES], timeout=TIMEOUT_SECONDS):
                search.result()


def _search() -> None:
    """Make a pool, ask one question, drop the pool: Dify makes one for each search and keeps none."""
    pool = SimpleConnectionPool(
        SETTINGS.PGVECTOR_MIN_CONNECTION,
        SETTINGS.PGVECTOR_MAX_CONNECTION,
        host=SETTINGS.PGVECTOR_HOST,
        port=SETTINGS.PGVECTOR_PORT,
        user=SETTINGS.PGVECTOR_USER,
        password=SETTINGS.PGVECTOR_PASSWORD,
        database=SETTINGS.PGVECTOR_DATABASE,
    )
    connection = pool.getconn()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.commit()
    pool.putconn(connection)
