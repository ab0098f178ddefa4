# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts, what is wanted of Dify on them, and its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import (
    ADMINISTRATION,
    API_PROCESS_MB,
    BEAT_POOL,
    CHUNK_CPU_MS,
    CORE_SHARE,
    GEVENT_OVERFLOW,
    GEVENT_POOL,
    INDEXING_CONNECTIONS,
    INDEXING_QUEUES,
    MASTER_MB,
    NAMED_STREAM_CONNECTIONS,
    NAMING_CPU_MS,
    OVERHEAD_S,
    PLUGIN_DAEMON_CONNECTIONS,
    QUEUES,
    REQUEST_CPU_MS,
    RESERVED_MB,
    RETRIEVAL_CONNECTIONS,
    SEARCHING_QUEUES,
    STREAM_CONNECTIONS,
    TASK_CONCURRENCY,
    WORKER_PROCESS_MB,
    WORKFLOW_API_CPU_MS,
)
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import (
    CapacityError,
    Mistakes,
    choice,
    flag,
    name,
    number,
    part,
    parts,
    read,
    whole,
    words,
)


@dataclass(frozen=True)
class Host:
    """A host for api processes, workers, or both, which then share its memory and cores.

    Attributes:
        name: Its name.
        cores: Its cores.
        memory_mb: Its memory in MB.
        runs: ``api``, ``worker`` or both.
        reserved_cores: Cores for anything else on it.
        reserved_mb: Memory in MB for anything else on it.
    """

    name: str = field(metadata=name())
    cores: float = field(metadata=number(0, above=True))
    memory_mb: int = field(metadata=whole(1))
    runs: tuple[str, ...] = field(metadata=words("api", "worker"))
    reserved_cores: float = field(default=0.0, metadata=number(0))
    reserved_mb: int = field(default=RESERVED_MB, metadata=whole(0))

    @property
    def usable_cores(self) -> float:
        """Cores that are not reserved."""
        return max(0.0, self.cores - self.reserved_cores)


@dataclass(frozen=True)
class Wanted:
    """What Dify shall carry, and what the site gives it.

    Attributes:
        streams: Chat answers that are written at the same time.
        answer_seconds: Seconds from the first to the last chunk of an answer.
        answer_chunks: Chunks of an answer; about its tokens.
        naming: Whether new conversations are given a name, by a second call of a model.
        workflows_per_second: Streaming workflows that begin in a second.
        workflow_seconds: Seconds that one takes.
        max_connections: What PostgreSQL admits; None to be told what it needs.
        administration: Connections to PostgreSQL for anybody but Dify.
        plugin_daemon_connections: Those of the plugin daemon.
        knowledge_bases: Those that an answer or a workflow searches at a time, with their vectors in the same PostgreSQL; 0 where there are none, or
            vectors are kept elsewhere.
        websocket: Whether each api host has an api_websocket process.
    """

    streams: int = field(metadata=whole(1))
    answer_seconds: float = field(metadata=number(0, above=True))
    answer_chunks: int = field(metadata=whole(1))
    naming: bool = field(default=True, metadata=flag())
    workflows_per_second: float = field(default=0.0, metadata=number(0))
    workflow_seconds: float = field(default=0.0, metadata=number(0))
    max_connections: int | None = field(default=None, metadata=whole(1, optional=True))
    administration: int = field(default=ADMINISTRATION, metadata=whole(0))
    plugin_daemon_connections: int = field(default=PLUGIN_DAEMON_CONNECTIONS, metadata=whole(1))
    knowledge_bases: int = field(default=1, metadata=whole(0))
    websocket: bool = field(default=True, metadata=flag())

    @property
    def k(self) -> int:
        """PostgreSQL connections of a stream at its peak."""
        return NAMED_STREAM_CONNECTIONS if self.naming else STREAM_CONNECTIONS

    @property
    def search_connections(self) -> int:
        """Connections to pgvector of an answer or a workflow while it searches."""
        return self.knowledge_bases * RETRIEVAL_CONNECTIONS

    @property
    def request_cpu_ms(self) -> float:
        """CPU of the api for one chat request, in ms."""
        return REQUEST_CPU_MS + CHUNK_CPU_MS * self.answer_chunks + (NAMING_CPU_MS if self.naming else 0)

    @property
    def streams_per_core(self) -> float:
        """Streams that one core of the api keeps up with; one at least, however short."""
        return max(1.0, CORE_SHARE * 1000 / self.request_cpu_ms * self.answer_seconds)

    @property
    def workflow_streams(self) -> int:
        """Streams that the api could carry instead of the workflows that it hands on: each takes a connection of it, and CPU."""
        held = self.workflows_per_second * (self.workflow_seconds + OVERHEAD_S)
        cpu = self.workflows_per_second * WORKFLOW_API_CPU_MS / self.request_cpu_ms * self.answer_seconds
        return math.ceil(max(held, cpu))


