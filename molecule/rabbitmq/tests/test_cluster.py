"""What operators rely on, in the order in which it is tried: changes without a restart, a restart without a loss. A node that dies is the lab's."""

from __future__ import annotations

from typing import Any

import pytest
from rabbit_cluster import ADDRESS, CONSUMER, DECLARER, HOST, PUBLISHER, begin, password, play, processes, queue, result, running, visit

from lab.testing import changed, without_state

SERIAL = (
    "openssl s_client -connect {address}:5671 -cert /etc/sovereign/pki/host.crt -key /etc/sovereign/pki/host.key"
    " -CAfile /etc/sovereign/pki/ca.crt </dev/null 2>/dev/null | openssl x509 -noout -serial"
)


def test_users_and_a_renewed_certificate_come_into_force_without_a_restart(on: Any) -> None:
    before, client = processes(on), on("rabbit3")
    shown = {host: client.check_output(SERIAL.format(address=address)) for host, address in ADDRESS.items()}
    # A run that is cut once the certificates are in place, and the next one.
    play("--tags=pki_rotate", "--skip-tags=pki_service")
    assert shown == {host: client.check_output(SERIAL.format(address=address)) for host, address in ADDRESS.items()}
    run = play(
        "--tags=rabbitmq_configure,rabbitmq_service",
        rabbitmq_users={
            "dify": {"permissions": {"dify": {"configure": ".*", "write": ".*", "read": ".*"}}},
            "reports": {"permissions": {"dify": {"read": ".*"}}},
        },
        rabbitmq_passwords={"dify": "n" * 43, "reports": "r" * 43},
        rabbitmq_settings={"heartbeat": 30},
    )
    assert processes(on) == before
    assert visit(user="reports", password="r" * 43) == "welcome"
    assert visit(password="n" * 43) == "welcome"
    assert "ACCESS_REFUSED" in visit()
    for host, address in ADDRESS.items():
        renewed = client.check_output(SERIAL.format(address=address))
        assert renewed.startswith("serial=")
        assert renewed != shown[host]
    # What needs a restart is said, and not done.
    said = " ".join((run.stdout + run.stderr).split())
    assert "Only a restart takes up /etc/rabbitmq/rabbitmq.conf" in said
    assert "playbooks/ops/rolling_restart.yml" in said
    assert "heartbeat,60" in on("rabbit1").check_output("rabbitmqctl --quiet eval 'rabbit:environment().'").replace(" ", "").replace("\n", "")


def test_a_node_is_restarted_without_a_message_lost(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    play("--tags=rabbitmq_configure,rabbitmq_service")
    result(begin("rabbit1", DECLARER, address=ADDRESS["rabbit2"], queue="ledger"))
    node = HOST[queue(on, "rabbit1", "ledger")["leader"]]
    others = [host for host in ADDRESS if host != node]
    before = processes(on)
    run = begin(others[0], PUBLISHER, members=list(ADDRESS.values()), queue="ledger", seconds=40)
    play(f"--limit={node}", playbook="restart.yml")
    ledger = result(run)
    now = processes(on)
    assert {host for host in ADDRESS if now[host] != before[host]} == {node}
    consumed = result(begin(others[0], CONSUMER, address=ADDRESS[others[0]], queue="ledger"))
    lost = set(ledger["confirmed"]) - set(consumed)
    with capsys.disabled():
        print(f"\nno confirmation for {ledger['gap']:.1f} s during a restart; {len(ledger['confirmed'])} confirmed, {len(lost)} of them lost")
    assert lost == set()
    assert ledger["gap"] < 12


def test_the_right_state_heals_what_another_has_touched(on: Any) -> None:
    data, known = "../../playbooks/layers/data.yml", password("dify")
    with without_state("id", "secrets"):
        play("--tags=rabbitmq", playbook=data, cluster_adopt_state=True)
        # The nodes have taken up another cookie and other passwords.
        assert running(on, "rabbit1") == set(HOST)
        assert visit() == "welcome"
        assert "ACCESS_REFUSED" in visit(password=known)
    play("--tags=rabbitmq", playbook=data, cluster_adopt_state=True)
    assert running(on, "rabbit1") == set(HOST)
    assert visit(password=known) == "welcome"
    # A rerun has nothing left to do.
    again = play("--tags=rabbitmq", playbook=data)
    assert set(changed(again).values()) == {0}, again.stdout
