"""What is wrong is found, told once, and told soon; who may not ask is told nothing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lab.testing import PROJECT, changed, docker, rerun, tls_faults

MEMBERS = ("one", "two")
ADDRESSES = {"one": "198.18.55.11", "two": "198.18.55.12", "three": "198.18.55.13"}
PKI = "/etc/sovereign/pki"
LOG = "/run/webhook/log"
TOLD_S = 60.0
Query = Callable[..., list[dict[str, Any]]]


def asked(host: Any, url: str) -> str:
    return str(host.run(f"curl --silent --max-time 5 --cacert {PKI}/ca.crt --cert {PKI}/host.pem '{url}'").stdout)


@pytest.fixture(scope="session")
def query(on: Any) -> Query:
    """Ask a member for a vector; each entry is its labels with the value under ``value``."""

    def ask(expression: str, member: str = "one") -> list[dict[str, Any]]:
        url = f"https://{ADDRESSES[member]}:9090/api/v1/query?query={quote(expression)}"
        try:
            answer = json.loads(asked(on(member), url))
        except json.JSONDecodeError:  # it is being started, and says so in words
            return []
        return [{**entry["metric"], "value": float(entry["value"][1])} for entry in answer.get("data", {}).get("result", [])]

    return ask


def until(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not in {seconds:.0f} s")


@pytest.fixture(scope="session")
def told(on: Any) -> Callable[[], list[dict[str, Any]]]:
    """What the webhook was sent about the job ledger that is down, in its order, each with the time at which it came."""

    def read() -> list[dict[str, Any]]:
        lines = on("three").run(f"cat {LOG}").stdout.splitlines()
        found = [json.loads(line) for line in lines]
        wanted = {"alertname": "TargetDown", "job": "ledger"}
        return [entry for entry in found if any(wanted.items() <= alert["labels"].items() for alert in entry["body"]["alerts"])]

    return read


@pytest.mark.parametrize("member", MEMBERS)
def test_each_member_scrapes_all_that_hosts_offer(query: Query, member: str) -> None:
    wanted = {("node", host) for host in ADDRESSES} | {("gate", host) for host in ADDRESSES} | {("ledger", "three")}
    wanted |= {(job, host) for job in ("prometheus", "alertmanager") for host in MEMBERS}
    until("all targets are up", lambda: wanted == {(one["job"], one["instance"]) for one in query("up == 1", member)}, 90)
    assert query("ledger_entries_total", member)[0]["book"] == "main"


def test_nothing_is_wrong_on_hosts_that_are_well(query: Query) -> None:
    """But what is broken on purpose: two programs of the role that only the tests know. And the sign of life is always there."""

    def wrong() -> list[dict[str, Any]]:
        return query('ALERTS{alertstate="firing", alertname!="Watchdog", textfile!~"ledger_(slow|broken)"}')

    # What was down while the hosts were set up is over in time.
    deadline = time.monotonic() + 120
    while wrong() and time.monotonic() < deadline:
        time.sleep(2)
    assert wrong() == []
    time.sleep(30)
    assert wrong() == []


def test_a_role_that_only_this_test_knows_brings_its_rules(on: Any) -> None:
    rules = json.loads(asked(on("one"), f"https://{ADDRESSES['one']}:9090/api/v1/rules"))["data"]["groups"]
    assert {"ledger", "prometheus", "exporters", "expected"} <= {group["name"] for group in rules}
    assert not [rule for group in rules for rule in group["rules"] if rule["health"] not in ("ok", "unknown")]


def test_the_rules_of_all_roles_pass_their_tests() -> None:
    """By promtool, which the host has; each in a process of its own, two at a time."""
    subprocess.run(["docker", "exec", "mol-prometheus-one", "sh", "-c", "rm -rf /root/rules; mkdir /root/rules"], check=True)
    directories = sorted(path.parent for path in PROJECT.glob("roles/*/monitoring/rules.yml"))
    assert directories
    for directory in directories:
        role = directory.parent.name
        subprocess.run(["docker", "cp", str(directory), f"mol-prometheus-one:/root/rules/{role}"], check=True)
    tests = 'cd "$0" && promtool check rules rules.yml && promtool test rules rules_test.yml'
    script = f"cd /root/rules; ls | xargs -P 2 -n 1 sh -c '{tests}'"
    done = subprocess.run(["docker", "exec", "mol-prometheus-one", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_may_not_ask_is_refused(on: Any) -> None:
    for host in MEMBERS:
        assert '"status":"success"' in asked(on(host), f"https://{ADDRESSES[host]}:9090/api/v1/query?query=1")
    assert not asked(on("three"), f"https://{ADDRESSES['one']}:9090/api/v1/query?query=1"), "the firewall"
    pem = on("three").check_output(f"cat {PKI}/host.pem")
    on("one").run(f"umask 077; cat > /root/three.pem <<'END'\n{pem}\nEND")
    url = f"https://{ADDRESSES['one']}:9090/api/v1/query?query=1"
    for shown in ("--cert /root/three.pem", ""):
        assert on("one").run(f"curl --silent --max-time 5 --cacert {PKI}/ca.crt {shown} {url}").rc, "a certificate of another name, and none"


@pytest.mark.parametrize("member", MEMBERS)
def test_tls_is_1_3_alone(on: Any, member: str) -> None:
    assert not tls_faults(on(member), f"{ADDRESSES[member]}:9090", versions=["TLSv1.3"])


@pytest.fixture
def one_member_of_each_down(on: Any) -> Iterator[None]:
    """Stop the Prometheus of one host and the Alertmanager of the other."""
    on("one").run("systemctl stop prometheus.service")
    on("two").run("systemctl stop prometheus-alertmanager.service")
    yield
    on("one").run("systemctl start prometheus.service")
    on("two").run("systemctl start prometheus-alertmanager.service")


def service_is_told(on: Any, told: Callable[[], list[dict[str, Any]]]) -> None:
    """Kill a service; it is told once and in time, and so is that it is back."""
    before = len(told())
    started = time.time()
    on("three").run("systemctl stop ledger.service")
    first = until("the webhook is told", lambda: told()[before:], TOLD_S + 30)[0]
    print(f"told after {first['time'] - started:.0f} s")
    assert first["time"] - started <= TOLD_S
    assert first["body"]["status"] == "firing"
    time.sleep(20)
    assert len(told()) == before + 1, "once, whoever has seen it"
    on("three").run("systemctl start ledger.service")
    last = until("it is told that it is back", lambda: told()[before + 1 :], 400)[0]
    assert last["body"]["status"] == "resolved"


def test_a_service_that_is_down_is_told_once_and_in_time(on: Any, told: Callable[[], list[dict[str, Any]]]) -> None:
    service_is_told(on, told)


@pytest.mark.usefixtures("one_member_of_each_down")
def test_also_with_one_member_of_each_dead(on: Any, told: Callable[[], list[dict[str, Any]]]) -> None:
    service_is_told(on, told)


def test_a_host_that_is_down_is_one_alert_and_its_services_are_none(query: Query) -> None:
    docker("pause", "mol-prometheus-three")
    try:
        until("the host is told", lambda: query('ALERTS{alertname="HostDown", alertstate="firing", instance="three"}'), TOLD_S + 30)
        assert not query('ALERTS{alertname="TargetDown", alertstate="firing", instance="three"}')
    finally:
        docker("unpause", "mol-prometheus-three")


def test_a_group_that_is_gone_takes_its_rules_along(on: Any) -> None:
    def groups() -> set[str]:
        answer = json.loads(asked(on("one"), f"https://{ADDRESSES['one']}:9090/api/v1/rules"))
        return {group["name"] for group in answer["data"]["groups"]}

    done = rerun("--limit=one", "--tags=prometheus", prometheus_groups=["prometheus", "exporters"])
    assert done.returncode == 0, done.stdout
    assert "ledger" not in groups()
    done = rerun("--limit=one", "--tags=prometheus")
    assert done.returncode == 0, done.stdout
    assert "ledger" in groups()


def test_a_rule_that_prometheus_would_refuse_changes_nothing(on: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("groups: [{name: bad, rules: [{alert: Bad, expr: 'sum('}]}]\n")
    before = on("one").check_output("sha256sum /etc/prometheus/rules/* /etc/prometheus/prometheus.yml")
    done = rerun("--limit=one", "--tags=prometheus", prometheus_extra_rules=[str(bad)])
    assert done.returncode != 0
    assert "parse error" in done.stdout
    assert on("one").check_output("sha256sum /etc/prometheus/rules/* /etc/prometheus/prometheus.yml") == before


def test_a_rerun_changes_nothing() -> None:
    done = rerun()
    assert set(changed(done).values()) == {0}
