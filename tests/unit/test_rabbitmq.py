"""What a RabbitMQ cluster lacks, and what is wrong with it."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.sovereign.dify.plugins.module_utils.rabbitmq import Definitions, faults, hash_password, is_password, missing

WANTED: dict[str, Any] = {
    "vhosts": ["dify"],
    "users": {"dify": {"permissions": {"dify": {"configure": ".*", "write": ".*", "read": ".*"}}}},
    "passwords": {"dify": "secret"},
    "policies": [
        {"name": "poison", "vhost": "dify", "pattern": "^jobs", "definition": {"delivery-limit": 5}, "apply_to": "queues", "priority": None}
    ],
}
MEMBERS = ["rabbit@10.1.1.11", "rabbit@10.1.1.12", "rabbit@10.1.1.13"]
WHOLE: dict[str, Any] = {
    "running_nodes": MEMBERS,
    "disk_nodes": MEMBERS,
    "partitions": {},
    "alarms": [],
    "maintenance_status": dict.fromkeys(MEMBERS, "not under maintenance"),
    "feature_flags": [{"name": "stream_filtering", "state": "enabled"}, {"name": "khepri_db", "state": "disabled", "stability": "experimental"}],
}


def after_import(definitions: Definitions) -> Definitions:
    """What a cluster exports once it has imported the definitions."""
    exported = copy.deepcopy(definitions)
    for vhost in exported["vhosts"]:
        vhost |= {"limits": [], "metadata": {"description": "", "tags": [], "default_queue_type": vhost["default_queue_type"]}}
    return exported


def test_the_hash_is_the_one_that_rabbitmq_documents() -> None:
    # https://www.rabbitmq.com/docs/passwords#computing-password-hash
    assert hash_password("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert is_password("test12", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
    assert not is_password("test13", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
    assert hash_password("test12") != hash_password("test12")


def test_a_new_cluster_lacks_everything_and_afterwards_nothing() -> None:
    lacking, words = missing({"users": [{"name": "guest", "tags": ["administrator"], "password_hash": ""}]}, **WANTED)
    assert words == ["virtual host /", "virtual host dify", "user dify", "permissions of dify on dify", "policy poison on dify"]
    assert missing(after_import(lacking), **WANTED) == ({}, [])


def test_only_what_differs_is_imported() -> None:
    present = after_import(missing({}, **WANTED)[0])
    present["permissions"][0]["write"] = ""
    present["vhosts"][1]["metadata"]["default_queue_type"] = "classic"
    lacking, words = missing(present, **WANTED)
    assert words == ["virtual host dify", "permissions of dify on dify"]
    assert list(lacking) == ["vhosts", "permissions"]
    assert missing(present, **{**WANTED, "passwords": {"dify": "another"}})[1] == ["virtual host dify", "user dify", "permissions of dify on dify"]


def test_what_is_not_declared_is_left_alone() -> None:
    present = after_import(missing({}, **WANTED)[0])
    present["users"].append({"name": "somebody", "tags": [], "password_hash": ""})
    assert missing(present, **WANTED) == ({}, [])


def test_a_whole_cluster_has_no_faults() -> None:
    assert faults(WHOLE, MEMBERS) == ([], [])


def test_faults_are_told_in_words() -> None:
    broken = {
        **WHOLE,
        "running_nodes": MEMBERS[:2],
        "disk_nodes": [*MEMBERS, "rabbit@10.1.1.14"],
        "alarms": [{"node": MEMBERS[0], "resource": "disk", "type": "resource_limit"}],
        "maintenance_status": {MEMBERS[1]: "marked for maintenance"},
        "feature_flags": [{"name": "message_containers", "state": "disabled"}],
    }
    found, warnings = faults(broken, MEMBERS)
    assert [fault.split(" ")[0].rstrip(":,") for fault in found] == ["rabbit@10.1.1.13", "rabbit@10.1.1.14", "alarm", "rabbit@10.1.1.12"]
    assert "message_containers" in warnings[0]
