# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses settings for what is wanted, or for as much of it as hosts and PostgreSQL allow."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import listing
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import (
    API_PROCESS_MB,
    DAEMON_USABLE,
    GEVENT_OVERFLOW,
    GEVENT_POOL,
    MASTER_MB,
    OVERHEAD_S,
    QUEUES,
    SPARE_CONNECTIONS,
    STREAM_CONNECTIONS,
    TASK_CONCURRENCY,
    WEBSOCKET_POOL,
    WORKER_PROCESS_MB,
    WORKFLOW_CONCURRENCY,
    WORKFLOW_PROCESSES,
    WORKFLOW_RATE,
)
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.prediction import api_cores, spell, terms, total, workflow_load
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import CapacityError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Api, Beat, Host, Service, Settings, Wanted, Worker


def workflow_pool(hosts: Sequence[Host], wanted: Wanted, frame: Settings) -> Worker:
    """Choose the pool for streaming workflows, beside everything else and a first api process: the same on each host, or what has room there."""
    room = {}
    for host in hosts:
        if "worker" in host.runs:
            api = MASTER_MB + API_PROCESS_MB if "api" in host.runs else 0
            room[host.name] = max(0, host.memory_mb - frame.megabytes(host) - api) // WORKER_PROCESS_MB
    needed = max(
        WORKFLOW_PROCESSES,
        math.ceil(wanted.workflows_per_second / WORKFLOW_RATE),
        math.ceil(wanted.workflows_per_second * (wanted.workflow_seconds + OVERHEAD_S) / WORKFLOW_CONCURRENCY),
    )
    processes = dict.fromkeys(room, 0)
    for most in range(1, max(room.values(), default=0) + 1):
        processes = {name: min(most, fitting) for name, fitting in room.items()}
        if sum(processes.values()) >= needed and workflow_load(hosts, processes, 0)[1] >= wanted.workflows_per_second:
            break
    together = wanted.workflows_per_second * (wanted.workflow_seconds + OVERHEAD_S) / max(1, sum(processes.values()))
    concurrency = min(WORKFLOW_CONCURRENCY, max(TASK_CONCURRENCY, math.ceil(together)))
    return _worker("workflow", processes, concurrency)


def _worker(name: str, processes: dict[str, int], concurrency: int = TASK_CONCURRENCY) -> Worker:
    return Worker(processes, GEVENT_POOL, GEVENT_OVERFLOW, concurrency, queues=QUEUES[name])


def _least_mb(host: Host, wanted: Wanted) -> int:
    """Memory that a host needs for one process of everything that it runs, in MB."""
    api = MASTER_MB + API_PROCESS_MB
    least = host.reserved_mb + (api * (2 if wanted.websocket else 1) if "api" in host.runs else 0)
    # Beat beside the pools: it may move to any of them.
    return least + ((len(QUEUES) + 1) * WORKER_PROCESS_MB if "worker" in host.runs else 0)


def _frame(hosts: Sequence[Host], wanted: Wanted) -> Settings:
    """Choose everything but the api.

    Raises:
        CapacityError: a host has no room for one process of what it runs, or nobody runs something.
    """
    mistakes = [
        f"hosts: none runs {kind!r}; add it to the `runs` of one" for kind in ("api", "worker") if not any(kind in host.runs for host in hosts)
    ]
    for host in hosts:
        least = _least_mb(host, wanted)
        if host.memory_mb < least:
            mistakes.append(
                f"{host.name}: one process of everything that it runs ({listing(host.runs)}) needs {least} MB, {host.reserved_mb} reserved among "
                f"them, and it has {host.memory_mb}; give it that, or have it run less"
            )
    if mistakes:
        raise CapacityError(mistakes)
    one_each = {host.name: 1 for host in hosts if "worker" in host.runs}
    frame = Settings(
        api=Api({}, 1, 0),
        max_connections=wanted.max_connections or 1,
        workers={name: _worker(name, dict(one_each)) for name in QUEUES if name != "workflow"},
        api_websocket=Service({host.name: 1 for host in hosts if "api" in host.runs}, WEBSOCKET_POOL, WEBSOCKET_POOL) if wanted.websocket else None,
        beat=Beat(),
        plugin_daemon_connections=wanted.plugin_daemon_connections,
        administration=wanted.administration,
    )
    return replace(frame, workers={"workflow": workflow_pool(hosts, wanted, frame), **frame.workers})


