# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the file: who peers with whom, which way a call takes, which ports and GPUs an instance gets.

Nothing here reports. A plan can be made of a file with mistakes; it then lacks what they concern.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Host
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import Level, permits
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.sections import Section, keys
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import DIFY_DEFAULT_HOSTS, MODEL_PORTS, ClusterSpec, ModelSpec, PortsSpec


def ports(spec: ClusterSpec) -> dict[str, Any]:
    """Give the ports that more than one role has to know, as the contract's ``cluster.ports``: those of the file, or their defaults."""
    return _ports(PortsSpec, spec.ports)


def _ports(cls: type[Any], given: object) -> dict[str, Any]:
    """Give a section of ports."""
    found: dict[str, Any] = {}
    for name, declared in keys(cls).items():
        value = getattr(given, name, None)
        found[name] = _ports(declared.kind.cls, value) if isinstance(declared.kind, Section) else value or declared.initial
    return found


def reserved_ports(spec: ClusterSpec) -> dict[int, str]:
    """Ports that another service of the same host as a model, or as the entry, has."""
    given = ports(spec)
    return {
        given["model_gateway_metrics"]: "the model gateway's metrics",
        given["model_gateway"]: "the model gateway",
        given["model_gateway_vpn"]: "the model gateway on the VPN",
    }


def model_port(name: str, model: ModelSpec, reserved: Collection[int]) -> int:
    """Port of a model's instances: given, or from the name alone, so that other models play no part in it.

    Args:
        name: Its name.
        model: What the file says of it.
        reserved: Ports that are another's.
    """
    if model.port is not None:
        return model.port
    port = MODEL_PORTS[0] + zlib.crc32(name.encode()) % len(MODEL_PORTS)
    while port in reserved:
        port += 1
    return port


def instance_hosts(model: ModelSpec) -> list[tuple[str, ...]]:
    """Hosts of each instance of a model; the first of them answers."""
    return [tuple(model.hosts[start : start + model.nodes]) for start in range(0, len(model.hosts), model.nodes)]


def gpus_per_host(model: ModelSpec) -> int:
    """GPUs that an instance of a model takes on each of its hosts."""
    return model.tensor_parallel * model.pipeline_parallel // model.nodes


@dataclass(frozen=True)
class Route:
    """How a site reaches a model: its own instances, or else the gateways of other sites."""

    servers: tuple[Host, ...] = ()
    gateways: tuple[Host, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is a way at all."""
        return bool(self.servers or self.gateways)


@dataclass(frozen=True)
class Plan:
    """Derived facts of one cluster."""

    spec: ClusterSpec
    hosts: Sequence[Host]

    @cached_property
    def host(self) -> Mapping[str, Host]:
        """Hosts by name; of two with one name the first."""
        return {host.name: host for host in reversed(self.hosts)}

    @cached_property
    def _members(self) -> Mapping[tuple[str, str], list[Host]]:
        members: dict[tuple[str, str], list[Host]] = {}
        for host in self.hosts:
            for group in host.groups:
                members.setdefault((host.site, group), []).append(host)
        return members

    def members(self, site: str, group: str) -> list[Host]:
        """Hosts of a group in a site, in file order."""
        return self._members.get((site, group), [])

    def on_vpn(self, site: str) -> list[Host]:
        """Hosts of a site that are in the VPN."""
        return [host for host in self.members(site, "wireguard") if host.vpn_address]

    def gateways(self, site: str) -> list[Host]:
        """Model gateways of a site that can be reached over the VPN."""
        return [host for host in self.members(site, "model_gateway") if host.vpn_address]

    @cached_property
    def hubs(self) -> frozenset[str]:
        """Sites whose gateways peer with those of every other site."""
        if self.spec.vpn is None:
            return frozenset()
        if self.spec.vpn.hubs is not None:
            return frozenset(self.spec.vpn.hubs)
        # A site without gateways cannot be a hub, however trusted it is.
        levels = {name: site.clearance or Level.PUBLIC for name, site in self.spec.sites.items() if self.on_vpn(name)}
        return frozenset(name for name, level in levels.items() if level == max(levels.values()))

    def peered(self, one: str, other: str) -> bool:
        """Tell whether two sites meet in the VPN. Spokes never meet, so traffic between them cannot bypass the hubs' policy."""
        return one != other and (one in self.hubs or other in self.hubs) and bool(self.on_vpn(one) and self.on_vpn(other))

    def peer_sites(self, site: str) -> list[str]:
        """Sites that a site meets in the VPN, in file order."""
        return [other for other in self.spec.sites if self.peered(site, other)]

    def vpn_peers(self, host: Host) -> list[Host]:
        """WireGuard peers of a host, by name."""
        if not host.vpn_address or "wireguard" not in host.groups:
            return []
        return sorted((peer for site in self.peer_sites(host.site) for peer in self.on_vpn(site)), key=lambda peer: peer.name)

    @cached_property
    def model_sites(self) -> Mapping[str, tuple[str, ...]]:
        """Sites that host each model."""
        return {
            name: tuple(dict.fromkeys(self.host[host].site for host in model.hosts if host in self.host)) for name, model in self.spec.models.items()
        }

    def allowed(self, model: str, site: str) -> bool:
        """Tell whether policy lets a site call a model."""
        spec = self.spec.models[model]
        listed = spec.callable_from is None or site in spec.callable_from
        return listed and permits(self.spec.sites[site].clearance, spec.classification)

    def route(self, model: str, site: str) -> Route:
        """Find the way from a site to a model; the site's own instances come first."""
        leaders = [group[0] for group in instance_hosts(self.spec.models[model])]
        own = tuple(self.host[host] for host in leaders if host in self.host and self.host[host].site == site)
        if own:
            return Route(servers=own)
        if not self.gateways(site):
            return Route()
        return Route(gateways=tuple(host for other in self.model_sites[model] if self.peered(site, other) for host in self.gateways(other)))

    @cached_property
    def routes(self) -> Mapping[str, Mapping[str, Route]]:
        """Ways to each model by the sites that may and can call it."""
        return {
            model: {site: route for site in self.spec.sites if self.allowed(model, site) and (route := self.route(model, site))}
            for model in self.spec.models
        }

    def dify_hosts(self, site: str, service: str) -> list[Host]:
        """Hosts of a site that run a service of Dify, in file order: those that are named, or whom it has by default."""
        named = getattr(self.spec.sites[site].dify, service)
        if named is not None:
            return [host for host in self.members(site, "dify") if host.name in named]
        default = DIFY_DEFAULT_HOSTS[service]
        return self.dify_hosts(site, default) if default else self.members(site, "dify")

    @cached_property
    def host_models(self) -> Mapping[str, list[str]]:
        """Models of each host in file order."""
        found: dict[str, list[str]] = {}
        for name, model in self.spec.models.items():
            for host in model.hosts:
                found.setdefault(host, []).append(name)
        return found

    def gpus(self, host: Host) -> Mapping[str, list[int]]:
        """Deal a host's GPUs out to its models, disjointly and in file order; empty lists where their number is not known."""
        dealt: dict[str, list[int]] = {}
        start = 0
        for name in self.host_models.get(host.name, []):
            count = gpus_per_host(self.spec.models[name]) if host.gpus else 0
            dealt[name] = list(range(start, start + count))
            start += count
        return dealt
