# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about sites, hosts, groups and the VPN between the sites."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import EXTERNAL, entry_name, site_group
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import OWN, Group, Groups
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Host
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import numbered
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan, model_port, ports, reserved_ports
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, suggest


def check(plan: Plan, groups: Groups, report: Report) -> None:
    """Apply all rules of this module."""
    _names(plan, groups, report)
    _entries(plan, report)
    _own_ports(plan, report)
    _known_groups(plan, groups, report)
    for host in plan.hosts:
        _host_keys(host, groups, report)
    for site in plan.spec.sites:
        _site_groups(site, plan, groups, report)
    _vpn(plan, report)


def groups_clean(plan: Plan, report: Report, *sites: str) -> bool:
    """Tell whether the group memberships of whole sites are what the file says."""
    for site in sites:
        if not report.clean(("sites", site, "hosts_from")) or not report.readable(("sites", site, "hosts")):
            return False
        if not report.clean(*(("sites", site, "hosts", name, "groups") for name in plan.spec.sites[site].hosts)):
            return False
    return report.clean(("base_groups",))


def _names(plan: Plan, groups: Groups, report: Report) -> None:
    """Check that every site has hosts, and every host one name that nothing else has."""
    for name in plan.spec.sites:
        path: Path = ("sites", name)
        if not any(host.site == name for host in plan.hosts) and report.clean((*path, "hosts"), (*path, "hosts_from")):
            report.add(path, "the site has no hosts", "give it `hosts` or `hosts_from`, or remove the site")
    taken = {"all", "ungrouped", *groups, *(site_group(name) for name in plan.spec.sites)}
    first: dict[str, Host] = {}
    for host in plan.hosts:
        owner = first.setdefault(host.fqdn.lower(), host)
        if owner is not host:
            where = f"site '{owner.site}', line {report.line(owner.path)}"
            report.add(host.path, f"host '{host.name}' is declared already ({where})", "give every host one site and a name of its own")
        if host.name in taken:
            report.add(host.path, f"'{host.name}' is also the name of a group", "rename the host")
        if len(host.fqdn) > 253 and report.readable(("domain",)):
            report.add(host.path, "the full name is longer than 253 characters", "shorten the host's name or the domain")


def _entries(plan: Plan, report: Report) -> None:
    """Check that sites have entries of their own, on ports that are free."""
    first: dict[str, str] = {}
    for name, site in plan.spec.sites.items():
        path: Path = ("sites", name, "entry")
        owner = first.setdefault(entry_name(plan.spec, name).lower(), name)
        if owner != name:
            report.add((*path, "name"), f"site '{owner}' has the same entry name", "give every site its own")
        if site.entry is None:
            continue
        reserved = reserved_ports(plan.spec)
        taken = {22: "SSH"} | reserved
        taken |= {
            model_port(model, plan.spec.models[model], reserved): f"model '{model}' on '{host.name}'"
            for host in plan.members(name, "nginx")
            for model in plan.host_models.get(host.name, [])
        }
        if site.entry.port in taken:
            report.add((*path, "port"), f"{site.entry.port} belongs to {taken[site.entry.port]}", "give another port; 443 is usual")


def _own_ports(plan: Plan, report: Report) -> None:
    """Check that no two of the platform's ports are the same: hosts may have all of its services."""
    first: dict[int, str] = {}
    for section, found in ((), ports(plan.spec)), *(((name,), value) for name, value in ports(plan.spec).items() if isinstance(value, dict)):
        for name, port in found.items():
            if isinstance(port, dict):
                continue
            said = ".".join((*section, name))
            owner = first.setdefault(port, said)
            if owner != said:
                report.add(("ports", *section, name), f"{port} is also `ports.{owner}`", "give each service a port of its own")


