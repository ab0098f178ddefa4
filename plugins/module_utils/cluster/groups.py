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


Groups = Mapping[str, Group]

GROUPS: Groups = {
    "baseline": Group("hosts"),
    "pki": Group("hosts"),
    "firewall": Group("hosts"),
    "wireguard": Group("hosts", host_keys=("vpn_address",)),
    "etcd": Group("data", quorum=True),
    "patroni": Group("data", needs=("etcd",)),
    "redis": Group("data", quorum=True),
    "rabbitmq": Group("data", quorum=True),
    "object_storage": Group("data"),
    "service_proxy": Group("data"),
    "vllm": Group("models"),
    "model_gateway": Group("models"),
    "nginx": Group("apps", needs=("model_gateway",)),
    "keepalived": Group("apps", needs=("nginx",)),
}
