# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about Dify: its images, who runs what, and what it needs around it."""

from __future__ import annotations

import dataclasses

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import EXTERNAL
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.kinds import numbered
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import Path, Report, listing, suggest
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.rules_hosts import groups_clean
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import DIFY_DEFAULT_HOSTS, DifyImagesSpec, DifySpec


def check(plan: Plan, report: Report) -> None:
    """Apply all rules of this module."""
    for name, site in plan.spec.sites.items():
        if site.dify is not None:
            _images(site.dify, ("sites", name, "dify", "images"), report)
            _services(name, site.dify, plan, report)
        if groups_clean(plan, report, name):
            _members(name, plan, report)


def _images(spec: DifySpec, at: Path, report: Report) -> None:
    """Check that each image is pinned, in one of the two ways."""
    if spec.images is None or not report.readable(at):
        return
    for field in dataclasses.fields(DifyImagesSpec):
        image, path = getattr(spec.images, field.name), (*at, field.name)
        if image is None or not report.clean(path):
            continue
        if image.digest and (image.archive or image.sha256):
            report.add(path, "it has a digest, by which it is pulled, and an archive, from which it is loaded", "keep one of the two")
        elif image.archive and not image.sha256:
            report.add((*path, "sha256"), "the archive has no checksum", "give what `sha256sum` prints for it")
        elif image.sha256 and not image.archive:
            report.add((*path, "archive"), "there is a checksum, but no archive", "give the archive's name")
        elif not image.digest and not image.archive:
            report.add(
                path,
                "nothing says which image it is: a name without a digest is whatever its registry gives",
                "give `digest`, or `archive` and `sha256`",
            )


def _services(site: str, spec: DifySpec, plan: Plan, report: Report) -> None:
    """Check that the hosts that are named for services are there, and in the group."""
    members = [host.name for host in plan.members(site, "dify")]
    for service in DIFY_DEFAULT_HOSTS:
        for position, name in numbered(getattr(spec, service) or ()):
            path = ("sites", site, "dify", service, position)
            host = plan.host.get(name)
            if host is None or host.site != site:
                report.add(path, f"unknown host '{name}' of this site", suggest(name, members, f"hosts of the group 'dify': {listing(members)}"))
            elif "dify" not in host.groups and report.clean(host.at("groups")):
                report.add(path, f"host '{name}' is not in the group 'dify'", "add it to that group, or name another host")


def _members(site: str, plan: Plan, report: Report) -> None:
    """Check that the group and the section belong together, and that the services around are there."""
    path: Path = ("sites", site)
    spec, members = plan.spec.sites[site].dify, plan.members(site, "dify")
    names = listing([host.name for host in members])
    if spec is None:
        if members and report.readable((*path, "dify")):
            report.add(
                (*path, "dify"), f"the section is missing, but hosts are in the group 'dify' ({names})", "give `dify: {release: …, images: …}`"
            )
        return
    if not members:
        report.add((*path, "dify"), "no host of the site is in the group 'dify'", "put some into it, or remove the section")
        return
    for host in members:
        if "service_proxy" not in host.groups:
            report.add(host.at("groups"), f"Dify on '{host.name}' has no way to its data services", "add 'service_proxy'")
        if not any(host in plan.dify_hosts(site, service) for service in DIFY_DEFAULT_HOSTS):
            report.add(
                host.at("groups"), f"host '{host.name}' is in the group 'dify', but runs none of its services", "name it for one, or remove 'dify'"
            )
    for service, (dummy, group) in EXTERNAL.items():
        if not plan.members(site, group) and not getattr(plan.spec.sites[site].external, service, None):
            problem = f"'dify' ({names}) needs {service}, which the site lacks"
            report.add(path, problem, f"put hosts into the group '{group}', or name one of others in `external.{service}`")