@dataclass(frozen=True)
class Service:
    """Processes with a SQLAlchemy pool each.

    Attributes:
        processes: How many, by host.
        pool_size: ``SQLALCHEMY_POOL_SIZE``.
        max_overflow: ``SQLALCHEMY_MAX_OVERFLOW``.
    """

    memory_mb: ClassVar[int] = API_PROCESS_MB
    master_mb: ClassVar[int] = MASTER_MB

    processes: dict[str, int] = field(metadata=parts(whole(0)))
    pool_size: int = field(metadata=whole(0))
    max_overflow: int = field(metadata=whole(-1))

    @property
    def count(self) -> int:
        """All processes with a pool."""
        return sum(self.processes.values()) * self.copies

    @property
    def copies(self) -> int:
        """Processes with a pool that are meant by one."""
        return 1

    @property
    def each(self) -> int:
        """PostgreSQL connections that one process may have."""
        return self.pool_size + self.max_overflow

    def vectors(self, wanted: Wanted) -> int:
        """PostgreSQL connections to pgvector that one process may have beside its pool, with what is wanted."""
        return 0

    @property
    def unbounded(self) -> bool:
        """Whether SQLAlchemy reads the numbers as no limit at all."""
        return self.pool_size == 0 or self.max_overflow == -1

    def megabytes(self, host: str) -> int:
        """Memory of the processes on a host, in MB."""
        count = self.processes.get(host, 0)
        return self.master_mb + count * self.copies * self.memory_mb if count else 0


@dataclass(frozen=True)
class Api(Service):
    """The api's processes.

    Attributes:
        connections: ``SERVER_WORKER_CONNECTIONS``: requests that a process takes at a time.
        spare_connections: Those of them that the host's proxy leaves to ``/health`` and short requests.
    """

    connections: int = field(default=10, metadata=whole(1))
    spare_connections: int = field(default=0, metadata=whole(0))

    def vectors(self, wanted: Wanted) -> int:
        """PostgreSQL connections to pgvector that one process may have beside its pool: all its requests may search at once."""
        return self.connections * wanted.search_connections


@dataclass(frozen=True)
class Worker(Service):
    """A pool of Celery workers.

    Attributes:
        concurrency: Tasks at a time in each: greenlets, or with ``prefork`` processes.
        celery_pool: ``gevent`` (one process each, and SQLAlchemy's default pool whatever is set) or ``prefork``.
        queues: What they consume; none means all, as in Dify.
    """

    memory_mb: ClassVar[int] = WORKER_PROCESS_MB
    master_mb: ClassVar[int] = 0

    concurrency: int = field(default=TASK_CONCURRENCY, metadata=whole(1))
    celery_pool: str = field(default="gevent", metadata=choice("gevent", "prefork"))
    queues: tuple[str, ...] = field(default=(), metadata=words())

    @property
    def copies(self) -> int:
        """Processes with a pool that are meant by one."""
        return self.concurrency if self.celery_pool == "prefork" else 1

    @property
    def each(self) -> int:
        """PostgreSQL connections that one process may have; under gevent the larger of what is set and what is taken when that is ignored."""
        if self.celery_pool == "prefork":
            return self.pool_size + self.max_overflow
        return max(self.pool_size, GEVENT_POOL) + max(self.max_overflow, GEVENT_OVERFLOW)

    def vectors(self, wanted: Wanted) -> int:
        """PostgreSQL connections to pgvector that one process may have beside its pool: of its tasks, some index and the others search."""
        if not wanted.knowledge_bases:
            return 0
        tasks = self.concurrency // self.copies
        indexing = tasks if not self.queues or INDEXING_QUEUES & {*self.queues} else 0
        each = wanted.search_connections if not self.queues or SEARCHING_QUEUES & {*self.queues} else 0
        return max(min(count * INDEXING_CONNECTIONS, self.each) + (tasks - count) * each for count in range(indexing + 1))


