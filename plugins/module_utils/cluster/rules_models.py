# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about models and their clients: where a model may lie, who may call it, and whether there is a way."""

from __future__ import annotations

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Host
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import numbered
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.levels import permits
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan, gpus_per_host, instance_hosts, model_port, reserved_ports
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, suggest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.rules_hosts import groups_clean
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import DEFAULT_TIERS


def check(plan: Plan, report: Report) -> None:
    """Apply all rules of this module."""
    for name in plan.spec.models:
        _hosts(name, plan, report)
        _spread(name, plan, report)
    for host in plan.host.values():
        _gpus(host, plan, report)
    _ports(plan, report)
    for name in plan.spec.models:
        _callers(name, plan, report)
    _gateways(plan, report)
    for name in plan.spec.clients:
        _client(name, plan, report)


def _hosts(name: str, plan: Plan, report: Report) -> None:
    """Check that a model's hosts exist, run vLLM, and are cleared for it."""
    model = plan.spec.models[name]
    told: set[str] = set()
    for position, host_name in numbered(model.hosts):
        path: Path = ("models", name, "hosts", position)
        host = plan.host.get(host_name)
        if host is None:
            if _all_hosts_known(plan, report):
                report.add(path, f"unknown host '{host_name}'", suggest(host_name, plan.host, "name a host of one of the sites"))
            continue
        if "vllm" not in host.groups and report.clean(host.at("groups")):
            report.add(path, f"host '{host_name}' is not in the group 'vllm'", "add the group to the host, or name another host")
        site = plan.spec.sites[host.site]
        if not permits(site.clearance, model.classification) and host.site not in told:
            told.add(host.site)
            fit = [other for other, spec in plan.spec.sites.items() if permits(spec.clearance, model.classification)]
            problem = f"the model is {model.classification}, but site '{host.site}' is cleared only for {site.clearance}"
            report.add(path, problem, f"place it on {listing(fit)}" if fit else f"no site is cleared for {model.classification}")


def _spread(name: str, plan: Plan, report: Report) -> None:
    """Check that instances over several hosts come out even, each within one site."""
    model = plan.spec.models[name]
    path: Path = ("models", name)
    if model.nodes == 1 or not report.clean((*path, "nodes"), (*path, "hosts"), (*path, "tensor_parallel"), (*path, "pipeline_parallel")):
        return
    if len(model.hosts) % model.nodes:
        problem = f"{len(model.hosts)} hosts do not make groups of {model.nodes} (`nodes`), over which each instance is spread"
        report.add((*path, "hosts"), problem, f"name a multiple of {model.nodes} hosts, or change `nodes`")
        return
    gpus = model.tensor_parallel * model.pipeline_parallel
    if gpus % model.nodes:
        problem = f"{gpus} GPUs (tensor_parallel x pipeline_parallel) cannot be dealt out evenly to {model.nodes} hosts"
        report.add((*path, "nodes"), problem, "make tensor_parallel x pipeline_parallel a multiple of `nodes`")
        return
    for group in instance_hosts(model):
        sites = sorted({plan.host[host].site for host in group})
        if len(sites) > 1:
            problem = f"one instance would be spread over hosts of several sites ({', '.join(group)}: {listing(sites)})"
            remedy = "name the hosts of one site next to each other: what they exchange is not encrypted, and needs a fast network"
            report.add((*path, "hosts"), problem, remedy)


def _all_hosts_known(plan: Plan, report: Report) -> bool:
    """Tell whether a host that was not found really does not exist."""
    return all(
        report.readable(("sites", site, "hosts")) and report.clean(("sites", site, "hosts_from")) for site in plan.spec.sites
    ) and report.readable(("sites",))


