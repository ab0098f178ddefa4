# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan, or what is declared, with all that is to be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.advice import Step, steps_of_plan, steps_of_settings
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import CORE_SHARE, POSTGRESQL_CPU_MS
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.planner import plan
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.prediction import (
    RESOURCES,
    Prediction,
    predict,
    refusals,
    spell,
    terms,
    total,
)
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.reading import CapacityError
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Host, Settings, Wanted


def report(hosts: Sequence[Host], wanted: Wanted, declared: Settings | None = None) -> dict[str, Any]:
    """Plan, or check what is declared, and say all about it.

    Args:
        hosts: The hosts.
        wanted: What is wanted.
        declared: Settings to check; None to plan some.

    Returns:
        As the filter ``capacity_plan`` documents it.

    Raises:
        CapacityError: the settings are not safe, or nothing can be planned.
    """
    settings = declared or plan(hosts, wanted)
    mistakes = refusals(hosts, wanted, settings)
    if mistakes:
        raise CapacityError(mistakes)
    seen = predict(hosts, wanted, settings)
    enough = seen.enough(wanted)
    steps: list[Step] = []
    if not enough:
        steps = steps_of_settings(hosts, wanted, declared) if declared else steps_of_plan(hosts, wanted)
    limit, ceiling = (next(iter(seen.limits)), seen.streams) if declared else _ceiling(hosts, wanted)
    return {
        "settings": asdict(settings),
        "supports": {
            "streams": seen.streams,
            "requests_per_second": round(seen.requests_per_second, 1),
            "workflows_per_second": round(seen.workflows_per_second, 1),
        },
        "enough": enough,
        "limits": seen.limits,
        "first_limit": limit,
        "ceiling": ceiling,
        "steps": [{"text": step.text, "path": step.path, "value": _plain(step.value)} for step in steps],
        "connections": {"terms": [{**asdict(one), "connections": one.connections} for one in seen.connections], "sum": spell(seen.connections)},
        "pooler": _pooler(settings, wanted),
        "hosts": [_host_row(host, settings) for host in hosts],
        "postgresql_cores": round(seen.requests_per_second * POSTGRESQL_CPU_MS / 1000 / CORE_SHARE, 1),
        "table": _table(settings, wanted, seen, limit, ceiling, steps),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any setting
    return [asdict(host) for host in value] if isinstance(value, list) else value


def _ceiling(hosts: Sequence[Host], wanted: Wanted) -> tuple[str, int]:
    """Give the limit that a plan for ever more streams on these hosts meets first, and the streams it then carries."""
    greedy = replace(wanted, streams=sum(host.memory_mb for host in hosts))
    seen = predict(hosts, wanted, plan(hosts, greedy))
    known = {name: seen.limits[name] for name in RESOURCES if name != "max_connections" or wanted.max_connections is not None}
    return min(known, key=lambda name: known[name]), seen.streams


def _pooler(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """Say whether a transaction pooler stands before PostgreSQL, how many server connections it has, or would need, and why."""
    needed = total(term for term in terms(settings, wanted) if term.what != "administration")
    reason = (
        f"none: a stream pins its server connection until it ends, so that a transaction pooler would need {needed} of them as PostgreSQL does "
        "without it; with fewer all streams hang (measured: 2 api processes, 60 server connections, 50 clients: no answer at all)"
    )
    if settings.pooler_size is not None:
        reason = f"{settings.pooler_size} server connections, as many as streams ({wanted.k} each) and everything else may pin"
    return {"size": settings.pooler_size, "needed_if_there_was_one": needed, "reason": reason}


def _host_row(host: Host, settings: Settings) -> dict[str, Any]:
    api = settings.api
    count = api.processes.get(host.name, 0)
    return {
        "host": host.name,
        "cores": host.cores,
        "api": count,
        "streams": count * max(0, api.connections - api.spare_connections),
        "workers": sum(worker.processes.get(host.name, 0) * worker.copies for worker in settings.workers.values()),
        "needs_mb": settings.megabytes(host),
        "has_mb": host.memory_mb,
    }


def _table(settings: Settings, wanted: Wanted, seen: Prediction, limit: str, ceiling: int, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Lay the plan out as rows of ``what``, ``value`` and ``why``."""
    api = settings.api
    rows: list[tuple[str, Any, str]] = [
        ("streams", seen.streams, f"wanted {wanted.streams}; {seen.requests_per_second:.1f} chat requests a second"),
        ("workflows a second", f"{seen.workflows_per_second:.1f}", f"wanted {wanted.workflows_per_second:g}"),
        ("first limit", limit, f"at {ceiling} streams"),
        ("api processes", api.count, ", ".join(f"{name} {count}" for name, count in api.processes.items())),
        ("api connections", api.connections, f"a process, {api.spare_connections} of them spare"),
        ("api pool", f"{api.pool_size}+{api.max_overflow}", f"a process; {wanted.k} a stream"),
    ]
    for name, worker in settings.workers.items():
        why = f"{worker.celery_pool}, {worker.concurrency} tasks each, pool {worker.pool_size}+{worker.max_overflow}"
        rows.append((f"workers {name}", sum(worker.processes.values()), why))
    rows.append(("max_connections", settings.max_connections, spell(seen.connections)))
    rows.append(("pooler", settings.pooler_size or "none", "streams pin their connections"))
    rows += [("to reach it", number, step.text) for number, step in enumerate(steps, start=1)]
    return [dict(zip(("what", "value", "why"), row, strict=True)) for row in rows]