def _spread(room: Mapping[str, int], most: Mapping[str, int], each: int, target: int, processes: int) -> dict[str, int]:
    """Place api processes, each where it carries most: one on every host, then more until the target is reached or nothing is gained.

    Args:
        room: Processes that a host has memory for.
        most: Streams that a host has cores for.
        each: Streams of a process.
        target: Streams wanted.
        processes: Processes that may be placed.
    """
    placed = {name: 1 for name, fitting in room.items() if fitting}
    carried = sum(min(each, most[name]) for name in placed)

    def next_of(name: str) -> tuple[int, float, str]:
        count = placed[name]
        gain = min((count + 1) * each, most[name]) - min(count * each, most[name])
        # Of equal ones, the host with more cores for each of its processes.
        return -gain, (count + 1) / max(1, most[name]), name

    queue = [next_of(name) for name in placed if room[name] > 1]
    heapq.heapify(queue)
    while queue and carried < target and sum(placed.values()) < processes:
        gain, dummy, name = heapq.heappop(queue)
        if not gain:
            break
        placed[name] += 1
        carried -= gain
        if placed[name] < room[name]:
            heapq.heappush(queue, next_of(name))
    return placed


def with_api(hosts: Sequence[Host], wanted: Wanted, frame: Settings) -> Settings:
    """Choose the api beside everything else: what carries most of what is wanted, with the fewest processes and the smallest pools.

    Raises:
        CapacityError: PostgreSQL does not admit even one stream on each host.
    """
    serving = [host for host in hosts if "api" in host.runs]
    cores = api_cores(hosts, wanted, frame)
    most = {host.name: math.floor(cores[host.name] * wanted.streams_per_core) for host in serving}
    room = {host.name: max(0, host.memory_mb - frame.megabytes(host) - MASTER_MB) // API_PROCESS_MB for host in serving}
    target = wanted.streams + wanted.workflow_streams
    others = total(terms(frame, wanted))
    best: tuple[tuple[int, int, int], Api] | None = None
    for each in range(1, min(DAEMON_USABLE, math.floor(wanted.streams_per_core)) + 1):
        connections = each + SPARE_CONNECTIONS
        cost = connections * (wanted.k + wanted.search_connections)
        admitted = (wanted.max_connections - others) // cost if wanted.max_connections else sum(room.values())
        if admitted < sum(fitting > 0 for fitting in room.values()):
            break
        processes = _spread(room, most, each, target, admitted)
        count = sum(processes.values())
        carried = sum(min(number * each, most[name]) for name, number in processes.items())
        rank = (min(carried, target), -count, -each)
        if best is None or rank > best[0]:
            # Two connections are a stream's own; the third, for a name, comes and goes.
            overflow = (wanted.k - STREAM_CONNECTIONS) * connections
            pool = STREAM_CONNECTIONS * connections
            best = rank, Api(processes, pool, overflow, connections, SPARE_CONNECTIONS)
    if best is None:
        least = replace(frame, api=Api(dict.fromkeys(room, 1), (1 + SPARE_CONNECTIONS) * wanted.k, 0, 1 + SPARE_CONNECTIONS))
        raise CapacityError(
            [
                f"max_connections: PostgreSQL admits {wanted.max_connections}, and with a single stream for each api process may be asked for "
                f"{spell(terms(least, wanted))}; set max_connections to {total(terms(least, wanted))} or more"
            ]
        )
    settings = replace(frame, api=best[1])
    return replace(settings, max_connections=wanted.max_connections or total(terms(settings, wanted)))


def plan(hosts: Sequence[Host], wanted: Wanted) -> Settings:
    """Choose settings for what is wanted, or for as much of it as the hosts and PostgreSQL allow.

    Raises:
        CapacityError: not even the least that Dify needs has room.
    """
    return with_api(hosts, wanted, _frame(hosts, wanted))
