# SPDX-License-Identifier: GPL-3.0-or-later
"""The groups that exist, and what each needs. A new role adds one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """One group, which is one role."""

    layer: str
    """Layer of the playbook that applies the role."""
    quorum: bool = False
    """Members vote: an even number of them in a site tolerates no more failures than one fewer."""
    host_keys: tuple[str, ...] = ()
    """Keys that a member must have."""
    needs: tuple[str, ...] = ()
    """Groups that must have a member in the same site."""
    within: str | None = None
    """Group that a member must be in, too."""
    ipv4: bool = False
    """Its nodes are named by their addresses, in a form that has no room for one of IPv6."""
    on_all_of: str = ""
    """Group whose members in the same site it consists of, all of them and no others."""
    follows: str = ""
    """Group with which it comes: where a site has a member of that, all hosts of the site are in this."""


Groups = Mapping[str, Group]

OWN = Group("")
"""A group of ``extra_groups``, whose role is not of this collection."""

GROUPS: Groups = {
    "baseline": Group("hosts"),
    "pki": Group("hosts"),
    "firewall": Group("hosts"),
    "wireguard": Group("hosts", host_keys=("vpn_address",)),
    "etcd": Group("data", quorum=True),
    "patroni": Group("data", needs=("etcd",)),
    "pgbouncer": Group("data", within="patroni"),
    "redis": Group("data", quorum=True),
    "rabbitmq": Group("data", quorum=True, ipv4=True),
    "object_storage": Group("data"),
    "service_proxy": Group("data"),
    "pgpool": Group("data", needs=("patroni",), within="service_proxy"),
    # Any member of patroni may lead, and who leads archives.
    "pgbackrest": Group("data", on_all_of="patroni"),
    "nvidia_driver": Group("models"),
    # Both find their packages in the source that the driver's role configures, and are of no use without a driver.
    "cuda": Group("models", within="nvidia_driver"),
    "nvidia_container_toolkit": Group("models", within="nvidia_driver"),
    "vllm": Group("models"),
    "model_gateway": Group("models"),
    "container_engine": Group("apps"),
    "dify": Group("apps", needs=("nginx",), within="container_engine"),
    "nginx": Group("apps", needs=("model_gateway",)),
    "keepalived": Group("apps", needs=("nginx",)),
    "log_store": Group("monitoring"),
    "log_shipper": Group("monitoring", follows="log_store"),
    "exporters": Group("monitoring", follows="prometheus"),
    "alertmanager": Group("monitoring"),
    "prometheus": Group("monitoring"),
    "grafana": Group("monitoring", needs=("prometheus",)),
    "status_page": Group("monitoring", needs=("prometheus",)),
}
