"""What operators rely on, in the order in which it is tried: changes without a restart, a master that dies, one that hands over."""

from __future__ import annotations

from typing import Any

import pytest
from redis_set import ADDRESS, CLUSTER, READER, WRITER, admin, begin, master, password, play, processes, result, role, until

from lab.testing import changed, docker, rerun, without_state

SERIAL = (
    "openssl s_client -connect {address}:{port} -cert /etc/sovereign/pki/host.crt -key /etc/sovereign/pki/host.key"
    " -CAfile /etc/sovereign/pki/ca.crt </dev/null 2>/dev/null | openssl x509 -noout -serial"
)


def test_changes_come_into_force_without_a_restart(on: Any) -> None:
    # What is left of a run that was cut once it had put a program in place: a service that was started with another one.
    program = "/usr/local/lib/sovereign/redis_step_down.py"
    on("redis3").run_expect([0], f"cp {program} /root/kept && echo >> {program} && systemctl restart redis_step_down && cp /root/kept {program}")
    before, stepping = (processes(on), processes(on, "redis-sentinel")), processes(on, "redis_step_down")
    users = {"dify": ["~*", "&*", "+@all", "-@admin", "-@dangerous", "+info"], "reports": ["%R~*", "+@read"]}
    run = play("--tags=redis_configure,redis_service", redis_max_lag=3, redis_down_after=4, redis_users=users, redis_settings={"databases": 32})
    assert (processes(on), processes(on, "redis-sentinel")) == before
    now = processes(on, "redis_step_down")
    assert {host for host in ADDRESS if now[host] != stepping[host]} == {"redis3"}
    for host in ADDRESS:
        assert admin(on, host, "config get min-replicas-max-lag").split()[1] == "3"
        assert "reports" in admin(on, host, "acl users").split()
        told = admin(on, host, "sentinel master mymaster").split("\n")
        assert told[told.index("down-after-milliseconds") + 1] == "4000"
        # What needs a restart is said, and not done.
        assert admin(on, host, "config get databases").split() == ["databases", "16"]
    assert "databases is 16, shall be 32" in run.stdout + run.stderr
    assert "playbooks/ops/rolling_restart.yml" in " ".join((run.stdout + run.stderr).split())


def test_a_renewed_certificate_is_served_without_a_restart_and_the_changes_are_taken_back(on: Any) -> None:
    before = processes(on)
    shown = {host: on("redis1").check_output(SERIAL.format(address=address, port=6379)) for host, address in ADDRESS.items()}
    # A run that is cut once the certificates are in place, and the next one.
    play("--tags=pki_rotate", "--skip-tags=pki_service")
    assert shown == {host: on("redis1").check_output(SERIAL.format(address=address, port=6379)) for host, address in ADDRESS.items()}
    play("--tags=redis_configure,redis_service")
    for host, address in ADDRESS.items():
        renewed = on("redis1").check_output(SERIAL.format(address=address, port=6379))
        assert renewed.startswith("serial=")
        assert renewed != shown[host]
        # Sentinel holds no data, and is restarted for it.
        until(lambda at=address, new=renewed: on("redis1").run(SERIAL.format(address=at, port=26379)).stdout.strip() == new, 10)
        assert "reports" not in admin(on, host, "acl users").split()
        assert admin(on, host, "config get min-replicas-max-lag").split()[1] == "2"
    assert processes(on) == before


