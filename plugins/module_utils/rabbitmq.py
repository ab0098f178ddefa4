# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A RabbitMQ cluster: what its command-line tools tell, compared with what is wanted. The standard library only.

Definitions have the form of https://www.rabbitmq.com/docs/definitions, passwords that of https://www.rabbitmq.com/docs/passwords.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HASHING = "rabbit_password_hashing_sha256"
SALT_BYTES = 4

Definitions = dict[str, list[dict[str, Any]]]
"""Lists of objects by kind: ``vhosts``, ``users``, ``permissions``, ``policies``."""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Hash a password as RabbitMQ keeps it: base64 of the salt and of the SHA-256 of salt and password."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def is_password(password: str, hashed: str) -> bool:
    """Tell whether a hash is one of a password."""
    return hmac.compare_digest(hash_password(password, base64.b64decode(hashed)[:SALT_BYTES]), hashed)


def missing(
    present: Definitions,
    vhosts: Iterable[str],
    users: Mapping[str, Mapping[str, Any]],
    passwords: Mapping[str, str],
    policies: Iterable[Mapping[str, Any]],
) -> tuple[Definitions, list[str]]:
    """Compare what is wanted with what a cluster has.

    Args:
        present: The cluster's definitions.
        vhosts: Virtual hosts, in each of which queues are quorum queues unless a client wants others.
        users: By name ``permissions`` (by virtual host) and, if any, ``tags``.
        passwords: By user.
        policies: Each with ``name``, ``vhost``, ``pattern``, ``definition`` and, if they are given, ``apply_to`` and ``priority``.

    Returns:
        The definitions to import, only what differs, and in words what that is.
    """
    wanted: Definitions = {"vhosts": [], "users": [], "permissions": [], "policies": []}
    words = []
    known = {vhost["name"]: vhost for vhost in present.get("vhosts", [])}
    for name in ["/", *vhosts]:
        if known.get(name, {}).get("metadata", {}).get("default_queue_type") != "quorum":
            wanted["vhosts"].append({"name": name, "default_queue_type": "quorum", "metadata": {"default_queue_type": "quorum"}})
            words.append(f"virtual host {name}")
    accounts = {user["name"]: user for user in present.get("users", [])}
    allowed = {(item["user"], item["vhost"]): item for item in present.get("permissions", [])}
    for name, user in users.items():
        tags, account = list(user.get("tags", [])), accounts.get(name)
        if not account or sorted(account["tags"]) != sorted(tags) or not is_password(passwords[name], account["password_hash"]):
            wanted["users"].append({"name": name, "password_hash": hash_password(passwords[name]), "hashing_algorithm": HASHING, "tags": tags})
            words.append(f"user {name}")
        for vhost, given in user.get("permissions", {}).items():
            permission = {"user": name, "vhost": vhost, **{right: given.get(right, "") for right in ("configure", "write", "read")}}
            if allowed.get((name, vhost)) != permission:
                wanted["permissions"].append(permission)
                words.append(f"permissions of {name} on {vhost}")
    set_policies = {(item["vhost"], item["name"]): item for item in present.get("policies", [])}
    for given in policies:
        policy = {
            **{key: given[key] for key in ("vhost", "name", "pattern", "definition")},
            "apply-to": given.get("apply_to") or "all",
            "priority": given.get("priority") or 0,
        }
        if set_policies.get((policy["vhost"], policy["name"])) != policy:
            wanted["policies"].append(policy)
            words.append(f"policy {policy['name']} on {policy['vhost']}")
    return {kind: items for kind, items in wanted.items() if items}, words


def faults(status: Mapping[str, Any], members: Sequence[str]) -> tuple[list[str], list[str]]:
    """Judge what ``cluster_status`` tells.

    Returns:
        What is wrong, and what is only worth a warning.
    """
    running = set(status["running_nodes"])
    found = []
    if gone := [node for node in members if node not in running]:
        found.append(f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} not running in the cluster")
    if strange := sorted(set(status["disk_nodes"]) - set(members)):
        found.append(
            f"{', '.join(strange)} belong to the cluster, but not to its members; of nodes that are gone, 'rabbitmqctl forget_cluster_node' forgets"
        )
    if status.get("partitions"):
        found.append(f"the cluster is divided: {json.dumps(status['partitions'])}")
    found += [f"alarm: {json.dumps(alarm)}" for alarm in status.get("alarms", [])]
    drained = [node for node, state in status.get("maintenance_status", {}).items() if state not in {"not under maintenance", "regular"}]
    if drained:
        found.append(f"{', '.join(drained)} is under maintenance, until it is restarted or 'rabbitmq-upgrade revive' is run there")
    flags = [flag["name"] for flag in status.get("feature_flags", []) if flag["state"] == "disabled" and flag.get("stability", "stable") == "stable"]
    warnings = [f"feature flags are off that a newer release may need: {', '.join(flags)} (tasks_from: upgrade)"] if flags else []
    return found, warnings
