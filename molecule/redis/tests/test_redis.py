"""What a set gives its clients, and whom it refuses; each refusal beside a twin that is let through."""

from __future__ import annotations

from typing import Any

import pytest
from redis_set import ADDRESS, admin, master, password

from lab.testing import tls_faults

TLS = "--tls --cacert /etc/sovereign/pki/ca.crt"
MUTUAL = f"{TLS} --cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key"


def ask(on: Any, address: str, options: str, command: str, user: str = "dify", key: str | None = None, port: int = 6379) -> str:
    """Ask a server from redis3; give whatever comes back."""
    login = f"REDISCLI_AUTH={password(user) if key is None else key} " if user else ""
    named = f"--user {user}" if user else ""
    run = on("redis3").run(f"{login}timeout 5 redis-cli -t 2 -h {address} -p {port} {options} {named} {command}")
    return f"{run.stdout}{run.stderr}"


def test_what_the_master_acknowledged_is_read_from_the_replicas(on: Any) -> None:
    leader = master(on)
    assert ask(on, ADDRESS[leader], MUTUAL, "set greeting hello") == "OK\n"
    assert ask(on, ADDRESS[leader], MUTUAL, "wait 2 5000") == "2\n"
    for host in ADDRESS:
        assert ask(on, ADDRESS[host], MUTUAL, "get greeting") == "hello\n"
        written = ask(on, ADDRESS[host], MUTUAL, "set greeting hello")
        assert ("OK" in written) == (host == leader), written


@pytest.mark.parametrize(
    ("options", "more", "refusal"),
    [
        pytest.param("", {}, "I/O error", id="plaintext"),
        pytest.param(TLS, {}, "error", id="no certificate"),
        pytest.param(MUTUAL, {"key": "x" * 43}, "WRONGPASS", id="wrong password"),
        pytest.param(MUTUAL, {"user": ""}, "NOAUTH", id="no user"),
        pytest.param(MUTUAL, {"user": "replication"}, "NOPERM", id="another user"),
    ],
)
def test_who_may_connect(on: Any, options: str, more: dict[str, str], refusal: str) -> None:
    address = ADDRESS[master(on)]
    assert ask(on, address, MUTUAL, "set greeting hello") == "OK\n"
    assert ask(on, address, MUTUAL, "get greeting") == "hello\n"
    refused = ask(on, address, options, "get greeting", **more)
    assert "hello" not in refused
    assert refusal in refused


@pytest.mark.parametrize("command", ["config get masterauth", "acl list", "flushall", "replicaof no one", "shutdown", "keys x"])
def test_what_an_application_may_not_do(on: Any, command: str) -> None:
    address = ADDRESS[master(on)]
    assert "NOPERM" in ask(on, address, MUTUAL, command)
    assert "redis_version" in ask(on, address, MUTUAL, "info server")


def test_health_checks_may_ask_for_the_role_and_nothing_else(on: Any) -> None:
    address = ADDRESS[master(on)]
    assert ask(on, address, MUTUAL, "role", user="service_proxy").startswith("master")
    assert "NOPERM" in ask(on, address, MUTUAL, "get greeting", user="service_proxy")


def test_sentinel_wants_a_certificate_and_a_user_too(on: Any) -> None:
    question, sentinel = "sentinel get-master-addr-by-name mymaster", ADDRESS["redis2"]
    leader = ADDRESS[master(on)]
    assert leader in ask(on, sentinel, MUTUAL, question, user="sentinel", port=26379)
    assert leader not in ask(on, sentinel, MUTUAL, question, user="", port=26379)
    assert leader not in ask(on, sentinel, TLS, question, user="sentinel", port=26379)


@pytest.mark.parametrize("port", [6379, 26379])
def test_old_cipher_suites_are_refused(on: Any, port: int) -> None:
    assert tls_faults(on("redis3"), f"{ADDRESS['redis1']}:{port}") == []


def test_loopback_is_left_to_the_service_proxy(on: Any) -> None:
    for port in (6379, 26379):
        assert not on("redis1").socket(f"tcp://127.0.0.1:{port}").is_listening
        assert on("redis1").socket(f"tcp://{ADDRESS['redis1']}:{port}").is_listening


def test_only_root_reads_the_administrators_password(on: Any) -> None:
    read = "setpriv --reuid=redis --regid=redis --clear-groups cat /etc/redis/%s"
    assert on("redis1").run(read, "admin.password").rc != 0
    assert "user dify" in on("redis1").check_output(read, "users.acl")
    assert password("dify") not in on("redis1").check_output("cat /etc/redis/users.acl")
    assert admin(on, "redis1", "ping") == "PONG"
