"""What operators rely on, in the order in which it is tried: a node that dies, reruns, changes without a restart, a restart without a loss."""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any

import pytest
from rabbit_cluster import ADDRESS, CLUSTER, CONSUMER, DECLARER, HOST, PUBLISHER, begin, play, processes, queue, result, running, visit

SERIAL = (
    "openssl s_client -connect {address}:5671 -cert /etc/sovereign/pki/host.crt -key /etc/sovereign/pki/host.key"
    " -CAfile /etc/sovereign/pki/ca.crt </dev/null 2>/dev/null | openssl x509 -noout -serial"
)


def test_a_node_that_dies_costs_no_confirmed_message_and_joins_again(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result(begin("rabbit1", DECLARER, address=ADDRESS["rabbit2"], queue="ledger"))
    dead = HOST[queue(on, "rabbit1", "ledger")["leader"]]
    alive = [host for host in ADDRESS if host != dead]
    run = begin(alive[0], PUBLISHER, members=list(ADDRESS.values()), queue="ledger", seconds=20)
    time.sleep(6)
    subprocess.run(["docker", "kill", f"{CLUSTER}-{dead}"], check=True, capture_output=True)
    ledger = result(run)
    assert HOST[queue(on, alive[0], "ledger")["leader"]] in alive
    consumed = result(begin(alive[1], CONSUMER, address=ADDRESS[alive[1]], queue="ledger"))
    lost = set(ledger["confirmed"]) - set(consumed)
    with capsys.disabled():
        print(f"\nno confirmation for {ledger['gap']:.1f} s; {len(ledger['confirmed'])} confirmed, {len(lost)} of them lost")
    assert lost == set()
    assert ledger["seconds"] > 15
    assert ledger["gap"] < 12

    started = time.monotonic()
    subprocess.run(["docker", "start", f"{CLUSTER}-{dead}"], check=True, capture_output=True)
    while running(on, alive[0]) != set(HOST):
        assert time.monotonic() - started < 60
        time.sleep(1)
    with capsys.disabled():
        print(f"back in the cluster {time.monotonic() - started:.1f} s after its host was started")


def test_a_rerun_changes_and_restarts_nothing(on: Any) -> None:
    before = processes(on)
    counts = re.findall(r"^\S+\s+: ok=\d+\s+changed=(\d+)", play().stdout, flags=re.MULTILINE)
    assert counts == ["0"] * len(ADDRESS)
    assert processes(on) == before


def test_users_and_a_renewed_certificate_come_into_force_without_a_restart(on: Any) -> None:
    before, client = processes(on), on("rabbit3")
    shown = {host: client.check_output(SERIAL.format(address=address)) for host, address in ADDRESS.items()}
    run = play(
        "--tags=rabbitmq_configure,rabbitmq_service,pki_rotate",
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
