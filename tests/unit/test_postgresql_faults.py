"""What the roles of PostgreSQL and of what stands around it refuse before they change anything: only what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit import role_variables
from tests.unit.inventory.cases import HERE
from tests.unit.role_variables import PROJECT

CLUSTER = (HERE / "good/dify/cluster.yml").read_text(encoding="utf-8")
OWN = "198.18.1.41"
MEMBERS = [{"name": "hq-db1", "address": OWN}, {"name": "hq-db2", "address": "198.18.1.42"}, {"name": "hq-db3", "address": "198.18.1.43"}]
SECRET = "s" * 43
FACTS: dict[str, Any] = {"distribution": "Debian", "distribution_major_version": "13", "memtotal_mb": 4096, "processor_vcpus": 2}
UBUNTU = FACTS | {"distribution": "Ubuntu", "distribution_major_version": "24"}
DEBIAN = FACTS | {"distribution_major_version": "12"}
GOOD: dict[str, dict[str, Any]] = {
    "etcd": {"etcd_members": MEMBERS},
    "patroni": {
        "patroni_members": MEMBERS,
        "patroni_etcd_addresses": [OWN],
        "patroni_roles": [{"name": "dify"}],
        "patroni_passwords": {"dify": SECRET},
        "patroni_databases": [{"name": "dify", "owner": "dify"}],
        "patroni_replication_password": SECRET,
        "patroni_rewind_password": SECRET,
    },
    "pgbouncer": {"pgbouncer_databases": [{"name": "dify"}]},
    "pgpool": {"pgpool_users": ["dify"], "pgpool_passwords": {"dify": SECRET}, "pgpool_key": SECRET},
    "pgbackrest": {"pgbackrest_s3_endpoint": "https://localhost:9001", "pgbackrest_s3_key_secret": SECRET, "pgbackrest_cipher_passphrase": SECRET},
}
FOUND: dict[str, Any] = {
    "__pgbackrest_found": {"backups": [{"backup": "20261122-013000F"}], "outside": "", "running": False, "size": 1_000_000_000},
    "__pgbackrest_cluster": {"json": {"members": []}},
    "__pgbackrest_tablespaces": {"matched": 0},
    "__pgbackrest_room": {"stdout_lines": ["Avail", "2173741825"]},
    "pgbackrest_restore_set": "",
    "pgbackrest_restore_time": "",
    "pgbackrest_restore_name": "",
}


def faults(role: str, kind: str = "faults", **changes: Any) -> list[str]:
    """Give what a role says of the good variables with some changes."""
    variables = role_variables.role_variables(role, CLUSTER, "hq-db1") | {"ansible_facts": FACTS} | GOOD[role] | changes
    return role_variables.faults(role, kind, variables)


@pytest.mark.parametrize("role", GOOD)
def test_what_is_right_is_not_refused(role: str) -> None:
    assert faults(role) == []
    if role in {"patroni", "pgpool", "pgbackrest"}:
        assert faults(role, "secret_faults") == []


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("etcd", {"ansible_facts": UBUNTU}, "etcd 3.5 of Debian 13, and the host has Ubuntu 24."),
        ("etcd", {"ansible_facts": DEBIAN}, "the host has Debian 12."),
        ("etcd", {"etcd_members": MEMBERS[1:]}, f"must name this host (hq-db1 at {OWN}) exactly once."),
        ("etcd", {"etcd_address": "198.18.1.42"}, "must name this host (hq-db1 at 198.18.1.42) exactly once."),
        ("etcd", {"etcd_members": [*MEMBERS[:2], {"name": "hq-db2", "address": "198.18.1.43"}]}, "one name (hq-db1, hq-db2, hq-db2)"),
        ("etcd", {"etcd_election_timeout": 499}, "etcd_election_timeout (499) must be at least five times etcd_heartbeat_interval (100)."),
        ("patroni", {"ansible_facts": DEBIAN}, "PostgreSQL 17 of Debian 13, and the host has Debian 12."),
        ("patroni", {"patroni_members": [*MEMBERS, MEMBERS[0]]}, f"must name this host (hq-db1 at {OWN}) exactly once."),
        ("patroni", {"patroni_etcd_addresses": []}, "patroni_etcd_addresses names no etcd."),
        ("patroni", {"patroni_ttl": 19, "patroni_loop_wait": 1}, "patroni_ttl (19) must be at least 20"),
        ("patroni", {"patroni_loop_wait": 9}, "at least patroni_loop_wait (9) and twice patroni_retry_timeout (6) together."),
        (
            "patroni",
            {"patroni_roles": [{"name": "dify"}, {"name": "rewinder"}]},
            "roles of the platform itself: rename rewinder.",
        ),
        ("patroni", {"patroni_databases": [{"owner": "dify"}, {"owner": "other"}]}, "owners who are not in patroni_roles: other."),
        ("pgbouncer", {"ansible_facts": UBUNTU}, "made for Debian 13, and the host has Ubuntu 24."),
        ("pgbouncer", {"pgbouncer_databases": []}, "pgbouncer_databases is empty"),
        ("pgbouncer", {"pgbouncer_databases": [{"name": "dify"}, {"name": "*"}, {"name": "pgbouncer_lookup"}]}, "take out *, pgbouncer_lookup."),
        ("pgbouncer", {"pgbouncer_databases": [{"name": "pgbouncer"}]}, "what PgBouncer has for itself: take out pgbouncer."),
        ("pgpool", {"ansible_facts": DEBIAN}, "made for Debian 13, and the host has Debian 12."),
        ("pgpool", {"pgpool_users": []}, "pgpool_users is empty: name a user."),
        ("pgpool", {"pgpool_users": ["dify", "-x", "a:b"]}, "rename -x, a:b."),
        ("pgpool", {"pgpool_read_port": "5432"}, "The ports must differ: pgpool_port is 5434, pgpool_write_port 5432, pgpool_read_port 5432."),
        ("pgbackrest", {"ansible_facts": UBUNTU}, "PostgreSQL 17 of Debian 13, and the host has Ubuntu 24."),
        ("pgbackrest", {"pgbackrest_stanza": "other"}, "pgbackrest_stanza (other) must be what patroni_scope is, lab-hq"),
        ("pgbackrest", {"pgbackrest_stanza": "bank", "patroni_scope": "other"}, "pgbackrest_stanza (bank) must be what patroni_scope is, other"),
        ("pgbackrest", {"pgbackrest_path": "backups"}, "pgbackrest_path (backups) must begin with a slash and go on."),
        ("pgbackrest", {"pgbackrest_path": "/"}, "pgbackrest_path (/) must begin with a slash and go on."),
        ("pgbackrest", {"pgbackrest_s3_endpoint": "http://localhost:9000"}, "pgbackrest_s3_endpoint (http://localhost:9000) must be one with TLS"),
        ("pgbackrest", {"pgbackrest_s3_endpoint": "https://localhost/x"}, "without a path"),
        ("pgbackrest", {"pgbackrest_queue_max": "16"}, "pgbackrest_queue_max (16) must be a size such as 16GiB."),
        ("pgbackrest", {"pgbackrest_full_days": ["Sun", "Sunday"]}, "Mon, Tue, Wed, Thu, Fri, Sat, Sun; these are not: Sunday."),
        ("pgbackrest", {"pgbackrest_settings": {"io-timeout": 5, "A b": 1}}, "these cannot be: A b."),
    ],
)
def test_what_is_wrong_is_named_and_nothing_else(role: str, changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(role, **changes)
    assert said in fault


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(faults("patroni", ansible_facts=UBUNTU, patroni_members=MEMBERS[1:], patroni_etcd_addresses=[], patroni_ttl=10)) == 4


@pytest.mark.parametrize(
    ("role", "changes", "said"),
    [
        ("patroni", {"patroni_passwords": {"other": "x" * 43}}, "patroni_passwords lacks the password of dify."),
        ("patroni", {"patroni_passwords": {"dify": "p" * 19}}, "at least 20"),
        ("patroni", {"patroni_replication_password": "p p" * 10}, "at least 20"),
        ("patroni", {"patroni_rewind_password": "short"}, "at least 20"),
        ("pgpool", {"pgpool_passwords": {"other": "x" * 43}}, "pgpool_passwords lacks the password of dify."),
        ("pgpool", {"pgpool_passwords": {"dify": "p" * 15}}, "16 to 80"),
        ("pgpool", {"pgpool_passwords": {"dify": "p" * 81}}, "16 to 80"),
        ("pgpool", {"pgpool_key": "k" * 19}, "pgpool_key must have at least 20"),
        ("pgbackrest", {"pgbackrest_cipher_passphrase": "c" * 19}, "pgbackrest_cipher_passphrase must have at least 20"),
        ("pgbackrest", {"pgbackrest_s3_key_secret": ""}, "pgbackrest_s3_key_secret must be given"),
        ("pgbackrest", {"pgbackrest_s3_key_secret": "a b"}, "pgbackrest_s3_key_secret must be given"),
    ],
)
def test_secrets_that_are_none_are_refused_and_never_shown(role: str, changes: dict[str, Any], said: str) -> None:
    (fault,) = faults(role, "secret_faults", **changes)
    assert said in fault
    assert faults(role, **changes) == []
    (given,) = changes.values()
    for secret in given.values() if isinstance(given, dict) else [given]:
        assert not secret or secret not in fault
    tasks = yaml.safe_load((PROJECT / "roles" / role / "tasks/preflight.yml").read_text(encoding="utf-8"))
    (shown,) = [task for task in tasks if task.get("when") == f"__{role}_secret_faults | length > 0"]
    assert shown["no_log"] is True


def test_a_repository_on_a_share_needs_neither_an_endpoint_nor_its_secret_and_one_in_clear_no_passphrase() -> None:
    share = {"pgbackrest_repository": "posix", "pgbackrest_s3_endpoint": "", "pgbackrest_s3_key_secret": "", "pgbackrest_cipher_passphrase": ""}
    assert faults("pgbackrest", **share) == faults("pgbackrest", "secret_faults", **share) == []


def test_a_restore_that_would_work_is_not_refused() -> None:
    assert faults("pgbackrest", "restore_faults", **FOUND) == []
    # Nobody answers where the cluster is lost, and a target and a backup may be given.
    given = {
        "pgbackrest_restore_time": "2026-11-22 12:00:00+00",
        "pgbackrest_restore_set": "20261122-013000F",
        "__pgbackrest_cluster": {"status": -1},
    }
    assert faults("pgbackrest", "restore_faults", **FOUND | given) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"__pgbackrest_found": FOUND["__pgbackrest_found"] | {"backups": []}}, "The repository has no backup."),
        ({"__pgbackrest_found": FOUND["__pgbackrest_found"] | {"outside": "the log has a gap"}}, "the repository holds: the log has a gap."),
        ({"__pgbackrest_cluster": {"json": {"pause": True}}}, "Patroni is paused"),
        ({"__pgbackrest_found": FOUND["__pgbackrest_found"] | {"running": True}}, "A backup is being made"),
        ({"__pgbackrest_tablespaces": {"matched": 1}}, "tablespaces outside the data directory"),
        ({"__pgbackrest_room": {"stdout_lines": ["Avail", "2173741824"]}}, "they need 2.0 GB, free are 2.2 GB."),
        ({"pgbackrest_restore_set": "20260101-000000F"}, "restore_set (20260101-000000F) is none of the backups."),
        ({"pgbackrest_restore_time": "2026-11-22 12:00:00+00", "pgbackrest_restore_name": "before"}, "Give one target"),
    ],
)
def test_a_restore_that_would_fail_half_way_is_refused_and_nothing_else_is_said(changes: dict[str, Any], said: str) -> None:
    (fault,) = faults("pgbackrest", "restore_faults", **FOUND | changes)
    assert said in fault
