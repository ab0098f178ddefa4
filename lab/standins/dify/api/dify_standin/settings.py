"""What the stand-in reads from its environment: Dify 1.16's names, defaults and silence.

Unknown names are ignored, as Dify ignores them: a role that misspells one gets the default and no word about it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus

ROOT = Path(__file__).resolve().parent.parent

# What a default worker of the community edition consumes (its entrypoint's list; the order is upstream's).
QUEUES = (
    *("api_token", "dataset", "dataset_summary", "priority_dataset", "priority_pipeline", "pipeline", "mail", "ops_trace", "app_deletion"),
    *("app_rbac", "plugin", "workflow_storage", "conversation", "workflow", "schedule_poller", "schedule_executor"),
    *("triggered_workflow_dispatcher", "trigger_refresh_publisher", "trigger_refresh_executor", "retention", "workflow_based_app_execution"),
)
WORKFLOW_QUEUE = "workflow_based_app_execution"


class SettingsError(ValueError):
    """A setting that is known and has a value that cannot be; Dify's start ends on it, too."""


@dataclass(frozen=True)
class Settings:
    """The settings, under Dify's own names."""

    SECRET_KEY: str = ""
    INIT_PASSWORD: str = ""
    LOG_LEVEL: str = "INFO"
    LOG_OUTPUT_FORMAT: str = "text"
    APPLICATION_NAME: str = "langgenius/dify"
    DEPLOY_ENV: str = "PRODUCTION"
    CONSOLE_API_URL: str = ""
    CONSOLE_WEB_URL: str = ""
    COOKIE_DOMAIN: str = ""
    FILES_URL: str = ""
    ACCESS_TOKEN_EXPIRE_MINUTES: int = 60
    RESPECT_XFORWARD_HEADERS_ENABLED: bool = False
    UPLOAD_FILE_SIZE_LIMIT: int = 15
    APP_DEFAULT_ACTIVE_REQUESTS: int = 0
    APP_MAX_ACTIVE_REQUESTS: int = 0

    DB_TYPE: str = "postgresql"
    DB_HOST: str = "localhost"
    DB_PORT: int = 5432
    DB_USERNAME: str = "postgres"
    DB_PASSWORD: str = ""
    DB_DATABASE: str = "dify"
    DB_CHARSET: str = ""
    DB_EXTRAS: str = ""
    DB_SESSION_TIMEZONE_OVERRIDE: str = "UTC"
    SQLALCHEMY_POOL_SIZE: int = 30
    SQLALCHEMY_MAX_OVERFLOW: int = 10
    SQLALCHEMY_POOL_RECYCLE: int = 3600
    SQLALCHEMY_POOL_USE_LIFO: bool = False
    SQLALCHEMY_POOL_PRE_PING: bool = False
    SQLALCHEMY_POOL_TIMEOUT: int = 30

    PGVECTOR_HOST: str = ""
    PGVECTOR_PORT: int = 5433
    PGVECTOR_USER: str = ""
    PGVECTOR_PASSWORD: str = ""
    PGVECTOR_DATABASE: str = ""
    PGVECTOR_MIN_CONNECTION: int = 1
    PGVECTOR_MAX_CONNECTION: int = 5
    RETRIEVAL_SERVICE_EXECUTORS: int = os.cpu_count() or 1

    REDIS_HOST: str = "localhost"
    REDIS_PORT: int = 6379
    REDIS_USERNAME: str = ""
    REDIS_PASSWORD: str = ""
    REDIS_DB: int = 0
    REDIS_KEY_PREFIX: str = ""
    REDIS_USE_SSL: bool = False
    REDIS_SSL_CERT_REQS: str = "CERT_NONE"
    REDIS_SSL_CA_CERTS: str = ""
    REDIS_USE_SENTINEL: bool = False
    REDIS_SENTINELS: str = ""
    REDIS_SENTINEL_SERVICE_NAME: str = ""
    REDIS_SENTINEL_USERNAME: str = ""
    REDIS_SENTINEL_PASSWORD: str = ""
    REDIS_SENTINEL_SOCKET_TIMEOUT: float = 0.1
    REDIS_RETRY_RETRIES: int = 3
    REDIS_RETRY_BACKOFF_BASE: float = 1.0
    REDIS_RETRY_BACKOFF_CAP: float = 10.0
    REDIS_SOCKET_TIMEOUT: float = 5.0
    REDIS_SOCKET_CONNECT_TIMEOUT: float = 5.0
    REDIS_HEALTH_CHECK_INTERVAL: int = 30
    REDIS_SERIALIZATION_PROTOCOL: int = 3
    REDIS_KEEPALIVE: bool = False
    REDIS_KEEPALIVE_IDLE: int = 30
    REDIS_KEEPALIVE_INTERVAL: int = 10
    REDIS_KEEPALIVE_COUNT: int = 10
    EVENT_BUS_REDIS_URL: str = ""
    EVENT_BUS_REDIS_CHANNEL_TYPE: str = "pubsub"
    EVENT_BUS_STREAMS_RETENTION_SECONDS: int = 600

    CELERY_BROKER_URL: str = ""
    CELERY_BACKEND: str = "redis"
    CELERY_USE_SENTINEL: bool = False
    CELERY_SENTINEL_MASTER_NAME: str = ""
    CELERY_SENTINEL_PASSWORD: str = ""
    CELERY_SENTINEL_SOCKET_TIMEOUT: float = 0.1
    ENABLE_DATASETS_QUEUE_MONITOR: bool = False
    QUEUE_MONITOR_INTERVAL: int = 30
    ENABLE_WORKFLOW_SCHEDULE_POLLER_TASK: bool = True
    WORKFLOW_SCHEDULE_POLLER_INTERVAL: int = 1
    ENABLE_API_TOKEN_LAST_USED_UPDATE_TASK: bool = True
    API_TOKEN_LAST_USED_UPDATE_INTERVAL: int = 30

    STORAGE_TYPE: str = "opendal"
    OPENDAL_SCHEME: str = "fs"
    OPENDAL_FS_ROOT: str = "storage"
    STORAGE_LOCAL_PATH: str = "storage"
    S3_ENDPOINT: str = ""
    S3_REGION: str = ""
    S3_BUCKET_NAME: str = ""
    S3_ACCESS_KEY: str = ""
    S3_SECRET_KEY: str = ""
    S3_ADDRESS_STYLE: str = "auto"

    PLUGIN_DAEMON_URL: str = "http://localhost:5002"
    PLUGIN_DAEMON_KEY: str = "plugin-api-key"
    PLUGIN_DAEMON_TIMEOUT: float = 600.0
    INNER_API_KEY_FOR_PLUGIN: str = "inner-api-key"
    CODE_EXECUTION_ENDPOINT: str = "http://sandbox:8194"
    CODE_EXECUTION_API_KEY: str = "dify-sandbox"
    SSRF_PROXY_HTTP_URL: str = ""
    SSRF_PROXY_HTTPS_URL: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Args:
            environ: The environment; names that are not settings are ignored.

        Raises:
            SettingsError: A value cannot be of its setting's type, or is none of its choices.
        """
        values = dict(environ)
        # Dify knows the event bus by an older prefix, too; the newer wins.
        for name in ("URL", "CHANNEL_TYPE"):
            values.setdefault(f"EVENT_BUS_REDIS_{name}", environ.get(f"PUBSUB_REDIS_{name}", getattr(cls, f"EVENT_BUS_REDIS_{name}")))
        settings = cls(
            **{field.name: _convert(field.name, values[field.name], getattr(cls, field.name)) for field in fields(cls) if field.name in values}
        )
        for name, choices in CHOICES.items():
            if getattr(settings, name) not in choices:
                raise SettingsError(f"{name}: input should be {' or '.join(choices)}, not {getattr(settings, name)!r}")
        return settings

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the database, with DB_EXTRAS as its query."""
        extras = f"{self.DB_EXTRAS}&client_encoding={self.DB_CHARSET}" if self.DB_CHARSET else self.DB_EXTRAS
        query = f"?{extras.strip('&')}" if extras.strip("&") else ""
        who = f"{quote_plus(self.DB_USERNAME)}:{quote_plus(self.DB_PASSWORD)}"
        return f"postgresql://{who}@{self.DB_HOST}:{self.DB_PORT}/{self.DB_DATABASE}{query}"

    @property
    def engine_options(self) -> dict[str, Any]:
        """Options of the SQLAlchemy engine; the time zone goes as a start-up parameter `options`, which PgBouncer refuses by default."""
        options = [dict(parse_qsl(self.DB_EXTRAS)).get("options", "")]
        if self.DB_SESSION_TIMEZONE_OVERRIDE:
            options.append(f"-c timezone={self.DB_SESSION_TIMEZONE_OVERRIDE}")
        merged = " ".join(filter(None, options))
        return {
            "pool_size": self.SQLALCHEMY_POOL_SIZE,
            "max_overflow": self.SQLALCHEMY_MAX_OVERFLOW,
            "pool_recycle": self.SQLALCHEMY_POOL_RECYCLE,
            "pool_pre_ping": self.SQLALCHEMY_POOL_PRE_PING,
            "pool_use_lifo": self.SQLALCHEMY_POOL_USE_LIFO,
            "pool_timeout": self.SQLALCHEMY_POOL_TIMEOUT,
            "connect_args": {"options": merged} if merged else {},
        }

    @property
    def celery_result_backend(self) -> str | None:
        """Celery's result back end: with `redis` it is the broker's URL, whatever that is."""
        if self.CELERY_BACKEND in ("database", "rabbitmq"):
            return f"db+{self.database_url}"
        return (self.CELERY_BROKER_URL or None) if self.CELERY_BACKEND == "redis" else None

    @property
    def transport_options(self) -> dict[str, Any]:
        """Options of the way to the broker: Sentinel, where a Redis broker is found by it, and the prefix of keys."""
        options: dict[str, Any] = {}
        if self.CELERY_USE_SENTINEL:
            sentinel = {"socket_timeout": self.CELERY_SENTINEL_SOCKET_TIMEOUT, "password": self.CELERY_SENTINEL_PASSWORD or None}
            options = {"master_name": self.CELERY_SENTINEL_MASTER_NAME, "sentinel_kwargs": sentinel}
        if self.REDIS_KEY_PREFIX:
            options["global_keyprefix"] = f"{self.REDIS_KEY_PREFIX}:"
        return options

    @property
    def event_bus_url(self) -> str:
        """Where events between workers and api go: EVENT_BUS_REDIS_URL, else REDIS_HOST:REDIS_PORT; never Sentinel."""
        if self.EVENT_BUS_REDIS_URL.strip():
            return self.EVENT_BUS_REDIS_URL.strip()
        who = quote(self.REDIS_USERNAME, safe="") + (f":{quote(self.REDIS_PASSWORD, safe='')}" if self.REDIS_PASSWORD else "")
        scheme = "rediss" if self.REDIS_USE_SSL else "redis"
        return f"{scheme}://{who}{'@' if who else ''}{self.REDIS_HOST}:{self.REDIS_PORT}/{self.REDIS_DB}"

    @property
    def secure(self) -> bool:
        """Whether cookies are for https only."""
        return self.CONSOLE_WEB_URL.startswith("https") and self.CONSOLE_API_URL.startswith("https")