@dataclass(frozen=True)
class Beat:
    """The one beat, on any host with workers.

    Attributes:
        pool_size: ``SQLALCHEMY_POOL_SIZE``.
        max_overflow: ``SQLALCHEMY_MAX_OVERFLOW``.
    """

    pool_size: int = field(default=BEAT_POOL, metadata=whole(1))
    max_overflow: int = field(default=BEAT_POOL, metadata=whole(0))


@dataclass(frozen=True)
class Settings:
    """Dify's settings in one site, as a plan has them or as somebody declares them.

    Attributes:
        api: The api.
        max_connections: What PostgreSQL admits.
        workers: Pools of workers by name.
        api_websocket: The api's processes for collaboration.
        beat: Beat.
        plugin_daemon_connections: PostgreSQL connections of the plugin daemon.
        administration: PostgreSQL connections for anybody but Dify.
        pooler_size: Server connections of a transaction pooler in between; None without one.
    """

    api: Api = field(metadata=part(Api))
    max_connections: int = field(metadata=whole(1))
    workers: dict[str, Worker] = field(default_factory=dict, metadata=parts(part(Worker)))
    api_websocket: Service | None = field(default=None, metadata=part(Service, optional=True))
    beat: Beat | None = field(default=None, metadata=part(Beat, optional=True))
    plugin_daemon_connections: int = field(default=PLUGIN_DAEMON_CONNECTIONS, metadata=whole(0))
    administration: int = field(default=ADMINISTRATION, metadata=whole(0))
    pooler_size: int | None = field(default=None, metadata=whole(1, optional=True))

    @property
    def services(self) -> dict[str, Service]:
        """Everything with processes on hosts, by name."""
        found: dict[str, Service] = {"api": self.api}
        if self.api_websocket:
            found["api_websocket"] = self.api_websocket
        return {**found, **{f"workers {name}": worker for name, worker in self.workers.items()}}

    @property
    def workflow_workers(self) -> list[Worker]:
        """Pools that run streaming workflows; one without queues of its own consumes all."""
        return [worker for worker in self.workers.values() if not worker.queues or set(worker.queues) & set(QUEUES["workflow"])]

    @property
    def workflow_processes(self) -> dict[str, int]:
        """Their processes, by host."""
        found: dict[str, int] = {}
        for worker in self.workflow_workers:
            for host, count in worker.processes.items():
                found[host] = found.get(host, 0) + count * worker.copies
        return found

    def megabytes(self, host: Host) -> int:
        """Memory that a host needs, in MB, with beat on each that it may move to."""
        beat = WORKER_PROCESS_MB if self.beat and "worker" in host.runs else 0
        return host.reserved_mb + beat + sum(service.megabytes(host.name) for service in self.services.values())


def hosts_of(data: object) -> list[Host]:
    """Read hosts.

    Raises:
        CapacityError: with every mistake.
    """
    mistakes: Mistakes = []
    if isinstance(data, str) or not isinstance(data, Sequence) or not data:
        raise CapacityError([f"hosts: {data!r} is no list of hosts; give at least one"])
    found = [read(Host, one, f"hosts[{index}]", mistakes) for index, one in enumerate(data)]
    hosts = [host for host in found if host]
    names = [host.name for host in hosts]
    mistakes += [
        f"hosts: {name!r} is there more than once; give each host once, with all that it runs" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if mistakes:
        raise CapacityError(mistakes)
    return hosts
