"""What the loss of a leader costs the clients of a data service, by the drills. The reruns that follow meet clusters that have failed over."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from lab.testing import PROJECT
from tests.lab.conftest import STATE, execute, wait_until

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


# A host that is frozen comes back as the leader that it was.
@pytest.mark.parametrize(("service", "fault", "hold"), [("postgresql", "kill", 30), ("redis", "freeze", 15), ("rabbitmq", "kill", 15)])
def test_nothing_acknowledged_is_lost_when_the_host_of_the_leader_is(service: str, fault: str, hold: int) -> None:
    report = drill(service, fault, drill_hold=hold)
    assert report["rpo"]["lost"] == 0, report
    assert report["rpo"]["acknowledged"] > 100, report
    assert report["runs"][0]["host"] in DATA_HOSTS
    # There was an interruption, or nothing was struck.
    assert report["runs"][0]["failed"] > 0, report


def test_a_leader_that_is_cut_off_takes_nothing_that_would_be_lost() -> None:
    report = drill("postgresql", "partition")
    assert report["rpo"]["lost"] == 0, report
    assert report["runs"][0]["failed"] > 0, report


def test_one_member_leads_and_the_others_follow_again() -> None:
    asked = ["su", "-s", "/bin/sh", "postgres", "-c", "psql -Atc 'select pg_is_in_recovery()'"]

    def whole() -> bool:
        # A member that was cut off takes back what it had alone, and does not answer meanwhile.
        return sorted(execute(host, *asked, check=False).stdout.strip() for host in DATA_HOSTS) == ["f", "t", "t"]

    wait_until(whole, "one member leads and two follow", limit=120)
