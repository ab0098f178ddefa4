# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The containers of Dify on one host: which there are, what each runs, listens at, and is given.

Runs on the controller: the standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.dify_settings import (
    IMAGES,
    Process,
    SettingsError,
    Site,
    WorkerPool,
    beat_command,
    check_pools,
    environment,
    parse,
    release,
    worker_command,
)

PORTS = {"api": 5101, "websocket": 5090, "web": 3000, "plugin_daemon": 5002, "sandbox": 8194}
"""Ports on loopback, or in the sandbox's network; the api's processes have as many from the first on."""

MOST_API_PROCESSES = 64
ADMINISTRATION = 20
SUPERVISED = ("beat", "plugin_daemon")
"""Services that run once in a site: whoever holds the lease starts them."""


@dataclass(frozen=True)
class Service:
    """What each process of a service is given.

    Attributes:
        processes: Processes on each host.
        connections: Requests that each takes at once.
        pool_size: Connections to PostgreSQL that each keeps.
        max_overflow: Connections to PostgreSQL that each may open beyond.
        memory_mb: Memory of each, in megabytes, above which it is killed.
    """

    processes: int = 1
    connections: int = 10
    pool_size: int = 5
    max_overflow: int = 5
    memory_mb: int = 1024

    def process(self, port: int = 0) -> Process:
        """Give what one process is given."""
        return Process(port=port, connections=self.connections, pool_size=self.pool_size, max_overflow=self.max_overflow)


@dataclass(frozen=True)
class Host:
    """What a host runs.

    Attributes:
        name: Its name, unlike any other's of the site.
        services: Services of Dify that it runs; a sandbox and its proxy belong to each host.
        api: The api's processes.
        websocket: The api's process for WebSocket.
        plugin_daemon: The plugin daemon.
        pools: Worker pools.
    """

    name: str
    services: tuple[str, ...]
    api: Service
    websocket: Service
    plugin_daemon: Service
    pools: tuple[WorkerPool, ...]


@dataclass(frozen=True)
class Container:
    """One container.

    Attributes:
        name: Name of its unit, without an ending.
        service: Service of Dify.
        image: Image, by digest or checksum.
        environment: Its environment.
        command: Command in place of the image's own; empty for that.
        port: Port that it listens at; 0 for none.
        health: Path that answers when it works; empty for none.
        places: Requests of users that it is given at once; some that it could take are left for checks and for what Dify asks of itself.
        memory_mb: Memory, in megabytes, above which it is killed.
        supervised: Whether whoever holds the lease starts it, rather than the boot.
        worker: Name by which the broker knows a worker; empty for others.
    """

    name: str
    service: str
    image: str
    environment: dict[str, str]
    command: tuple[str, ...] = ()
    port: int = 0
    health: str = ""
    places: int = 0
    memory_mb: int = 512
    supervised: bool = False
    worker: str = ""


HEALTH = {"api": "/health", "websocket": "/health", "web": "/", "plugin_daemon": "/health/check", "sandbox": "/health"}


