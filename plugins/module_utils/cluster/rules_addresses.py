# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about addresses and networks: everything has one place, and nothing shares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.addresses import Address, Network
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Host
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import numbered
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import Level
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, show


@dataclass(frozen=True)
class Declared:
    """A network, where it is declared, and its site (none: the VPN)."""

    path: Path
    site: str | None
    network: Network


def check(plan: Plan, report: Report) -> None:
    """Apply all rules of this module."""
    networks = list(_networks(plan))
    _overlaps(networks, report)
    _shared(plan, report)
    _administrators(plan, report)
    for host in plan.hosts:
        _in_site(host, plan, networks, report)
        _in_vpn(host, plan, report)


def _networks(plan: Plan) -> Iterator[Declared]:
    """List every network that the file declares."""
    if plan.spec.vpn and plan.spec.vpn.cidr:
        yield Declared(("vpn", "cidr"), None, plan.spec.vpn.cidr)
    for name, site in plan.spec.sites.items():
        for position, network in numbered(site.networks):
            yield Declared(("sites", name, "networks", position), name, network)


def _overlaps(networks: Sequence[Declared], report: Report) -> None:
    """Routes between sites, and the firewalls' idea of who is who, need networks apart."""
    for number, later in enumerate(networks):
        for earlier in networks[:number]:
            if later.network.overlaps(earlier.network):
                where = f"{show(earlier.path)}, line {report.line(earlier.path)}"
                report.add(later.path, f"{later.network} overlaps {earlier.network} ({where})", "give each its own range")
                break


def _addresses(host: Host) -> Iterator[tuple[str, Address]]:
    for key, address in (("address", host.address), ("wan_address", host.wan_address), ("vpn_address", host.vpn_address)):
        if address:
            yield key, address


def _administrators(plan: Plan, report: Report) -> None:
    """Check that a site above the lowest clearance says who may open SSH."""
    for name, site in plan.spec.sites.items():
        path = ("sites", name, "admin_networks")
        if site.admin_networks is None and report.readable(path) and site.clearance is not None and site.clearance > Level.PUBLIC:
            report.add(
                path,
                f"is missing; on a site that is cleared for '{site.clearance}' SSH is not open to everybody",
                "name the networks of administrators and of the controller, such as [10.0.250.0/24]",
            )


def _shared(plan: Plan, report: Report) -> None:
    """Check that an address belongs to one host; only `address` and `wan_address` of the same host may be one."""
    first: dict[Address, tuple[Host, str]] = {}
    for host in plan.hosts:
        for key, address in _addresses(host):
            owner, used = first.setdefault(address, (host, key))
            if owner is not host:
                line = report.line(owner.at(used))
                report.add(host.at(key), f"{address} is already the {used} of '{owner.name}' (line {line})", "give every host its own address")


def _in_site(host: Host, plan: Plan, networks: Sequence[Declared], report: Report) -> None:
    """Check that a host's address lies in its site's networks and in nobody else's."""
    address = host.address
    vpn = plan.spec.vpn.cidr if plan.spec.vpn else None
    for key, value in _addresses(host):
        if vpn and key != "vpn_address" and value in vpn:
            report.add(host.at(key), f"{value} lies in the VPN ({vpn})", "VPN addresses belong in `vpn_address`")
            if key == "address":
                return
    own = plan.spec.sites[host.site].networks
    if address is None or not report.clean(("sites", host.site, "networks")):
        return
    around = [network for network in own if address in network]
    if around:
        kind = around[0].reserved(address)
        if kind:
            report.add(host.at("address"), f"{address} is the {kind} of {around[0]}", "give an address in between")
        return
    stranger = next((other.site for other in networks if other.site and other.site != host.site and address in other.network), None)
    place = f"; it lies in site '{stranger}'" if stranger else ""
    if own and not any(network.version == address.version for network in own):
        report.add(host.at("address"), f"{address} is IPv{address.version}, but the site's networks are not", "give the address of the other family")
    elif own:
        remedy = "give an address inside, or add its network" if not stranger else "give an address inside, or move the host"
        report.add(
            host.at("address"), f"{address} of '{host.name}' lies outside the site's networks ({listing([str(n) for n in own])}){place}", remedy
        )
    elif stranger:
        report.add(host.at("address"), f"{address} of '{host.name}' lies in a network of site '{stranger}'", "move the host, or give another address")


def _in_vpn(host: Host, plan: Plan, report: Report) -> None:
    """Check that a VPN address lies in the VPN and can be a host's."""
    address = host.vpn_address
    network = plan.spec.vpn.cidr if plan.spec.vpn else None
    if address is None or network is None:
        return
    path = host.at("vpn_address")
    if address.version != network.version:
        report.add(path, f"{address} is IPv{address.version}, but vpn.cidr is {network}", f"give an IPv{network.version} address")
    elif address not in network:
        report.add(path, f"{address} lies outside vpn.cidr ({network})", "give an address inside")
    else:
        kind = network.reserved(address)
        if kind:
            report.add(path, f"{address} is the {kind} of vpn.cidr ({network})", "give an address in between")
