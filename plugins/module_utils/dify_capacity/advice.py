# SPDX-License-Identifier: GPL-3.0-or-later
"""What to add or to change so that a plan, or declared settings, reach what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import listing
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.figures import BACKGROUND_CORES
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.planner import plan, with_api, workflow_pool
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.prediction import predict
from ansible_collections.sovereign.dify.plugins.module_utils.dify_capacity.settings import Api, Host, Settings, Wanted


@dataclass(frozen=True)
class Step:
    """Something to add or to change.

    Attributes:
        text: In words.
        path: ``hosts``, ``max_connections``, or what to set in declared settings, for instance ``api.pool_size``.
        value: The new value; of ``hosts`` those to add.
    """

    text: str
    path: str
    value: Any


NEW_HOST = Host("new", 4, 8192, ("api",))
"""A host to suggest where none that is there would carry anything."""


def _further(hosts: Sequence[Host], kind: str, count: int) -> list[Host]:
    """Give further hosts, each like the largest that runs the same."""
    largest = max((host for host in hosts if kind in host.runs), key=lambda host: (host.usable_cores, host.memory_mb), default=NEW_HOST)
    roomy = largest.usable_cores >= 1 + BACKGROUND_CORES and largest.memory_mb - largest.reserved_mb >= NEW_HOST.memory_mb // 2
    return [replace(largest if roomy else NEW_HOST, name=f"new-{kind}-{number}", runs=(kind,)) for number in range(1, count + 1)]


def _hosts_for(hosts: Sequence[Host], wanted: Wanted, choose: Callable[[Sequence[Host]], Settings]) -> list[Host]:
    """Give the hosts to add, first for the workflows that are wanted, then for the streams.

    Args:
        hosts: Those that there are.
        wanted: What is wanted.
        choose: Chooses settings for hosts.
    """

    def carries(found: Sequence[Host], kind: str) -> bool:
        seen = predict(found, wanted, choose(found))
        return seen.streams >= wanted.streams if kind == "api" else seen.workflows_per_second >= wanted.workflows_per_second

    found = list(hosts)
    for kind in ("worker", "api"):
        if carries(found, kind):
            continue
        low, high = 0, 1
        while not carries([*found, *_further(hosts, kind, high)], kind):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if carries([*found, *_further(hosts, kind, middle)], kind) else (middle, high)
        found += _further(hosts, kind, high)
    return found[len(hosts) :]


def _host_steps(added: Sequence[Host]) -> list[Step]:
    steps = []
    for kind in ("worker", "api"):
        like = [host for host in added if kind in host.runs]
        if like:
            one = like[0]
            text = f"add {len(like)} host{'s' if len(like) > 1 else ''} for {kind} with {one.cores:g} cores and {one.memory_mb} MB"
            steps.append(Step(text + (" each" if len(like) > 1 else ""), "hosts", like))
    return steps


def steps_of_plan(hosts: Sequence[Host], wanted: Wanted) -> list[Step]:
    """Say what to add so that a plan reaches what is wanted; all of it together does."""
    unbounded = replace(wanted, max_connections=None)
    added = _hosts_for(hosts, unbounded, lambda found: plan(found, unbounded))
    steps = _host_steps(added)
    needed = plan([*hosts, *added], unbounded).max_connections
    if wanted.max_connections is not None and needed > wanted.max_connections:
        steps.append(Step(f"raise PostgreSQL's max_connections from {wanted.max_connections} to {needed}", "max_connections", needed))
    return steps


def steps_of_settings(hosts: Sequence[Host], wanted: Wanted, settings: Settings) -> list[Step]:
    """Say what to change in declared settings, and what to add, so that they reach what is wanted; all of it together does."""
    unbounded = replace(wanted, max_connections=None)
    short = predict(hosts, wanted, settings).workflows_per_second < wanted.workflows_per_second

    def better(found: Sequence[Host]) -> Settings:
        websocket = settings.api_websocket
        if websocket:
            new = {host.name: 1 for host in found if host not in hosts and "api" in host.runs}
            websocket = replace(websocket, processes={**websocket.processes, **new})
        frame = replace(settings, api=Api({}, 1, 0), api_websocket=websocket, pooler_size=None)
        if short:
            workers = {name: worker for name, worker in settings.workers.items() if name != "workflow"}
            pool = workflow_pool(found, unbounded, replace(frame, workers=workers))
            frame = replace(frame, workers={**workers, "workflow": pool})
        return with_api(found, unbounded, frame)

    added = _hosts_for(hosts, unbounded, better)
    target = better([*hosts, *added])
    if target.max_connections < settings.max_connections:
        target = replace(target, max_connections=settings.max_connections)
    return [*_host_steps(added), *_differences("", asdict(settings), asdict(target))]


def _differences(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Step]:
    steps = []
    for name, value in new.items():
        at = f"{path}{name}"
        if old.get(name) == value:
            continue
        if isinstance(value, dict) and isinstance(old.get(name), Mapping) and name != "processes":
            steps += _differences(f"{at}.", old[name], value)
        else:
            steps.append(Step(f"set {at} to {_short(value)} (it is {_short(old.get(name))})", at, value))
    return steps


def _short(value: Any) -> str:  # noqa: ANN401 - any setting
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    return "none" if value is None else listing(value) if isinstance(value, tuple) else str(value)