def containers(
    site: Mapping[str, Any], host: Mapping[str, Any], images: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """List the containers of a host.

    Args:
        site: As ``Site`` has it.
        host: As ``Host`` has it.
        images: Reference of each image.
        settings: Settings of Dify in place of the defaults, by service; ``common`` is for all that the api's image runs.

    Returns:
        The containers, as ``Container`` has them, in a fixed order.

    Raises:
        SettingsError: With everything that is wrong.
    """
    return [dataclasses.asdict(container) for container in _containers(parse(Site, site, "site"), parse(Host, host, "host"), images, settings)]


def _containers(site: Site, host: Host, images: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]) -> list[Container]:
    faults = [f"dify_settings: {name}: no service; known are common, {', '.join(IMAGES)}." for name in settings if name not in {"common", *IMAGES}]
    faults += check_pools(host.pools, release(site.release).queues)
    if not 1 <= host.api.processes <= MOST_API_PROCESSES:
        faults.append(f"dify_api.processes: a host runs from 1 to {MOST_API_PROCESSES}.")
    plan: list[tuple[str, str, Service, WorkerPool | None]] = []
    for service in ("api", "websocket"):
        given: Service = getattr(host, service)
        # One process for WebSocket on a host: a session's requests have to meet the same one.
        count = given.processes if service == "api" else 1
        plan += [(service, f"dify_api_{number}" if service == "api" else "dify_websocket", given, None) for number in range(1, count + 1)]
    for pool in host.pools:
        given = Service(connections=0, pool_size=pool.pool_size, max_overflow=pool.max_overflow, memory_mb=pool.memory_mb)
        plan += [("worker", f"dify_worker_{pool.name}_{number}", given, pool) for number in range(1, pool.processes + 1)]
    plan.append(("beat", "dify_beat", Service(connections=0, memory_mb=768), None))
    plan.append(("web", "dify_web", Service(connections=0, memory_mb=1024), None))
    plan.append(("plugin_daemon", "dify_plugin_daemon", host.plugin_daemon, None))
    found = []
    used = {"api": 0}
    for service, name, given, own in plan:
        if service not in host.services:
            continue
        port = PORTS.get(service, 0)
        if service == "api":
            port += used["api"]
            used["api"] += 1
        worker = f"{name.removeprefix('dify_worker_')}@{host.name}" if own else ""
        found.append(_container(site, service, name, given, port, images, settings, faults, pool=own, worker=worker))
    sandbox = _container(site, "sandbox", "dify_sandbox", Service(connections=0), PORTS["sandbox"], images, settings, faults)
    proxy = Container("dify_ssrf_proxy", "ssrf_proxy", images["ssrf_proxy"], {}, memory_mb=512)
    # Every host has the migration's environment; one of them runs it.
    migration = _container(site, "migration", "migration", Service(connections=0), 0, images, settings, faults)
    if faults:
        raise SettingsError(dict.fromkeys(faults))
    return [*found, proxy, sandbox, migration]


def _container(
    site: Site,
    service: str,
    name: str,
    given: Service,
    port: int,
    images: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
    faults: list[str],
    *,
    pool: WorkerPool | None = None,
    worker: str = "",
) -> Container:
    overrides = {**(settings.get("common", {}) if IMAGES[service] == "api" else {}), **settings.get(service, {})}
    values: dict[str, str] = {}
    try:
        values = environment(service, site, given.process(port), overrides)
    except SettingsError as error:
        faults += error.faults
    return Container(
        name=name,
        service=service,
        image=images[IMAGES[service]],
        environment=values,
        command=tuple(_command(service, pool, worker, values.get("LOG_LEVEL", "INFO"))),
        port=port,
        health=HEALTH.get(service, ""),
        places=places(given.connections),
        memory_mb=given.memory_mb,
        supervised=service in SUPERVISED,
        worker=worker,
    )


def _command(service: str, pool: WorkerPool | None, worker: str, log_level: str) -> list[str]:
    if pool:
        return worker_command(pool, worker, log_level)
    return beat_command(log_level) if service == "beat" else []


def declared(host: Mapping[str, Any], members: Mapping[str, Sequence[Any]], max_connections: int) -> dict[str, Any]:
    """Give a site's processes and pools in the form in which the filter ``capacity_plan`` checks them.

    Args:
        host: As ``Host`` has it: every host is given the same.
        members: Hosts of each service.
        max_connections: Connections that PostgreSQL admits.

    Returns:
        The settings, as ``Settings`` in ``module_utils/dify_capacity`` reads them.
    """
    given = parse(Host, host, "host")

    def pooled(kind: str, service: Service | WorkerPool, count: int) -> dict[str, Any]:
        pool = {"pool_size": service.pool_size, "max_overflow": service.max_overflow}
        return {"processes": {member["name"]: count for member in members[kind]}, **pool}

    spare = given.api.connections - places(given.api.connections)
    found: dict[str, Any] = {
        "api": {**pooled("api", given.api, given.api.processes), "connections": given.api.connections, "spare_connections": spare},
        "workers": {
            pool.name: {**pooled("worker", pool, pool.processes), "concurrency": pool.concurrency, "queues": list(pool.queues)}
            for pool in given.pools
        },
        "plugin_daemon_connections": given.plugin_daemon.pool_size + given.plugin_daemon.max_overflow,
        # A migration, which runs beside the others, and who asks for leases.
        "administration": ADMINISTRATION,
        "max_connections": max_connections,
    }
    if members["websocket"]:
        found["api_websocket"] = pooled("websocket", given.websocket, 1)
    if members["beat"]:
        found["beat"] = {}
    return found


def places(connections: int) -> int:
    """Requests of users that a process is given at once: some that it could take are left for checks and for what Dify asks of itself."""
    return max(connections - max(connections // 5, 2), 1)
