"""What a cluster gives its clients, and whom it refuses; each refusal beside a twin that is let through."""

from __future__ import annotations

from typing import Any

import pytest
from rabbit_cluster import ADDRESS, DECLARER, HOST, begin, password, queue, result, running, visit

from lab.testing import tls_faults


def test_three_nodes_are_one_cluster(on: Any) -> None:
    for host in ADDRESS:
        assert running(on, host) == set(HOST)


def test_nodes_speak_to_each_other_only_over_tls_with_certificates_on_both_sides(on: Any) -> None:
    host = on("rabbit2")
    ask = f"timeout 3 openssl s_client -connect {ADDRESS['rabbit1']}:25672 -CAfile /etc/sovereign/pki/ca.crt -verify_return_error -ign_eof"
    own = "-cert /etc/sovereign/pki/host.crt -key /etc/sovereign/pki/host.key"
    # With TLS 1.3 the refusal of a client comes after the handshake, as an alert.
    assert "certificate required" in host.run(f"{ask} </dev/null").stderr
    welcome = host.run(f"{ask} {own} </dev/null")
    assert "Verification: OK" in welcome.stdout
    assert "alert" not in welcome.stderr


def test_a_queue_is_a_quorum_queue_unless_a_client_wants_another(on: Any) -> None:
    assert result(begin("rabbit1", DECLARER, address=ADDRESS["rabbit2"], queue="plain")) == "declared"
    assert queue(on, "rabbit1", "plain")["type"] in {"quorum", "rabbit_quorum_queue"}
    on("rabbit1").check_output("rabbitmqctl --quiet delete_queue --vhost dify plain")


@pytest.mark.parametrize(
    ("job", "refusal"),
    [
        pytest.param({"tls": False}, "", id="plaintext"),
        pytest.param({"certificate": False}, "", id="no certificate"),
        pytest.param({"password": "x" * 43}, "ACCESS_REFUSED", id="wrong password"),
        pytest.param({"user": "guest", "password": "guest"}, "ACCESS_REFUSED", id="guest"),
        pytest.param({"vhost": "/"}, "NOT_ALLOWED", id="another virtual host"),
    ],
)
def test_who_may_connect(job: dict[str, Any], refusal: str) -> None:
    assert visit() == "welcome"
    refused = visit(**job)
    assert refused != "welcome"
    assert refusal in refused


@pytest.mark.parametrize("port", [5671, 25672])
def test_old_cipher_suites_are_refused(on: Any, port: int) -> None:
    assert tls_faults(on("rabbit2"), f"{ADDRESS['rabbit1']}:{port}") == []


def test_policies_hold(on: Any) -> None:
    assert "delivery-limit" in on("rabbit2").check_output("rabbitmqctl --quiet list_policies --vhost dify")


def test_loopback_is_left_to_the_service_proxy_but_for_the_metrics(on: Any) -> None:
    host = on("rabbit1")
    assert not host.socket("tcp://127.0.0.1:5671").is_listening
    assert host.socket(f"tcp://{ADDRESS['rabbit1']}:5671").is_listening
    assert not host.socket(f"tcp://{ADDRESS['rabbit1']}:15692").is_listening
    assert "rabbitmq_build_info" in host.check_output("curl --silent --fail --noproxy '*' http://127.0.0.1:15692/metrics")


def test_no_password_lies_on_a_host(on: Any) -> None:
    assert on("rabbit1").run("grep --recursive --quiet --fixed-strings -e %s /etc /var/lib/rabbitmq /var/log", password("dify")).rc == 1
    assert on("rabbit1").run("setpriv --reuid=nobody --regid=nogroup --clear-groups cat /var/lib/rabbitmq/.erlang.cookie").rc != 0