def _gpus(host: Host, plan: Plan, report: Report) -> None:
    """Check that the models of a host fit on its GPUs, where their number is known."""
    if host.gpus is None:
        return
    needs = {name: gpus_per_host(plan.spec.models[name]) for name in plan.host_models.get(host.name, [])}
    if not report.clean(*(("models", name, key) for name in needs for key in ("tensor_parallel", "pipeline_parallel", "nodes"))):
        return
    for name, need in needs.items():
        if need > host.gpus:
            remedy = f"give at most {host.gpus}, or name another host" if host.gpus else "leave `gpus` out for a host that serves without GPUs"
            problem = f"GPUs needed: {need}, but host '{host.name}' has {host.gpus}"
            report.add(("models", name, "tensor_parallel"), problem, remedy)
            return
        if host.gpus % need:
            # GPUs are linked in groups whose size divides their number; a share that does not would reach across groups, and strand the rest.
            fit = [str(count) for count in range(1, host.gpus + 1) if host.gpus % count == 0]
            problem = f"{need} does not divide the {host.gpus} GPUs of '{host.name}'"
            report.add(("models", name, "tensor_parallel"), problem, f"give one of {listing(fit)}")
            return
    if sum(needs.values()) > host.gpus:
        sums = " + ".join(f"{need} ({name})" for name, need in needs.items())
        report.add(host.at("gpus"), f"GPUs needed: {sums}, but '{host.name}' has {host.gpus}", "move a model to another host")


def _ports(plan: Plan, report: Report) -> None:
    """Check that instances on one host have ports of their own."""
    reserved = reserved_ports(plan.spec)
    for name, model in plan.spec.models.items():
        if model.port in reserved:
            report.add(("models", name, "port"), f"{model.port} belongs to {reserved[model.port]}", "give another port of 8100–8899")
    told: set[tuple[str, str]] = set()
    for host in plan.host.values():
        first: dict[int, str] = {}
        for name in plan.host_models.get(host.name, []):
            if not report.readable(("models", name, "port")):
                continue
            port = model_port(name, plan.spec.models[name], reserved)
            owner = first.setdefault(port, name)
            if owner != name and (owner, name) not in told:
                told.add((owner, name))
                report.add(
                    ("models", name, "port"), f"models '{owner}' and '{name}' share port {port} on host '{host.name}'", "give one of them a `port`"
                )


def _callers(name: str, plan: Plan, report: Report) -> None:
    """Check that a list of callers narrows what the classification allows, and everybody on it has a way."""
    model = plan.spec.models[name]
    if model.callable_from is None:
        return
    for position, site in numbered(model.callable_from):
        path: Path = ("models", name, "callable_from", position)
        if site not in plan.spec.sites:
            report.add(path, f"unknown site '{site}'", suggest(site, plan.spec.sites, f"known sites: {listing(plan.spec.sites)}"))
        elif not permits(plan.spec.sites[site].clearance, model.classification):
            clearance = plan.spec.sites[site].clearance
            problem = f"the model is {model.classification}, but site '{site}' is cleared only for {clearance}"
            report.add(path, problem, "remove the site: this list narrows what the classification allows, never widens it")
        elif site not in plan.routes[name] and _route_known(name, site, plan, report):
            report.add(path, *_no_way(name, site, plan))
    path = ("models", name, "callable_from")
    left_out = [site for site in plan.model_sites[name] if site not in model.callable_from]
    if left_out and report.clean(path, ("models", name, "hosts")):
        report.add(path, f"leaves out the site that hosts the model ({listing(left_out)})", "add it: its gateway serves the others")


def _route_known(model: str, site: str, plan: Plan, report: Report) -> bool:
    """Tell whether everything a route depends on is what the file says."""
    sites = (site, *plan.model_sites[model])
    parts = [("sites", name, "hosts") for name in sites]
    if not all(host in plan.host for host in plan.spec.models[model].hosts):
        return False
    return groups_clean(plan, report, *sites) and report.clean(("vpn",), ("models", model, "hosts"), *parts)


