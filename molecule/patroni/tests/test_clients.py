"""What clients meet: TLS and SCRAM or nothing, vectors, commits that two servers have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from patroni_cluster import ADDRESS, PKI, Cluster

from lab.testing import tls_faults


def test_a_client_connects_over_tls_with_a_password(cluster: Cluster) -> None:
    assert cluster.ask("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "TLSv1.3"
    assert cluster.inside("db1", "SELECT DISTINCT left(rolpassword, 14) FROM pg_authid WHERE rolname IN ('app', 'replicator')") == "SCRAM-SHA-256$"
    assert cluster.inside("db1", "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"


@pytest.mark.parametrize(
    ("source", "words", "complaint"),
    [
        ("client", {"tls": "sslmode=disable"}, "no encryption"),
        ("client", {"password": "wrong"}, "password authentication failed"),
        ("client", {"user": "postgres", "database": "postgres", "password": "any"}, "pg_hba.conf rejects"),
        ("client", {"user": "watcher", "database": "template1"}, None),
        ("db1", {}, "no pg_hba.conf entry"),
        ("db2", {}, "no pg_hba.conf entry"),
    ],
    ids=["without TLS", "wrong password", "superuser", "another role, as it may", "from a member", "from another member"],
)
def test_others_are_refused(cluster: Cluster, source: str, words: dict[str, str], complaint: str | None) -> None:
    assert cluster.psql("client", "db3", "SELECT 1").stdout.strip() == "1"
    answer = cluster.psql(source, "db3", "SELECT 1", **words)
    assert (answer.rc == 0) == (complaint is None), answer.stderr
    assert complaint is None or complaint in answer.stderr


def test_a_database_is_its_owners_and_theirs_who_are_named(cluster: Cluster) -> None:
    assert cluster.psql("client", "db3", "SELECT current_database()", user="watcher").stdout.strip() == "app"
    leader = cluster.leader()
    cluster.inside(leader, "CREATE DATABASE private")
    cluster.inside(leader, "REVOKE ALL ON DATABASE private FROM PUBLIC")
    try:
        assert "permission denied" in cluster.psql("client", leader, "SELECT 1", user="watcher", database="private").stderr
    finally:
        cluster.inside(leader, "DROP DATABASE private WITH (FORCE)")


def test_tls_may_be_begun_at_once(cluster: Cluster, on: Any) -> None:
    address = ADDRESS[cluster.leader()]
    hello = (
        f"openssl s_client -alpn postgresql -connect {address}:5432 -CAfile {PKI}/ca.crt -verify_return_error -verify_ip {address} </dev/null 2>&1"
    )
    assert "ALPN protocol: postgresql" in on("client").check_output(hello)
    direct = f"sslnegotiation=direct sslmode=verify-full sslrootcert={PKI}/ca.crt"
    assert cluster.psql("client", cluster.leader(), "SELECT 1", tls=direct).stdout.strip() == "1"


def test_old_cipher_suites_are_refused(on: Any) -> None:
    assert tls_faults(on("db2"), f"{ADDRESS['db1']}:5432", ["TLSv1.3"], "-starttls postgres") == []
    assert tls_faults(on("db2"), f"{ADDRESS['db1']}:8008") == []


def test_the_nearest_vector_is_found(cluster: Cluster) -> None:
    statements = """
        CREATE TEMPORARY TABLE items (name text, embedding vector(3));
        INSERT INTO items VALUES ('far', '[9,9,9]'), ('near', '[1,2,4]'), ('opposite', '[-1,-2,-3]');
        SELECT name FROM items ORDER BY embedding <-> '[1,2,3]' LIMIT 1;
    """
    assert cluster.ask(statements) == "near"


def test_a_commit_is_on_two_servers_and_the_way_between_them_is_encrypted(cluster: Cluster) -> None:
    leader = cluster.leader()
    states = cluster.inside(leader, "SELECT r.sync_state || ' ' || s.version FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid) ORDER BY 1")
    assert states.splitlines() == ["async TLSv1.3", "sync TLSv1.3"]
    assert cluster.inside(leader, "SHOW synchronous_standby_names") in ADDRESS
    assert cluster.inside(leader, "SHOW data_checksums") == "on"


def test_the_memory_is_what_the_inventory_says(cluster: Cluster) -> None:
    for host in ADDRESS:
        assert cluster.inside(host, "SHOW shared_buffers") == "128MB"
        assert cluster.inside(host, "SHOW effective_cache_size") == "358MB"
        assert cluster.inside(host, "SHOW max_connections") == "450"


def test_everybody_may_look_and_only_members_may_change(on: Any) -> None:
    curl = f"curl --silent --noproxy '*' --max-time 5 --cacert {PKI}/ca.crt --output /dev/null --write-out %s https://{ADDRESS['db1']}:8008"
    mutual, change = f"--cert {PKI}/host.crt --key {PKI}/host.key", "/config --request PATCH --data %s"
    said = ("%{http_code}", json.dumps({"ttl": 20}))
    assert on("client").check_output(f"{curl}/cluster", said[0]) == "200"
    assert on("db2").check_output(f"{curl}{change} {mutual}", *said) == "200"
    assert on("db2").check_output(f"{curl}{change}", *said) == "403"
    assert on("client").check_output(f"{curl}{change} {mutual}", *said) == "403"


def test_the_firewall_keeps_clients_from_etcd(on: Any) -> None:
    probe = f"curl --silent --noproxy '*' --max-time 3 --insecure --cert {PKI}/host.crt --key {PKI}/host.key https://{ADDRESS['db1']}:"
    assert on("client").run(f"{probe}8008").rc == 0
    timed_out = 28
    assert on("client").run(f"{probe}2379").rc == timed_out
