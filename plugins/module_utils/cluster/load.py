# SPDX-License-Identifier: GPL-3.0-or-later
"""The door: text of a cluster file in, contract or mistakes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from ansible_collections.sovereign.dify.plugins.module_utils.cluster import (
    contract,
    document,
    hosts,
    rules_addresses,
    rules_dify,
    rules_hosts,
    rules_models,
)
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.contract import Contract
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.groups import GROUPS, OWN, Groups
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.hosts import Earlier
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.plan import Plan
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.report import RefusedError, Report
from ansible_collections.sovereign.dify.plugins.module_utils.cluster.spec import CLUSTER, ClusterSpec


def load(text: str, filename: str, earlier: Earlier | None = None, groups: Groups | None = None) -> Contract:
    """Read a cluster file.

    Args:
        text: content of the file.
        filename: its path; relative paths in it start from its directory.
        earlier: what inventory sources loaded earlier have declared.
        groups: the groups that exist, unless those of ``GROUPS``.

    Returns:
        The contract.

    Raises:
        RefusedError: the file holds mistakes; all of them are in the report.
    """
    report = Report(filename)
    node = document.compose(text, report)
    if node is None:
        raise RefusedError(report)
    spec = cast(ClusterSpec, CLUSTER.read(node, (), report))
    known = {**dict.fromkeys(spec.extra_groups, OWN), **(GROUPS if groups is None else groups)}
    plan = Plan(spec, hosts.gather(spec, earlier or Earlier(), known, report))
    rules_addresses.check(plan, report)
    rules_hosts.check(plan, known, report)
    rules_models.check(plan, report)
    rules_dify.check(plan, report)
    if report.mistakes:
        raise RefusedError(report)
    file = Path(os.path.abspath(filename))  # noqa: PTH100 (resolve() would follow a linked inventory away from its neighbours)
    return contract.build(plan, known, file)