def _no_way(model: str, site: str, plan: Plan) -> tuple[str, str]:
    """Say why a site cannot reach a model, and what would open the way."""
    hosting = plan.model_sites[model]
    if not plan.members(site, "model_gateway"):
        return f"site '{site}' has no 'model_gateway' to call through", "put a host of the site into that group"
    if not plan.gateways(site):
        return f"no model gateway of site '{site}' is in the VPN", "give one a `vpn_address` and the group 'wireguard'"
    peers = [other for other in hosting if plan.peered(site, other)]
    if not peers:
        gateless = [other for other in hosting if not plan.on_vpn(other)]
        if gateless == list(hosting):
            return f"no host of site {listing(gateless)}, which hosts '{model}', is in the VPN", "put its model gateways into the group 'wireguard'"
        return f"'{site}' and '{listing(hosting)}' are spokes of the VPN, and spokes do not meet", "make one of the two a hub: `vpn.hubs`"
    return f"no model gateway of site {listing(peers)}, which hosts '{model}', is in the VPN", "give one a `vpn_address` and the group 'wireguard'"


def _gateways(plan: Plan, report: Report) -> None:
    """Check that where models come over the VPN, every gateway of the site is in it: clients meet any of them."""
    for site in plan.spec.sites:
        remote = [model for model, routes in plan.routes.items() if site in routes and routes[site].gateways]
        if not remote or not groups_clean(plan, report, site):
            continue
        for host in plan.members(site, "model_gateway"):
            if not host.vpn_address and report.clean(host.at("vpn_address")):
                problem = f"models reach this gateway ('{host.name}') over the VPN ({listing(remote)}), but it has no address there"
                report.add(host.at("vpn_address"), problem, "give `vpn_address` and the group 'wireguard', or take the host out of 'model_gateway'")


def _client(name: str, plan: Plan, report: Report) -> None:
    """Check that a client's sites, models and tier exist, and each of its models is callable from each of its sites."""
    client = plan.spec.clients[name]
    path: Path = ("clients", name)
    for position, site in numbered(client.sites):
        if site not in plan.spec.sites and report.readable(("sites",)):
            remedy = suggest(site, plan.spec.sites, f"known sites: {listing(plan.spec.sites)}")
            report.add((*path, "sites", position), f"unknown site '{site}'", remedy)
    tiers = {**DEFAULT_TIERS, **plan.spec.tiers}
    if client.tier not in tiers and report.readable(("tiers",)) and report.readable((*path, "tier")):
        report.add((*path, "tier"), f"unknown tier '{client.tier}'", suggest(client.tier, tiers, f"known tiers: {listing(tiers)}"))
    for position, model in numbered(client.models):
        if model not in plan.spec.models:
            if report.readable(("models",)):
                remedy = suggest(model, plan.spec.models, f"known models: {listing(plan.spec.models)}")
                report.add((*path, "models", position), f"unknown model '{model}'", remedy)
            continue
        for site in client.sites:
            if site in plan.spec.sites and site not in plan.routes[model]:
                _not_callable((*path, "models", position), model, site, plan, report)


def _not_callable(path: Path, model: str, site: str, plan: Plan, report: Report) -> None:
    """Say why a client cannot call a model from one of its home sites, unless the cause has been told already."""
    spec = plan.spec.models[model]
    clearance = plan.spec.sites[site].clearance
    if not report.clean(("models", model)):
        return
    if not permits(clearance, spec.classification):
        problem = f"model '{model}' is {spec.classification}, but home site '{site}' is cleared only for {clearance}"
        report.add(path, problem, "remove the model from the client, or the site from its home sites")
    elif spec.callable_from is not None and site not in spec.callable_from:
        problem = f"model '{model}' may not be called from home site '{site}' (models.{model}.callable_from)"
        report.add(path, problem, "remove the model from the client, or add the site there")
    elif _route_known(model, site, plan, report):
        problem, remedy = _no_way(model, site, plan)
        report.add(path, f"model '{model}' cannot be reached from home site '{site}': {problem}", remedy)
