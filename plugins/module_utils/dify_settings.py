# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings of Dify's services: typed facts about a site in, the environment of each service out.

Dify ignores names that it does not know, has public defaults for secrets, and gives some names another meaning in another service. So nobody
writes its environment by hand: what follows from the site is computed here and cannot be overridden; the rest has defaults, and may be
overridden by names that the release knows. Runs on the controller: the standard library only.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import quote

from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import RETRIEVAL_CONNECTIONS
from ansible_collections.sovereign.dify.plugins.module_utils.dify_release import RELEASES, Release

Environment = dict[str, str]
T = TypeVar("T")

SHORTEST_SECRET = 32
INIT_PASSWORD_LENGTH = 30
"""Longest that the api takes."""

IMAGES = {
    "api": "api",
    "websocket": "api",
    "worker": "api",
    "beat": "api",
    "migration": "api",
    "web": "web",
    "plugin_daemon": "plugin_daemon",
    "sandbox": "sandbox",
}
"""Services with an environment, and the image of each."""

PUBLIC_DEFAULTS = frozenset(
    {
        "difyai123456",
        "dify-sandbox",
        "inner-api-key",
        "plugin-api-key",
        "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",
        "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",
        "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    }
)
"""Secrets that upstream ships, and everybody knows."""


class SettingsError(ValueError):
    """Settings that cannot be, each told in a line of its own: where, what, and how to mend it."""

    def __init__(self, faults: Iterable[str]) -> None:
        """Keep the faults."""
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Secrets:
    """Secrets that are equal on every host.

    Attributes:
        secret_key: Signs sessions and encrypts credentials; another one on one host makes that host forget both.
        plugin_daemon_key: By which the api calls the plugin daemon.
        inner_api_key: By which the plugin daemon calls the api.
        sandbox_key: By which the api calls the sandbox.
        init_password: Asked of whoever sets a fresh platform up.
    """

    secret_key: str
    plugin_daemon_key: str
    inner_api_key: str
    sandbox_key: str
    init_password: str


@dataclass(frozen=True)
class Postgresql:
    """A database, and how it is reached.

    Attributes:
        host: Name or address that the server's certificate must bear.
        port: TCP port.
        user: Role.
        password: Its password.
        database: Database.
        address: Where to connect to instead of ``host``; empty means there.
        sslmode: libpq's word for how the server is verified.
        authority: File, in the container, of the authorities; ``system`` means those of the image.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    address: str = ""
    sslmode: str = "verify-full"
    authority: str = "/etc/sovereign/pki/ca.crt"


@dataclass(frozen=True)
class Redis:
    """Redis at one address that follows the master."""

    host: str
    port: int
    user: str
    password: str
    database: int = 0


@dataclass(frozen=True)
class Rabbitmq:
    """RabbitMQ at one address, with a virtual host whose queues are quorum queues."""

    host: str
    port: int
    user: str
    password: str
    vhost: str


@dataclass(frozen=True)
class S3:
    """Object storage; ``bucket`` for files, ``plugin_bucket`` for plugins."""

    endpoint: str
    region: str
    addressing: str
    access_key: str
    secret_key: str
    bucket: str
    plugin_bucket: str


@dataclass(frozen=True)
class Site:
    """What all services of a site have in common.

    Attributes:
        release: Release of Dify.
        public_url: Where browsers and API clients come to, without a path.
        internal_url: Of a balancer before every api, for Dify itself; never one host's api.
        plugin_daemon_url: Of whichever plugin daemon is active.
        sandbox_url: Of a sandbox.
        proxy_url: Of the proxy through which code and requests of users go out.
        sandbox_proxy_url: The same proxy as the sandbox sees it.
        secrets: Secrets.
        postgresql: The api's database.
        plugin_postgresql: The plugin daemon's.
        redis: Redis.
        rabbitmq: RabbitMQ.
        s3: Object storage.
        pip_mirror_url: Index that plugins get their packages from; empty means none is set.
        otlp_url: OpenTelemetry collector; empty means no traces.
    """

    release: str
    public_url: str
    internal_url: str
    plugin_daemon_url: str
    sandbox_url: str
    proxy_url: str
    sandbox_proxy_url: str
    secrets: Secrets
    postgresql: Postgresql
    plugin_postgresql: Postgresql
    redis: Redis
    rabbitmq: Rabbitmq
    s3: S3
    pip_mirror_url: str = ""
    otlp_url: str = ""


@dataclass(frozen=True)
class Process:
    """What one process of a service is given.

    Attributes:
        address: Address to listen at.
        port: Port to listen at; 0 where it does not listen.
        connections: Requests that it takes at once.
        pool_size: Connections to PostgreSQL that it keeps.
        max_overflow: Connections to PostgreSQL that it may open beyond.
    """

    address: str = "127.0.0.1"
    port: int = 0
    connections: int = 10
    pool_size: int = 5
    max_overflow: int = 5


def parse(cls: type[T], given: object, at: str = "") -> T:
    """Read a typed dataclass out of plain data.

    Args:
        cls: A dataclass of text, whole numbers, booleans, tuples of text, and dataclasses of those.
        given: What was written.
        at: Where it stands, for messages.

    Raises:
        SettingsError: Keys that are unknown or missing, or of another type; all of them at once.
    """
    faults: list[str] = []
    value = _parse(cls, given, at, faults)
    if faults:
        raise SettingsError(faults)
    return value  # type: ignore[no-any-return]


def _parse(kind: Any, given: object, at: str, faults: list[str]) -> Any:  # noqa: ANN401 - of the kind
    if dataclasses.is_dataclass(kind):
        return _parse_section(kind, given, at, faults)
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(given, (list, tuple)) or isinstance(given, str):
            faults.append(f"{at}: expected a list, not {given!r}.")
            return ()
        return tuple(_parse(get_args(kind)[0], item, f"{at}[{position}]", faults) for position, item in enumerate(given))
    fits = isinstance(given, kind) and (kind is bool or not isinstance(given, bool))
    # Templates give numbers as text.
    if kind is int and isinstance(given, str) and given.isdecimal():
        return int(given)
    if not fits:
        # What was given may be a secret.
        faults.append(f"{at}: expected {_WORDS[kind]}, not {type(given).__name__}.")
    return given


_WORDS = {str: "text", int: "a whole number", bool: "true or false"}


def _parse_section(cls: Any, given: object, at: str, faults: list[str]) -> Any:  # noqa: ANN401 - of the class
    if not isinstance(given, Mapping):
        faults.append(f"{at or 'the top'}: expected a mapping, not {type(given).__name__}.")
        return None
    kinds = get_type_hints(cls)
    path = f"{at}." if at else ""
    faults.extend(f"{path}{key}: {_unknown('key', str(key), kinds)}" for key in given if key not in kinds)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind = kinds[field.name]
        if isinstance(kind, types.UnionType):
            kind = get_args(kind)[0]
        if field.name in given:
            values[field.name] = _parse(kind, given[field.name], f"{path}{field.name}", faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(f"{path}{field.name}: is missing.")
    return None if faults else cls(**values)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which was probably meant."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1, 0.75)
    if near:
        return f"unknown {what}; did you mean {near[0]}?"
    return f"unknown {what}{'; known are ' + ', '.join(known) if len(known) <= 30 else ''}."


def release(name: str) -> Release:
    """Give what is known of a release.

    Raises:
        SettingsError: Nothing is.
    """
    if name not in RELEASES:
        raise SettingsError([f"release: nothing is known of Dify {name}; known are {', '.join(RELEASES)}."])
    return RELEASES[name]


def environment(service: str, site: Site, process: Process, overrides: Mapping[str, Any] | None = None) -> Environment:
    """Compute the environment of a service.

    Args:
        service: One of ``IMAGES``.
        site: The site.
        process: What this process is given.
        overrides: Settings of Dify in place of the defaults, or in addition.

    Returns:
        Names and values in the order of the names.

    Raises:
        SettingsError: A setting is unknown to the release, belongs to the role, or would spring a trap; all of them at once.
    """
    names = release(site.release).names[IMAGES[service]]
    own, defaults = _SERVICES[service](site, process)
    own = {**own, **_MODES.get(service, {})}
    faults = _weak_secrets(site)
    wanted: Environment = {}
    for name, value in (overrides or {}).items():
        if name not in names:
            faults.append(f"{service}: {name}: {_unknown(f'setting of Dify {site.release}', name, names)}")
        elif name in own:
            faults.append(f"{service}: {name}: it follows from the site and the role's variables; change those instead.")
        elif name in _REFUSED:
            faults.append(f"{service}: {name}: {_REFUSED[name]}")
        else:
            wanted[name] = text(value)
    result = {**defaults, **wanted, **own}
    faults += [f"{service}: {name}: {why}" for name, (fits, why) in _RULES.items() if name in result and result[name].lower() != fits]
    faults += [f"{service}: {name}: the secret that upstream ships with Dify is known to everybody." for name in _known_to_all(result)]
    # An environment file has a line for each, without quotes.
    faults += [f"{service}: {name}: a value is one line without blanks at its ends." for name, value in result.items() if value != _line(value)]
    if faults:
        raise SettingsError(faults)
    return dict(sorted(result.items()))


def text(value: object) -> str:
    """Write a value as the environment has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _line(value: str) -> str:
    return "".join(value.splitlines()).strip()


def _known_to_all(values: Mapping[str, str]) -> list[str]:
    return [name for name, value in values.items() if any(secret in value for secret in PUBLIC_DEFAULTS)]


def _weak_secrets(site: Site) -> list[str]:
    faults = []
    passwords = {
        "postgresql.password": site.postgresql.password,
        "plugin_postgresql.password": site.plugin_postgresql.password,
        "redis.password": site.redis.password,
        "rabbitmq.password": site.rabbitmq.password,
        "s3.secret_key": site.s3.secret_key,
    }
    shared = dataclasses.asdict(site.secrets)
    for name, value in {**{f"secrets.{name}": value for name, value in shared.items()}, **passwords}.items():
        if value in PUBLIC_DEFAULTS:
            faults.append(f"{name}: the secret that upstream ships with Dify is known to everybody; leave it out to have one generated.")
        elif not value:
            faults.append(f"{name}: is empty.")
    faults += [
        f"secrets.{name}: needs at least {SHORTEST_SECRET} characters."
        for name, value in shared.items()
        if name != "init_password" and value and len(value) < SHORTEST_SECRET
    ]
    if len(site.secrets.init_password) > INIT_PASSWORD_LENGTH:
        faults.append(f"secrets.init_password: Dify takes at most {INIT_PASSWORD_LENGTH} characters.")
    if len(set(shared.values())) < len(shared):
        faults.append("secrets: two of them are equal; each needs to be one of its own.")
    return faults


_RULES: Mapping[str, tuple[str, str]] = {
    "SQLALCHEMY_POOL_PRE_PING": ("true", "must be true: without it each fail-over of PostgreSQL costs failed requests."),
    "ENABLE_DATASETS_QUEUE_MONITOR": ("false", "must be false: it reads queues from Redis, and the broker is RabbitMQ."),
    "REDIS_USE_SENTINEL": ("false", "must be false: the event bus ignores Sentinel, so that streaming workflows would die after their first event."),
    "REDIS_USE_CLUSTERS": ("false", "must be false: the service proxy leads to one master."),
    "CELERY_USE_SENTINEL": ("false", "must be false: the broker is RabbitMQ."),
    "MARKETPLACE_ENABLED": ("false", "must be false: this site calls nobody outside by itself."),
    "CHECK_UPDATE_URL": ("", "must be empty: this site calls nobody outside by itself."),
    "RESPECT_XFORWARD_HEADERS_ENABLED": ("true", "must be true: nginx and HAProxy stand before the api."),
    "DEBUG": ("false", "must be false: it starts a development server."),
    "FLASK_DEBUG": ("false", "must be false: it starts a development server."),
}
"""Values that a setting must have where it is set at all, in lower case, and why."""

_REFUSED: Mapping[str, str] = {
    "DB_EXTRAS": "means one thing to the api and another to the plugin daemon; how PostgreSQL is verified is set by dify_postgresql.",
    "CELERY_QUEUES": "queues are declared by dify_worker_pools.",
    "CELERY_WORKER_QUEUES": "queues are declared by dify_worker_pools.",
    "CELERY_WORKER_AMOUNT": "concurrency is declared by dify_worker_pools.",
    "CELERY_WORKER_CONCURRENCY": "concurrency is declared by dify_worker_pools.",
    "CELERY_AUTO_SCALE": "concurrency is declared by dify_worker_pools.",
    "CELERY_MAX_WORKERS": "concurrency is declared by dify_worker_pools.",
    "CELERY_MIN_WORKERS": "concurrency is declared by dify_worker_pools.",
    "CELERY_WORKER_CLASS": "workers run Celery's own command, always with gevent.",
    "CELERY_WORKER_POOL": "workers run Celery's own command, always with gevent.",
    "CELERY_PREFETCH_MULTIPLIER": "workers run Celery's own command, always with 1.",
    "MAX_TASKS_PER_CHILD": "workers run Celery's own command, which has no children under gevent.",
    "LOG_FILE": "services write to the journal.",
    "CELERY_SENTINEL_PASSWORD": "the broker is RabbitMQ.",
    "PUBSUB_REDIS_URL": "it is another name of EVENT_BUS_REDIS_URL, which follows from the site.",
    "SERVER_CONSOLE_API_URL": "it is another name of INTERNAL_FILES_URL, which follows from the site.",
}
"""Settings that nobody sets, and why."""

_MODES: Mapping[str, Environment] = {
    "api": {"MODE": "api"},
    "websocket": {"MODE": "api"},
    "worker": {"MODE": "worker"},
    "beat": {"MODE": "beat"},
    "migration": {"MODE": "migration", "MIGRATION_ENABLED": "true"},
}

_Pair = tuple[Environment, Environment]
"""What follows from the site, and what may be overridden."""


def _core(site: Site, process: Process) -> _Pair:
    """What every process of the api's image reads."""
    database, cache, queue, secrets = site.postgresql, site.redis, site.rabbitmq, site.secrets
    own = {
        "SECRET_KEY": secrets.secret_key,
        "INIT_PASSWORD": secrets.init_password,
        "INNER_API_KEY_FOR_PLUGIN": secrets.inner_api_key,
        "PLUGIN_DAEMON_KEY": secrets.plugin_daemon_key,
        "PLUGIN_DAEMON_URL": site.plugin_daemon_url,
        "CODE_EXECUTION_API_KEY": secrets.sandbox_key,
        "CODE_EXECUTION_ENDPOINT": site.sandbox_url,
        # Never by itself: who is too late for the lock starts on the old schema, and says nothing.
        "MIGRATION_ENABLED": "false",
        "DB_TYPE": "postgresql",
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_USERNAME": database.user,
        "DB_PASSWORD": database.password,
        "DB_DATABASE": database.database,
        **_libpq(database),
        "SQLALCHEMY_POOL_SIZE": str(process.pool_size),
        "SQLALCHEMY_MAX_OVERFLOW": str(process.max_overflow),
        "VECTOR_STORE": "pgvector",
        "PGVECTOR_HOST": database.host,
        "PGVECTOR_PORT": str(database.port),
        "PGVECTOR_USER": database.user,
        "PGVECTOR_PASSWORD": database.password,
        "PGVECTOR_DATABASE": database.database,
        # Dify opens these anew for each half of a search, and does both halves at once: what docs/capacity.md counts, whatever cores a host has.
        "PGVECTOR_MIN_CONNECTION": "1",
        "RETRIEVAL_SERVICE_EXECUTORS": str(RETRIEVAL_CONNECTIONS),
        "REDIS_HOST": cache.host,
        "REDIS_PORT": str(cache.port),
        "REDIS_USERNAME": cache.user,
        "REDIS_PASSWORD": cache.password,
        "REDIS_DB": str(cache.database),
        "REDIS_USE_SENTINEL": "false",
        "EVENT_BUS_REDIS_URL": f"redis://{_account(cache)}@{cache.host}:{cache.port}/{cache.database}",
        "CELERY_BROKER_URL": f"amqp://{_account(queue)}@{queue.host}:{queue.port}/{quote(queue.vhost, safe='')}",
        # With `redis` it would take the broker's address for Redis's.
        "CELERY_BACKEND": "rabbitmq",
        "STORAGE_TYPE": "s3",
        "S3_ENDPOINT": site.s3.endpoint,
        "S3_REGION": site.s3.region,
        "S3_BUCKET_NAME": site.s3.bucket,
        "S3_ACCESS_KEY": site.s3.access_key,
        "S3_SECRET_KEY": site.s3.secret_key,
        "S3_ADDRESS_STYLE": "path" if site.s3.addressing == "path" else "virtual",
        "S3_USE_AWS_MANAGED_IAM": "false",
        "SSRF_PROXY_HTTP_URL": site.proxy_url,
        "SSRF_PROXY_HTTPS_URL": site.proxy_url,
        "FILES_URL": site.public_url,
        "INTERNAL_FILES_URL": site.internal_url,
        "CONSOLE_API_URL": site.public_url,
        "CONSOLE_WEB_URL": site.public_url,
        "SERVICE_API_URL": site.public_url,
        "APP_WEB_URL": site.public_url,
        "TRIGGER_URL": site.public_url,
        "ENDPOINT_URL_TEMPLATE": f"{site.public_url}/e/{{hook_id}}",
        "ENABLE_OTEL": "true" if site.otlp_url else "false",
        **({"OTLP_BASE_ENDPOINT": site.otlp_url} if site.otlp_url else {}),
    }
    defaults = {
        "DEPLOY_ENV": "PRODUCTION",
        "EDITION": "SELF_HOSTED",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONIOENCODING": "utf-8",
        "UV_CACHE_DIR": "/tmp/.uv-cache",  # noqa: S108 - the container's own
        "LOG_LEVEL": "INFO",
        "LOG_OUTPUT_FORMAT": "json",
        "SQLALCHEMY_POOL_PRE_PING": "true",
        # At least once: an event that is sent while nobody listens, as in a fail-over, is not lost.
        "EVENT_BUS_REDIS_CHANNEL_TYPE": "streams",
        "ENABLE_DATASETS_QUEUE_MONITOR": "false",
        "RESPECT_XFORWARD_HEADERS_ENABLED": "true",
        "CONSOLE_CORS_ALLOW_ORIGINS": site.public_url,
        "WEB_API_CORS_ALLOW_ORIGINS": site.public_url,
        "PGVECTOR_MAX_CONNECTION": "5",
        "CHECK_UPDATE_URL": "",
        "MARKETPLACE_ENABLED": "false",
        "CREATORS_PLATFORM_FEATURES_ENABLED": "false",
        "SCARF_NO_ANALYTICS": "true",
        "SENTRY_DSN": "",
    }
    return own, defaults


def _account(service: Redis | Rabbitmq) -> str:
    """Write user and password as a URL has them."""
    return f"{quote(service.user, safe='')}:{quote(service.password, safe='')}"


def _libpq(database: Postgresql) -> Environment:
    """What every client of PostgreSQL in the image follows, pgvector's pool too, which takes no such settings of Dify."""
    own = {"PGSSLMODE": database.sslmode}
    if database.sslmode.startswith("verify"):
        own["PGSSLROOTCERT"] = database.authority
    return {**own, "PGHOSTADDR": database.address} if database.address else own


def _api(site: Site, process: Process) -> _Pair:
    own, defaults = _core(site, process)
    listen = {"DIFY_BIND_ADDRESS": process.address, "DIFY_PORT": str(process.port)}
    # One process a container: HAProxy spreads requests better than processes that share a socket.
    limits = {"SERVER_WORKER_AMOUNT": "1", "SERVER_WORKER_CONNECTIONS": str(process.connections)}
    return {**own, **listen, **limits}, {**defaults, "SERVER_WORKER_CLASS": "gevent", "GUNICORN_TIMEOUT": "360"}


def _websocket(site: Site, process: Process) -> _Pair:
    own, defaults = _api(site, process)
    return own, {**defaults, "SERVER_WORKER_CLASS": "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"}


def _web(site: Site, process: Process) -> _Pair:
    own = {
        "CONSOLE_API_URL": site.public_url,
        "APP_API_URL": site.public_url,
        "CONSOLE_WEB_URL": site.public_url,
        "SERVER_CONSOLE_API_URL": site.internal_url,
        "NEXT_PUBLIC_SOCKET_URL": site.public_url.replace("http", "ws", 1),
        "HOSTNAME": process.address,
        "PORT": str(process.port),
    }
    defaults = {
        "DEPLOY_ENV": "PRODUCTION",
        "EDITION": "SELF_HOSTED",
        "MARKETPLACE_ENABLED": "false",
        "MARKETPLACE_API_URL": "",
        "MARKETPLACE_URL": "",
        "NEXT_TELEMETRY_DISABLED": "1",
        "CREATORS_PLATFORM_FEATURES_ENABLED": "false",
        "SENTRY_DSN": "",
        "AMPLITUDE_API_KEY": "",
        "COOKIEYES_SITE_KEY": "",
        "ENABLE_WEBSITE_JINAREADER": "false",
        "ENABLE_WEBSITE_FIRECRAWL": "false",
        "ENABLE_WEBSITE_WATERCRAWL": "false",
    }
    return own, defaults


def _plugin_daemon(site: Site, process: Process) -> _Pair:
    database, cache = site.plugin_postgresql, site.redis
    own = {
        "SERVER_PORT": str(process.port),
        "SERVER_KEY": site.secrets.plugin_daemon_key,
        "DIFY_INNER_API_URL": site.internal_url,
        "DIFY_INNER_API_KEY": site.secrets.inner_api_key,
        # Not `pgbouncer`, and not the api's database.
        "DB_TYPE": "postgresql",
        "DB_HOST": database.address or database.host,
        "DB_PORT": str(database.port),
        "DB_USERNAME": database.user,
        "DB_PASSWORD": database.password,
        "DB_DATABASE": database.database,
        "DB_DEFAULT_DATABASE": "postgres",
        # It knows no more than this: encrypted, without a look at the certificate. It talks to this host's own proxy.
        "DB_SSL_MODE": "disable" if database.sslmode == "disable" else "require",
        "DB_MAX_OPEN_CONNS": str(process.pool_size + process.max_overflow),
        "DB_MAX_IDLE_CONNS": str(process.pool_size),
        "REDIS_HOST": cache.host,
        "REDIS_PORT": str(cache.port),
        "REDIS_USERNAME": cache.user,
        "REDIS_PASSWORD": cache.password,
        "REDIS_DB": str(cache.database),
        # Elsewhere than on the host's disk: whichever host is active next finds every plugin.
        "PLUGIN_STORAGE_TYPE": "aws_s3",
        "PLUGIN_STORAGE_OSS_BUCKET": site.s3.plugin_bucket,
        "S3_USE_AWS": "false",
        "S3_USE_AWS_MANAGED_IAM": "false",
        "S3_ENDPOINT": site.s3.endpoint,
        "S3_USE_PATH_STYLE": text(site.s3.addressing == "path"),
        "AWS_ACCESS_KEY": site.s3.access_key,
        "AWS_SECRET_KEY": site.s3.secret_key,
        "AWS_REGION": site.s3.region,
        "PLUGIN_WORKING_PATH": "/app/storage/cwd",
        "HTTP_PROXY": site.proxy_url,
        "HTTPS_PROXY": site.proxy_url,
        "NO_PROXY": "127.0.0.1,localhost",
        **({"PIP_MIRROR_URL": site.pip_mirror_url} if site.pip_mirror_url else {}),
    }
    defaults = {
        "MAX_PLUGIN_PACKAGE_SIZE": "52428800",
        "PLUGIN_INSTALLED_PATH": "plugin",
        "PLUGIN_PACKAGE_CACHE_PATH": "plugin_packages",
        "PLUGIN_MEDIA_CACHE_PATH": "assets",
        "PLUGIN_MAX_EXECUTION_TIMEOUT": "600",
        "PYTHON_ENV_INIT_TIMEOUT": "120",
        "PLUGIN_STDIO_BUFFER_SIZE": "1024",
        "PLUGIN_STDIO_MAX_BUFFER_SIZE": "5242880",
        # A port for developers, on every address.
        "PLUGIN_REMOTE_INSTALLING_ENABLED": "false",
        "FORCE_VERIFYING_SIGNATURE": "true",
        "PPROF_ENABLED": "false",
        "SENTRY_ENABLED": "false",
    }
    return own, defaults


def _sandbox(site: Site, process: Process) -> _Pair:
    own = {
        "API_KEY": site.secrets.sandbox_key,
        "SANDBOX_PORT": str(process.port),
        "HTTP_PROXY": site.sandbox_proxy_url,
        "HTTPS_PROXY": site.sandbox_proxy_url,
        **({"PIP_MIRROR_URL": site.pip_mirror_url} if site.pip_mirror_url else {}),
    }
    return own, {"GIN_MODE": "release", "WORKER_TIMEOUT": "15", "ENABLE_NETWORK": "true"}


_SERVICES = {
    "api": _api,
    "websocket": _websocket,
    "worker": _core,
    "beat": _core,
    "migration": _core,
    "web": _web,
    "plugin_daemon": _plugin_daemon,
    "sandbox": _sandbox,
}


@dataclass(frozen=True)
class WorkerPool:
    """Worker processes that consume some queues.

    Attributes:
        name: Name, part of its units' names.
        queues: Queues.
        concurrency: Tasks of one process at once.
        processes: Processes on each host.
        pool_size: Connections to PostgreSQL that each keeps.
        max_overflow: Connections to PostgreSQL that each may open beyond.
        memory_mb: Memory of each, in megabytes, above which it is killed.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    processes: int = 1
    pool_size: int = 5
    max_overflow: int = 5
    memory_mb: int = 1024


def check_pools(pools: Iterable[WorkerPool], queues: Iterable[str]) -> list[str]:
    """Tell what is wrong with worker pools: every queue of a default worker is consumed by exactly one of them.

    Args:
        pools: The pools.
        queues: Queues that a default worker of the release consumes.

    Returns:
        Faults, each with what to do.
    """
    pools, queues = list(pools), list(queues)
    faults = []
    consumers: dict[str, list[str]] = {}
    for pool in pools:
        if not pool.name.replace("_", "").isalnum() or not pool.name.islower():
            faults.append(f"pool {pool.name!r}: a name has lower-case letters, digits and underscores.")
        faults += [f"pool {pool.name}: {key} is at least 1." for key in ("concurrency", "processes", "pool_size") if getattr(pool, key) < 1]
        if not pool.queues:
            faults.append(f"pool {pool.name}: it has no queues; give it some, or remove it.")
        for queue in pool.queues:
            consumers.setdefault(queue, []).append(pool.name)
    if len({pool.name for pool in pools}) < len(pools):
        faults.append("two pools have the same name.")
    faults += [f"pool {names[0]}: {queue}: {_unknown('queue', queue, queues)}" for queue, names in consumers.items() if queue not in queues]
    faults += [f"queue {queue}: pools {' and '.join(names)} consume it; keep it in one." for queue, names in consumers.items() if len(names) > 1]
    if missing := [queue for queue in queues if queue not in consumers]:
        faults.append(f"nobody consumes {', '.join(missing)}; put each into a pool, or its tasks wait for ever.")
    return faults


def beat_command(log_level: str = "INFO") -> list[str]:
    """Give the command of beat, in place of the image's own, which keeps its schedule beside its code.

    Args:
        log_level: Level of its log.
    """
    return ["celery", "-A", "app.celery", "beat", f"--loglevel={log_level}", "--schedule=/tmp/celerybeat-schedule"]


def worker_command(pool: WorkerPool, name: str, log_level: str = "INFO") -> list[str]:
    """Give the command of a worker, in place of the image's own, which passes no arguments on.

    Args:
        pool: Its pool.
        name: Its name, unlike that of any other worker of the site.
        log_level: Level of its log.
    """
    return [
        *("celery", "-A", "celery_entrypoint.celery", "worker", "--pool=gevent", f"--concurrency={pool.concurrency}"),
        *("--prefetch-multiplier=1", f"--loglevel={log_level}", f"--queues={','.join(pool.queues)}", f"--hostname={name}"),
        # Workers need not know of each other; what they would ask each other before they take up work again could wait for one whose broker hangs.
        *("--without-gossip", "--without-mingle"),
        # A queue of its own, by whose consumer dify_workers.py sees that it still has its others.
        "worker.direct=true",
        # After a lost connection it would ask for one task at a time, and on quorum queues could never ask for more (celery issue 9512): one task in
        # two seconds, whatever its concurrency is.
        "worker.enable_prefetch_count_reduction=false",
        # Without these it asks quorum queues for what they have not, is refused, and tries again for ever.
        *("task.create_missing_queue_type=quorum", "task.default_queue_type=quorum"),
    ]
