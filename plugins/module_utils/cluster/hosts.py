# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of all sites in one list, whether the file declares them or an earlier inventory source did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.cluster import addresses
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.addresses import Address
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import Groups
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import numbered
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, suggest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import ClusterSpec, HostsFromSpec


@dataclass(frozen=True)
class Earlier:
    """What inventory sources loaded earlier have declared."""

    groups: tuple[str, ...] = ()
    members: Callable[[str], Mapping[str, Mapping[str, Any]]] = lambda group: {}
    """Hosts of a group, each with its variables."""


@dataclass(frozen=True)
class Host:
    """One host in its site."""

    name: str
    site: str
    fqdn: str
    path: Path
    """Where the file declares it."""
    address: Address | None
    wan_address: Address | None
    vpn_address: Address | None
    groups: frozenset[str]
    gpus: int | None
    vars: Mapping[str, Any]
    earlier: bool = False

    def at(self, key: str) -> Path:
        """Where a mistake about one of its keys belongs."""
        return (*self.path, f"{key}_var" if self.earlier and key.endswith("address") else key)


def full_name(name: str, domain: str) -> str:
    """Name of a host in the cluster's domain."""
    return name if name.lower().endswith(f".{domain.lower()}") else f"{name}.{domain}"


def gather(spec: ClusterSpec, earlier: Earlier, groups: Groups, report: Report) -> list[Host]:
    """List the hosts of all sites in file order."""
    base = frozenset(spec.base_groups)
    found: list[Host] = []
    for site_name, site in spec.sites.items():
        for name, host in site.hosts.items():
            found.append(
                Host(
                    name,
                    site_name,
                    full_name(name, spec.domain),
                    ("sites", site_name, "hosts", name),
                    host.address,
                    host.wan_address,
                    host.vpn_address,
                    base | frozenset(host.groups),
                    host.gpus,
                    host.vars,
                )
            )
        taken: dict[str, Host] = {}
        for position, source in numbered(site.hosts_from):
            path: Path = ("sites", site_name, "hosts_from", position)
            for adopted in _adopt(source, path, site_name, spec, earlier, report):
                before = taken.get(adopted.name)
                # A host may come from several groups of the same site, each of which switches more roles on.
                taken[adopted.name] = replace(before, groups=before.groups | adopted.groups) if before else adopted
        found.extend(taken.values())
    for name, group in groups.items():
        sites = {host.site for host in found if group.follows in host.groups}
        found = [replace(host, groups=host.groups | {name}) if host.site in sites else host for host in found]
    return found


def _adopt(source: HostsFromSpec, path: Path, site: str, spec: ClusterSpec, earlier: Earlier, report: Report) -> list[Host]:
    """Take over the hosts of one earlier group."""
    if not report.readable((*path, "group")):
        return []
    if source.group not in earlier.groups:
        remedy = suggest(source.group, earlier.groups, "load the inventory source that declares it before this file")
        report.add((*path, "group"), f"no group '{source.group}' was loaded before this file", remedy)
        return []
    members = earlier.members(source.group)
    if not members:
        report.add((*path, "group"), f"group '{source.group}' has no hosts", "give it hosts or remove this entry")
    found = []
    for name, variables in members.items():
        values = {
            "address": _variable(name, variables, source.address_var, (*path, "address_var"), report),
            "wan_address": _variable(name, variables, source.wan_address_var, (*path, "wan_address_var"), report),
            "vpn_address": _variable(name, variables, source.vpn_address_var, (*path, "vpn_address_var"), report),
        }
        groups = frozenset(spec.base_groups) | frozenset(source.groups)
        found.append(Host(name, site, full_name(name, spec.domain), path, **values, groups=groups, gpus=None, vars={}, earlier=True))
    return found


def _variable(host: str, variables: Mapping[str, Any], variable: str | None, path: Path, report: Report) -> Address | None:
    """Read an address from a variable of an earlier host."""
    if variable is None or not report.readable(path):
        return None
    if variables.get(variable) is None:
        report.add(path, f"host '{host}' has no variable '{variable}'", "set it in the source that declares the host, or name another variable")
        return None
    try:
        return addresses.parse_address(str(variables[variable]))
    except addresses.UnfitError as unfit:
        report.add(path, f"variable '{variable}' of host '{host}': {unfit.problem}", unfit.remedy)
        return None
