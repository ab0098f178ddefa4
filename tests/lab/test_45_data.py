"""What the loss of a leader costs the clients of a data service, by the drills, and what it costs Dify's users meanwhile.

The reruns that follow meet clusters that have failed over.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from lab.testing import PROJECT, docker
from tests.lab.conftest import STATE, container, wait_until
from tests.lab.leftovers import consumers, forgotten_sessions, overdue_requests, queues_without_consumers, taken_places
from tests.lab.platform import Arrivals, leader, longest_gap, workflow

DATA_HOSTS = ("hq-db1", "hq-db2", "hq-db3")


def drill(service: str, fault: str, **variables: object) -> dict[str, Any]:
    """Run one drill, once; give its report."""
    given = {"drill_service": service, "drill_fault": fault, "drill_runs": 1, "drill_hold": 30, **variables}
    command = ["ansible-playbook", "-i", str(PROJECT / "inventories/lab"), "playbooks/drills/failover.yml", f"--extra-vars={json.dumps(given)}"]
    path = STATE / f"reports/drill-{service}-{fault}.json"
    path.unlink(missing_ok=True)
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
    assert path.exists(), run.stdout[-6000:] + run.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    print(service, fault, report["rto_s"], report["rpo"])
    assert report["ok"] == (run.returncode == 0), run.stdout[-6000:]
    return report


# What each service takes to have another leader, in seconds.
BARS = {"patroni": 22, "redis": 8, "rabbitmq": 3}


def nothing_was_lost(report: dict[str, Any]) -> None:
    """Assert so, and that there was an interruption: or nothing was struck."""
    assert report["rpo"]["lost"] == 0, report
    assert report["rpo"]["acknowledged"] > 100, report
    assert report["runs"][0]["host"] in DATA_HOSTS
    assert report["runs"][0]["failed"] > 0, report


# A host that is frozen comes back as the leader that it was.
def test_nothing_acknowledged_is_lost_when_the_host_of_the_leader_is_frozen() -> None:
    # A drill that was cut before its end has left a host off: this one switches it on first.
    leading = {next(leader(name)) for name in ("redis", "patroni")}
    docker("kill", container(next(name for name in DATA_HOSTS if name not in leading)))
    nothing_was_lost(drill("redis", "freeze", drill_hold=15))


@pytest.mark.parametrize(("service", "hold"), [("redis", 15), ("rabbitmq", 15), ("postgresql", 30)])
def test_nothing_acknowledged_is_lost_and_dify_goes_on_when_the_host_of_the_leader_is_killed(service: str, hold: int, brief_workflow: str) -> None:
    leads = {name: next(leader(name)) for name in ("redis", "patroni")}
    consuming = consumers()
    # As many as leave the machine, which all hosts share, half of its time: a backlog would be the machine's, and not the fail-over's.
    workflows = Arrivals(lambda: workflow(brief_workflow, timeout=20), every=1)
    try:
        report = drill(service, "kill", drill_hold=hold)
    finally:
        answers = workflows.end()
    nothing_was_lost(report)
    host = report["runs"][0]["host"]
    # Whatever else the host led has to be led by another one, too.
    led = [name for name in BARS if name == {"postgresql": "patroni"}.get(service, service) or leads.get(name) == host]
    gap, failed = longest_gap(answers), [answer for answer in answers if not answer.ok]
    bar = max(BARS[name] for name in led)
    print(f"Dify: {len(answers)} workflows, {len(failed)} failed; no new one for {gap:.1f} s; {host} led {led} (bar {bar} s)")
    # What has to notice first that its connection is dead, and the time between two users.
    assert gap < bar + 5, failed[:5]
    wait_until(lambda: workflow(brief_workflow, timeout=20).ok, "a new workflow is answered", limit=60)
    wait_until(lambda: not forgotten_sessions(), "every session with a client has a server", limit=60)
    wait_until(lambda: not queues_without_consumers(consuming), "each queue has the consumers that it had", limit=60)
    wait_until(lambda: not any(taken_places().values()), "no place of the api is taken", limit=60)
    assert not overdue_requests()


def test_a_leader_that_is_cut_off_takes_nothing_that_would_be_lost() -> None:
    report = drill("postgresql", "partition")
    assert report["rpo"]["lost"] == 0, report
    assert report["runs"][0]["failed"] > 0, report