def test_a_master_that_dies_costs_no_acknowledged_write_and_returns_as_a_replica(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = master(on)
    writer = next(host for host in ADDRESS if host != old)
    others = [host for host in ADDRESS if host != old]
    run = begin(writer, WRITER, members=list(ADDRESS.values()), password=password("dify"), seconds=20)
    until(lambda: int(admin(on, old, "exists ledger:500")) == 1, 20)
    docker("kill", f"{CLUSTER}-{old}")
    ledger = result(run)
    new = master(on, *others)
    assert new != old
    lost = result(begin(writer, READER, address=ADDRESS[new], password=password("dify"), numbers=ledger["acknowledged"]))
    with capsys.disabled():
        print(f"\nno write for {ledger['gap']:.1f} s; {len(ledger['acknowledged'])} acknowledged, {len(lost)} of them lost")
    assert lost == []
    assert ledger["gap"] < 12
    # The writer went on after the fail-over.
    assert ledger["ended"] - ledger["begun"] > 15

    docker("start", f"{CLUSTER}-{old}")
    # It asks who leads before it starts: it never calls itself a master, not even for a moment.
    seen = []
    took = until(lambda: seen.append(role(on, old)) or seen[-1] == "slave", 30)  # type: ignore[func-returns-value]
    assert set(seen) <= {"", "slave"}
    with capsys.disabled():
        print(f"the former master follows {took:.1f} s after its host was started")
    assert "I follow" in on(old).check_output("journalctl --unit=redis-server --output=cat --boot")
    until(lambda: "master_link_status:up" in admin(on, old, "info replication"), 30)
    # No file has this: its unit sets it at each start.
    paces = {host: admin(on, host, "sentinel debug").split() for host in ADDRESS}
    assert {host: pace[pace.index("PING-PERIOD") + 1] for host, pace in paces.items()} == dict.fromkeys(ADDRESS, "250")
    assert result(begin(writer, READER, address=ADDRESS[old], password=password("dify"), numbers=ledger["acknowledged"])) == []


def test_the_leader_is_restarted_only_after_it_has_handed_over(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    leader = master(on)
    follower = next(host for host in ADDRESS if host != leader)
    before = processes(on)
    run = begin(follower, WRITER, members=list(ADDRESS.values()), password=password("dify"), seconds=25)
    play(f"--limit={leader}", playbook="restart.yml")
    ledger = result(run)
    with capsys.disabled():
        print(f"\nno write for {ledger['gap']:.1f} s during the hand-over")
    assert master(on) != leader
    assert role(on, leader) == "slave"
    now = processes(on)
    assert {host for host in ADDRESS if now[host] != before[host]} == {leader}
    assert ledger["gap"] < 6
    lost = result(begin(follower, READER, address=ADDRESS[master(on)], password=password("dify"), numbers=ledger["acknowledged"]))
    assert lost == []


DATA = "../../playbooks/layers/data.yml"


def users(on: Any) -> set[str]:
    return {str(on(host).check_output("cat /etc/redis/users.acl /etc/redis/sentinel.acl /etc/ansible/facts.d/sovereign.fact")) for host in ADDRESS}


@pytest.mark.parametrize("arguments", [["--tags=redis_configure"], ["--limit=redis2"], ["--check"]], ids=" ".join)
def test_a_checkout_without_its_state_stops_before_anything_changes(on: Any, arguments: list[str]) -> None:
    before = users(on)
    with without_state("id", "secrets", "pki") as state:
        run = rerun(*arguments, playbook=DATA)
        left = sorted(path.name for path in state.iterdir() if not path.name.endswith(".aside"))
    assert run.returncode != 0
    said = " ".join((run.stdout + run.stderr).split())
    assert "These hosts were configured from another state directory" in said
    assert f"restore {state} from its backup" in said
    assert left == ["ssh"], "nothing is made"
    assert users(on) == before


def test_the_right_state_heals_what_another_has_touched(on: Any) -> None:
    kept, known = "of the platform", password("dify")
    assert admin(on, master(on), f"set witness '{kept}'") == "OK"
    with without_state("id", "secrets"):
        play("--tags=redis", playbook=DATA, cluster_adopt_state=True)
        assert password("dify") != known
        # The members have taken the other passwords up.
        assert admin(on, "redis1", "acl whoami") == "admin"
    refused = rerun("--tags=redis", playbook=DATA)
    assert "These hosts were configured from another state directory" in " ".join((refused.stdout + refused.stderr).split())
    play("--tags=redis", playbook=DATA, cluster_adopt_state=True)
    assert password("dify") == known
    ask = "redis-cli --tls --cert /etc/sovereign/pki/host.crt --key /etc/sovereign/pki/host.key --cacert /etc/sovereign/pki/ca.crt --no-auth-warning"
    for address in ADDRESS.values():
        assert on("redis1").check_output(f"{ask} -h {address} --user dify --pass {known} get witness") == kept
    # A rerun has nothing left to do.
    again = play("--tags=redis", playbook=DATA)
    assert set(changed(again).values()) == {0}, again.stdout