def _memberships(plan: Plan) -> Iterator[tuple[Path, str]]:
    """List every place where the file names a group."""
    for position, group in numbered(plan.spec.base_groups):
        yield ("base_groups", position), group
    for site_name, site in plan.spec.sites.items():
        for name, host in site.hosts.items():
            for position, group in numbered(host.groups):
                yield ("sites", site_name, "hosts", name, "groups", position), group
        for number, source in numbered(site.hosts_from):
            for position, group in numbered(source.groups):
                yield ("sites", site_name, "hosts_from", number, "groups", position), group


def _known_groups(plan: Plan, groups: Groups, report: Report) -> None:
    """Check that groups exist, or else a misspelt role would silently not run."""
    for path, group in _memberships(plan):
        if group not in groups:
            report.add(path, f"unknown group '{group}'", suggest(group, groups, f"known groups: {listing(groups)}"))
    for position, group in numbered(plan.spec.extra_groups):
        if groups[group] is not OWN:
            report.add(("extra_groups", position), f"'{group}' is a group of this collection", "remove it: this list is for your own roles")


def _host_keys(host: Host, groups: Groups, report: Report) -> None:
    """Check that a host has the keys, and the other groups, that its groups need."""
    if not report.clean(host.at("groups")):
        return
    for name in sorted(host.groups & groups.keys()):
        within = groups[name].within
        if within and within not in host.groups:
            problem = f"host '{host.name}' is in the group '{name}', which is for hosts of the group '{within}' alone"
            report.add(host.at("groups"), problem, f"add '{within}', or take the host out of '{name}'")
        if groups[name].ipv4 and report.clean(host.at("address")) and ":" in str(host.address):
            problem = f"host '{host.name}' is in the group '{name}', whose nodes are named by IPv4 addresses, and {host.address} is none"
            report.add(host.at("address"), problem, "give it an IPv4 address; other hosts may have others")
        for key in groups[name].host_keys:
            if getattr(host, key) is None and report.clean(host.at(key)):
                report.add(
                    host.at(key), f"host '{host.name}' is in the group '{name}', which needs it", f"give `{key}`, or take the host out of the group"
                )
    if host.vpn_address and "wireguard" not in host.groups:
        report.add(host.at("vpn_address"), f"host '{host.name}' is not in the group 'wireguard'", "add the group, or remove the address")


def _site_groups(site: str, plan: Plan, groups: Groups, report: Report) -> None:
    """Check that a site has what its groups need, and its quorums are odd."""
    if not groups_clean(plan, report, site):
        return
    path: Path = ("sites", site)
    lacking: set[str] = set()
    for name, group in groups.items():
        members = [host.name for host in plan.members(site, name)]
        for needed in group.needs:
            if members and not plan.members(site, needed) and needed not in lacking:
                lacking.add(needed)
                report.add(
                    path, f"'{name}' ({listing(members)}) needs '{needed}', which the site lacks", f"put a host of the site into the group '{needed}'"
                )
        if group.quorum and members and len(members) % 2 == 0:
            problem = f"'{name}' has {len(members)} members ({listing(members)}), which tolerate no more failures than {len(members) - 1}"
            report.add(path, problem, f"give it {len(members) - 1} or {len(members) + 1}")
        _on_all_of(site, name, group, plan, report)
    for service, (dummy, group_name) in EXTERNAL.items():
        members = [host.name for host in plan.members(site, group_name)]
        if members and getattr(plan.spec.sites[site].external, service, None):
            problem = f"the site has its own, in the group '{group_name}' ({listing(members)})"
            report.add((*path, "external", service), problem, "keep one of the two")
    _virtual_address(site, plan, report)
    hosted = [model for model, sites in plan.model_sites.items() if site in sites]
    if hosted and not plan.members(site, "model_gateway") and "model_gateway" not in lacking:
        report.add(path, f"models are hosted here ({listing(hosted)}), but the site has no 'model_gateway'", "put a host of the site into that group")


