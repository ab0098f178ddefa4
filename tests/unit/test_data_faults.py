"""What the roles of the data services and of the entry's address refuse before they change anything: only what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit import role_variables
from tests.unit.inventory.cases import HERE
from tests.unit.role_variables import PROJECT

CLUSTER = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")
OWN = "198.18.1.41"
PAIR = [{"name": "hq-gw1", "address": OWN}, {"name": "hq-gw2", "address": "198.18.1.12"}]
SECRET, OTHER = "s" * 43, "t" * 43
FACTS: dict[str, Any] = {
    "distribution": "Debian",
    "distribution_version": "13.1",
    "distribution_major_version": "13",
    "memtotal_mb": 4096,
    "mounts": [{"mount": "/srv/node/d1"}],
    "interfaces": ["eth-0"],
    "eth_0": {"device": "eth-0", "ipv4": {"address": OWN}},
    "ansible_local": {},
}
UBUNTU = FACTS | {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
GOOD: dict[str, dict[str, Any]] = {
    "redis": {
        "redis_members": [OWN, "198.18.1.42", "198.18.1.43"],
        "redis_passwords": {"dify": SECRET, "admin": "a" * 43, "replication": "r" * 43, "sentinel": "e" * 43, "service_proxy": ["p" * 43, "q" * 43]},
    },
    "rabbitmq": {"rabbitmq_members": [OWN, "198.18.1.42"], "rabbitmq_passwords": {"dify": SECRET}, "rabbitmq_cookie": SECRET},
    "object_storage": {
        "object_storage_members": [{"name": name, "fqdn": name, "address": f"198.18.1.{last}"} for name, last in (("a", 41), ("b", 42), ("c", 43))],
        "object_storage_users": {"dify": {}},
        "object_storage_keys": {"dify": [SECRET, OTHER]},
        "object_storage_buckets": [{"name": "uploads", "owner": "dify"}],
    },
    "service_proxy": {"service_proxy_redis": PAIR, "service_proxy_redis_password": SECRET},
    "keepalived": {"keepalived_address": "198.18.1.10", "keepalived_members": PAIR},
}


def faults(role: str, kind: str = "faults", **changes: Any) -> list[str]:
    """Give what a role says of the good variables with some changes."""
    variables = role_variables.role_variables(role, CLUSTER, "hq-db1") | {"ansible_facts": FACTS} | GOOD[role] | changes
    return role_variables.faults(role, kind, variables)


@pytest.mark.parametrize("role", GOOD)
def test_what_is_right_is_not_refused(role: str) -> None:
    assert faults(role) == []
    if role in {"redis", "rabbitmq", "object_storage"}:
        assert faults(role, "secret_faults") == []


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("redis", {"ansible_facts": UBUNTU}, "Ubuntu 24.04 is not among the supported platforms (Debian 13)."),
        ("redis", {"redis_address": "198.18.1.9"}, f"redis_address (198.18.1.9) is none of redis_members ({OWN}, 198.18.1.42, 198.18.1.43)."),
        ("redis", {"redis_min_replicas": 3}, "redis_min_replicas (3) must be less than the number of redis_members (3), one of whom leads."),
        ("redis", {"redis_max_lag": 3}, "redis_max_lag (3 s) must be at most redis_down_after (2 s)"),
        ("redis", {"redis_users": {"admin": [], "default": [], "dify": []}}, "other names than the role's own: admin, default."),
        ("redis", {"redis_users": {"-x": [], "dify": []}}, "a letter or a digit first: -x."),
        (
            "rabbitmq",
            {"ansible_facts": FACTS | {"distribution_major_version": "12"}},
            "Debian 13.1 is not among the supported platforms (Debian 13).",
        ),
        ("rabbitmq", {"rabbitmq_address": "198.18.1.9"}, f"rabbitmq_address (198.18.1.9) is none of rabbitmq_members ({OWN}, 198.18.1.42)."),
        ("rabbitmq", {"rabbitmq_members": [OWN, "fd00::1"]}, "no room for one of IPv6 (fd00::1)."),
        ("rabbitmq", {"rabbitmq_users": {"dify": {"permissions": {}}, "bare": {}, "none": None}}, "permissions, be they none ({}): bare, none."),
        ("rabbitmq", {"rabbitmq_users": {"dify": {"permissions": {"/": {}, "x": {}}}}}, "virtual hosts that rabbitmq_vhosts does not name: x."),
        (
            "rabbitmq",
            {"rabbitmq_policies": [{"vhost": "dify"}, {"vhost": "y"}]},
            "rabbitmq_policies are for virtual hosts that rabbitmq_vhosts does not name: y.",
        ),
        ("rabbitmq", {"rabbitmq_users": {"guest": {"permissions": {}}}}, "There is no user guest"),
        ("object_storage", {"ansible_facts": UBUNTU}, "Ubuntu 24.04 is not among the supported platforms (Debian 13)."),
        (
            "object_storage",
            {"object_storage_address": "198.18.1.9"},
            "object_storage_address (198.18.1.9) must be that of one of object_storage_members",
        ),
        (
            "object_storage",
            {"object_storage_loopback_addresses": {"b": "128.0.0.1"}},
            "beside 127.0.0.1 and 127.0.1.1 (127.18.1.41, 128.0.0.1, 127.18.1.43)",
        ),
        ("object_storage", {"object_storage_loopback_addresses": {"b": "127.0.1.1"}}, "(127.18.1.41, 127.0.1.1, 127.18.1.43)"),
        ("object_storage", {"object_storage_loopback_addresses": {"b": "127.18.1.41"}}, "(127.18.1.41, 127.18.1.41, 127.18.1.43)"),
        ("object_storage", {"object_storage_devices": [{"name": "d1"}, {"name": "d/2"}, {}]}, "a letter or a digit first: d/2, (no name)."),
        (
            "object_storage",
            {"object_storage_devices": [{"name": "d1"}, {"name": "d2"}], "object_storage_mount_check": True},
            "object_storage_mount_check is set, and nothing is mounted at /srv/node/d2.",
        ),
        ("object_storage", {"object_storage_users": {"dify": {}, "Other": {}}}, "a dash not first: Other."),
        (
            "object_storage",
            {"object_storage_buckets": [{"name": "a", "owner": "dify"}, {"name": "b", "owner": "x"}, {"name": "c"}]},
            "one of object_storage_users as its owner: c, b.",
        ),
        ("service_proxy", {"service_proxy_ports": {"redis": 6379, "rabbitmq": 6379}}, "to more than one service (redis 6379, rabbitmq 6379)."),
        ("service_proxy", {"service_proxy_ports": {"redis": 1023, "rabbitmq": 1024}}, "above 1023; these are not: redis."),
        ("service_proxy", {"service_proxy_redis_password": "p" * 15}, "service_proxy_redis_password, with which Redis is asked"),
        (
            "service_proxy",
            {"service_proxy_redis_user": "probe", "redis_users": {"app": []}},
            "service_proxy_redis_user (probe) is none of the users that Redis has (service_proxy, app): name it in redis_users",
        ),
        ("service_proxy", {"service_proxy_redis_password": "p p" * 10}, "at least 16 characters, and no blanks."),
        ("keepalived", {"keepalived_address": "nowhere"}, "keepalived_address (nowhere) is no address."),
        ("keepalived", {"keepalived_members": [{"address": "198.18.1.12"}] * 2}, f"must have this host once, at {OWN} (198.18.1.12, 198.18.1.12)."),
        ("keepalived", {"ansible_facts": FACTS | {"interfaces": []}}, f"No interface of this host has {OWN}: name one in keepalived_interface."),
        ("keepalived", {"keepalived_members": PAIR[:1]}, "No other host could take 198.18.1.10 over (1 in keepalived_members)"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(role: str, changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(role, **changes)
    assert said in fault


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(faults("redis", ansible_facts=UBUNTU, redis_address="198.18.1.9", redis_min_replicas=3, redis_max_lag=3)) == 4


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("redis", {"redis_passwords": GOOD["redis"]["redis_passwords"] | {"dify": "short"}}, "at least 20"),
        ("redis", {"redis_passwords": GOOD["redis"]["redis_passwords"] | {"dify": ["x" * 43, "y z" * 10]}}, "at least 20"),
        ("redis", {"redis_passwords": GOOD["redis"]["redis_passwords"] | {"dify": ["x" * 43, "a" * 43]}}, "two have the same"),
        ("rabbitmq", {"rabbitmq_passwords": {"dify": "p p" * 10}}, "at least 20"),
        ("rabbitmq", {"rabbitmq_cookie": "c" * 19}, "rabbitmq_cookie"),
        ("object_storage", {"object_storage_keys": {"dify": [SECRET, "short"]}}, "at least 20"),
    ],
)
def test_secrets_that_could_be_guessed_are_refused_and_never_shown(role: str, changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(role, "secret_faults", **changes)
    assert said in fault
    assert faults(role, **changes) == []
    (secret,) = changes.values()
    given = secret.values() if isinstance(secret, dict) else [secret]
    for value in (part for values in given for part in ([values] if isinstance(values, str) else values)):
        assert value not in fault
    tasks = yaml.safe_load((PROJECT / "roles" / role / "tasks/preflight.yml").read_text(encoding="utf-8"))
    (shown,) = [task for task in tasks if task["when"] == f"__{role}_secret_faults | length > 0"]
    assert shown["no_log"] is True


def test_a_password_is_not_looked_up_where_redis_is_not_asked() -> None:
    assert faults("service_proxy", service_proxy_redis=[], service_proxy_redis_password="", service_proxy_redis_user="probe") == []
    assert faults("service_proxy", service_proxy_redis_user="probe", redis_users={"probe": []}) == []
