# SPDX-License-Identifier: GPL-3.0-or-later
"""What settings carry, what PostgreSQL may be asked for, and why settings must be refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import listing, suggest
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import (
    API_PROCESS_MB,
    BACKGROUND_CORES,
    DAEMON_CAP,
    DAEMON_USABLE,
    MASTER_MB,
    OVERHEAD_S,
    WORKFLOW_RATE,
)
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import Mistakes
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Host, Settings, Wanted, Worker


@dataclass(frozen=True)
class Term:
    """A part of what PostgreSQL may be asked for.

    Attributes:
        what: Whose connections.
        processes: How many have them.
        each: Connections of each.
    """

    what: str
    processes: int
    each: int

    @property
    def connections(self) -> int:
        """All of them."""
        return self.processes * self.each


def terms(settings: Settings, wanted: Wanted) -> list[Term]:
    """List what PostgreSQL, or a pooler before it, may be asked for, with the reserve for administration at the end."""
    found = [Term(name, service.count, service.each) for name, service in settings.services.items()]
    if settings.beat:
        found.append(Term("beat", 1, settings.beat.pool_size + settings.beat.max_overflow))
    found.append(Term("plugin_daemon", 1, settings.plugin_daemon_connections))
    found += [Term(f"pgvector of {name}", service.count, service.vectors(wanted)) for name, service in settings.services.items()]
    return [term for term in [*found, Term("administration", 1, settings.administration)] if term.connections]


def total(found: Iterable[Term]) -> int:
    """Add terms up."""
    return sum(term.connections for term in found)


def spell(found: Sequence[Term]) -> str:
    """Write a sum term by term: ``api 2 x 78 = 156 + … = 300``."""
    parts = [
        f"{term.what} {term.processes} x {term.each} = {term.connections}" if term.processes != 1 else f"{term.what} {term.each}" for term in found
    ]
    return f"{' + '.join(parts)} = {total(found)}"


def refusals(hosts: Sequence[Host], wanted: Wanted, settings: Settings) -> Mistakes:
    """Say why settings must not be used: of each reason where it lies, what is wrong, and how to mend it; nothing if they may be."""
    found: Mistakes = []
    api, k = settings.api, wanted.k
    names = [host.name for host in hosts]
    for name, service in settings.services.items():
        where = name.replace("workers ", "workers.")
        kind = "worker" if isinstance(service, Worker) else "api"
        found += [
            f"{where}.processes.{host.name}: {service.processes[host.name]}, but that host does not run {kind!r}; add it to its `runs`, or give 0"
            for host in hosts
            if service.processes.get(host.name) and kind not in host.runs
        ]
        unknown = [host for host in service.processes if host not in names]
        found += [f"{where}.processes: unknown host {host!r}; {suggest(host, names, 'known: ' + listing(names))}" for host in unknown]
        if service.unbounded:
            found.append(
                f"{where}: SQLAlchemy reads pool_size 0 and max_overflow -1 as no limit at all; give a pool_size above 0 and a max_overflow from 0 on"
            )
    if found:
        return found
    if not api.count:
        found.append("api.processes: no host has any; give at least one host a process")
    if api.connections > DAEMON_CAP:
        found.append(
            f"api.connections: {api.connections} requests a process, but Dify opens {DAEMON_CAP} connections to the plugin daemon at most and "
            f"streams beyond wait for each other; give {DAEMON_USABLE} at most, and more processes instead"
        )
    if api.connections * k > api.each:
        found.append(
            f"api: {api.connections} requests a process may need {api.connections} x {k} = {api.connections * k} PostgreSQL connections, and its "
            f"pool has {api.pool_size} + {api.max_overflow} = {api.each}: streams that hold one wait for another for ever; give connections "
            f"{api.each // k} at most, or pool_size and max_overflow of {api.connections * k} together"
        )
    asked = terms(settings, wanted)
    if settings.pooler_size is None:
        if total(asked) > settings.max_connections:
            found.append(
                f"max_connections: PostgreSQL admits {settings.max_connections}, and may be asked for {spell(asked)}; set max_connections to "
                f"{total(asked)} or more, or give fewer processes or smaller pools"
            )
    else:
        needed = min(api.each, k * api.connections) * api.count + total(term for term in asked if term.what not in {"api", "administration"})
        if settings.pooler_size < needed:
            found.append(
                f"pooler_size: {settings.pooler_size} server connections, but streams pin theirs and {needed} may be pinned at a time: it would not "
                f"recover; give {needed}, or better no pooler, which saves nothing here"
            )
        if settings.pooler_size + settings.administration > settings.max_connections:
            found.append(
                f"max_connections: PostgreSQL admits {settings.max_connections}, and may be asked for pooler {settings.pooler_size} + administration "
                f"{settings.administration} = {settings.pooler_size + settings.administration}; raise it to that"
            )
    for host in hosts:
        needed = settings.megabytes(host)
        if needed > host.memory_mb:
            found.append(f"{host.name}: its processes need {needed} MB, and it has {host.memory_mb}; give it fewer processes, or more memory")
    return found


def workflow_load(hosts: Sequence[Host], processes: Mapping[str, int], runs_per_second: float) -> tuple[dict[str, float], float]:
    """Give cores that workflows take by host, and the runs a second that cores and processes keep up with.

    A task goes to whoever is free, so that each host has a share by the cores that its processes can use.
    """
    weights = {host.name: min(float(processes.get(host.name, 0)), host.usable_cores) for host in hosts}
    together = sum(weights.values())
    busy = min(1.0, runs_per_second / WORKFLOW_RATE / together) if together else 0.0
    return {name: busy * weight for name, weight in weights.items()}, together * WORKFLOW_RATE


def api_cores(hosts: Sequence[Host], wanted: Wanted, settings: Settings) -> dict[str, float]:
    """Give cores that are left to the api, by host."""
    load, dummy = workflow_load(hosts, settings.workflow_processes, wanted.workflows_per_second)
    return {host.name: max(0.0, host.usable_cores - load[host.name] - BACKGROUND_CORES * ("worker" in host.runs)) for host in hosts}


@dataclass(frozen=True)
class Prediction:
    """What settings carry.

    Attributes:
        streams: Chat answers at the same time.
        requests_per_second: Chat requests.
        workflows_per_second: Runs of workflows.
        limits: Streams that each limit by itself would allow, the one that comes first in front.
        connections: What PostgreSQL may be asked for.
    """

    streams: int
    requests_per_second: float
    workflows_per_second: float
    limits: dict[str, int]
    connections: list[Term]

    def enough(self, wanted: Wanted) -> bool:
        """Whether that is what is wanted."""
        return self.streams >= wanted.streams and self.workflows_per_second >= wanted.workflows_per_second


RESOURCES = ("max_connections", "memory", "cores", "plugin daemon", "rate x T")
"""Limits that a plan cannot move by choosing other numbers; where several are equal, the first of them is named."""


def predict(hosts: Sequence[Host], wanted: Wanted, settings: Settings) -> Prediction:
    """Say what settings carry, whether they are safe or not.

    Args:
        hosts: The hosts.
        wanted: Of this, how long answers are and how many workflows run beside; not how many streams there shall be.
        settings: The settings.
    """
    api, per_core = settings.api, wanted.streams_per_core
    cores = api_cores(hosts, wanted, settings)
    each = min(max(0, api.connections - api.spare_connections), api.each // wanted.k, math.floor(per_core), DAEMON_USABLE)
    asked = terms(settings, wanted)
    if settings.pooler_size is not None:
        others = total(term for term in asked if term.what not in {"api", "administration"})
        each = min(each, max(0, settings.pooler_size - others) // wanted.k // max(1, api.count))
    carried = sum(min(count * each, math.floor(cores.get(name, 0.0) * per_core)) for name, count in api.processes.items())
    fitting = sum(
        max(0, host.memory_mb - settings.megabytes(host) + api.megabytes(host.name) - MASTER_MB) // API_PROCESS_MB
        for host in hosts
        if "api" in host.runs
    )
    cost = api.each + api.vectors(wanted)
    admitted = max(0, settings.max_connections - total(asked) + api.count * cost) // max(1, cost)
    limits = {
        "max_connections": admitted * each,
        "memory": fitting * each,
        "cores": math.floor(sum(cores[host.name] for host in hosts if "api" in host.runs) * per_core),
        "plugin daemon": api.count * DAEMON_USABLE,
        "rate x T": math.floor(api.count * per_core),
        "pool / k": api.count * (api.each // wanted.k),
        "api slots": api.count * max(0, api.connections - api.spare_connections),
    }
    if settings.pooler_size is not None:
        limits["pooler"] = api.count * (max(0, settings.pooler_size - others) // wanted.k // max(1, api.count))
        del limits["max_connections"]
    rest = wanted.workflow_streams
    streams = max(0, carried - rest)
    at_a_time = sum(sum(worker.processes.values()) * worker.concurrency for worker in settings.workflow_workers)
    runs = min(workflow_load(hosts, settings.workflow_processes, 0)[1], at_a_time / (wanted.workflow_seconds + OVERHEAD_S))
    return Prediction(
        streams=streams,
        requests_per_second=streams / (wanted.answer_seconds + OVERHEAD_S),
        workflows_per_second=runs,
        limits=dict(sorted(((name, max(0, count - rest)) for name, count in limits.items()), key=lambda item: item[1])),
        connections=asked,
    )