def _on_all_of(site: str, name: str, group: Group, plan: Plan, report: Report) -> None:
    """Check that a group which goes with another has the same members."""
    members = {host.name: host for host in plan.members(site, name)}
    others = {host.name: host for host in plan.members(site, group.on_all_of)} if group.on_all_of else members
    if not members:
        return
    for host in (host for key, host in members.items() if key not in others):
        report.add(host.at("groups"), f"'{name}' has no work on a host outside '{group.on_all_of}'", f"add '{group.on_all_of}', or remove '{name}'")
    for host in (host for key, host in others.items() if key not in members):
        report.add(
            host.at("groups"),
            f"'{name}' is on other hosts of '{group.on_all_of}' and not on this one, which would do without when it leads",
            f"add '{name}'",
        )


def _virtual_address(site: str, plan: Plan, report: Report) -> None:
    """Check that an entry's virtual address and those who hold it belong together."""
    path: Path = ("sites", site, "entry", "address")
    entry, holders = plan.spec.sites[site].entry, plan.members(site, "keepalived")
    address = entry.address if entry else None
    if not report.clean(path):
        return
    for host in holders:
        if "nginx" not in host.groups:
            report.add(
                host.at("groups"), "a host of the group 'keepalived' holds the entry's address, but has no 'nginx' to answer there", "add 'nginx'"
            )
    if holders and address is None:
        problem = f"is missing, but hosts are in the group 'keepalived' ({_some(holders)})"
        report.add(path, problem, "give the address that moves between them")
    elif address and not holders:
        report.add(path, f"no host of the site would hold {address}", "put the hosts of 'nginx' into the group 'keepalived', too")
    owner = next((host for host in plan.hosts if address and address in (host.address, host.wan_address, host.vpn_address)), None)
    if owner:
        report.add(path, f"{address} belongs to host '{owner.name}'", "give an address that no host has")
    networks = plan.spec.sites[site].networks
    if address and networks and not any(address in network for network in networks):
        report.add(path, f"{address} lies outside the site's networks ({listing([str(network) for network in networks])})", "give an address inside")


def _vpn(plan: Plan, report: Report) -> None:
    """Check that the VPN is declared when hosts are in it, its hubs exist, and each tunnel can be opened from one end."""
    vpn = plan.spec.vpn
    on_vpn = [host for host in plan.hosts if "wireguard" in host.groups]
    if vpn is None:
        if on_vpn and report.readable(("vpn",)):
            report.add(("vpn",), f"the section is missing, but hosts are in the group 'wireguard' ({_some(on_vpn)})", "give `vpn: {cidr: …}`")
        return
    for position, hub in numbered(vpn.hubs or ()):
        path: Path = ("vpn", "hubs", position)
        if hub not in plan.spec.sites:
            report.add(path, f"unknown site '{hub}'", suggest(hub, plan.spec.sites, f"known sites: {listing(plan.spec.sites)}"))
        elif groups_clean(plan, report, hub) and not plan.members(hub, "wireguard"):
            report.add(path, f"site '{hub}' has no host in the group 'wireguard'", "put one into it, or name another hub")
    _endpoints(plan, report)


def _endpoints(plan: Plan, report: Report) -> None:
    """Check that of two peers at least one knows where the other is. Blame the hub: giving it an address mends all its tunnels."""
    told: set[frozenset[str]] = set()
    for host in sorted(plan.hosts, key=lambda host: host.site not in plan.hubs):
        if host.wan_address or not report.clean(host.at("wan_address")):
            continue
        silent = [peer for peer in plan.vpn_peers(host) if not peer.wan_address and report.clean(peer.at("wan_address"))]
        fresh = [peer for peer in silent if frozenset((host.name, peer.name)) not in told]
        if fresh:
            told |= {frozenset((host.name, peer.name)) for peer in fresh}
            problem = f"neither '{host.name}' nor its VPN peers ({_some(fresh)}) have one, so no end can open the tunnel"
            report.add(host.at("wan_address"), problem, "give one end the address at which the other reaches it")


def _some(hosts: Collection[Host]) -> str:
    """Name a few hosts."""
    names = [host.name for host in hosts]
    return listing(names) if len(names) <= 5 else f"{listing(names[:5])} and {len(names) - 5} more"