CHOICES = {
    "DB_TYPE": ("postgresql", "mysql", "oceanbase", "seekdb"),
    "LOG_OUTPUT_FORMAT": ("text", "json"),
    "EVENT_BUS_REDIS_CHANNEL_TYPE": ("pubsub", "sharded", "streams"),
    "S3_ADDRESS_STYLE": ("auto", "virtual", "path"),
}


def _convert(name: str, text: str, default: object) -> Any:
    if isinstance(default, bool):
        known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
        if text.strip().lower() not in known:
            raise SettingsError(f"{name}: input should be a valid boolean, not {text!r}")
        return known[text.strip().lower()]
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise SettingsError(f"{name}: input should be a valid number, not {text!r}") from None
    return text


def secret_key(settings: Settings, root: Path = ROOT) -> str:
    """Return SECRET_KEY, or where it is empty a key that this node invents for itself and keeps in its own file."""
    if settings.SECRET_KEY:
        return settings.SECRET_KEY
    file = root / ".dify_secret_key"
    try:
        # Exclusive: of several processes that start together on a node, all take the first one's.
        with file.open("x") as created:
            created.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return file.read_text()


def version(root: Path = ROOT) -> str:
    """Return the release that this image stands for."""
    return (root / "VERSION").read_text().strip()


SETTINGS = Settings.load(os.environ)
