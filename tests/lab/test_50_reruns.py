"""What an operator relies on at three in the morning: a rerun, by whatever means it is started, changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_runner.interface import run as run_playbook

from lab.testing import PROJECT, changed
from tests.lab import ONE_OF_EACH, ONE_OF_EACH_LIMIT

HOSTS = {"hq-gw1", "hq-gw2", "hq-gpu1", "hq-db1", "hq-db2", "hq-db3", "hq-app1", "hq-app2", "edge-gw1"}
SERVICES = (
    r"(vllm@|haproxy|nginx|keepalived|wg-quick@|sovereign-firewall|chrony|etcd|patroni|redis-|rabbitmq-|service_proxy|pgbouncer|pgpool2|dify_"
    r"|swift-|object_storage)"
)


def started_at() -> dict[str, str]:
    """When each service of the platform was started last."""
    moments: dict[str, str] = {}
    for host in sorted(HOSTS):
        show = ["systemctl", "show", "--property=Id,ActiveEnterTimestampMonotonic,MainPID", "--type=service", "--state=active", "*"]
        command = ["docker", "exec", f"lab-{host}", *show]
        for block in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n"):
            fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if re.match(SERVICES, fields.get("Id", "")):
                moments[f"{host}/{fields['Id']}"] = f"{fields.get('MainPID')} {fields.get('ActiveEnterTimestampMonotonic')}"
    return moments


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    moments = started_at()
    assert {name.partition("/")[0] for name in moments} == HOSTS
    return moments


def test_site_changes_nothing_and_restarts_nothing_through_ansible_runner(before: dict[str, str], tmp_path: Path) -> None:
    run = run_playbook(
        private_data_dir=str(tmp_path),
        project_dir=str(PROJECT),
        inventory=str(PROJECT / "inventories/lab"),
        playbook="playbooks/site.yml",
        envvars={"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        quiet=True,
    )
    stats: dict[str, Any] = run.stats
    assert run.status == "successful", "".join(run.stdout.readlines()[-40:])
    assert set(stats["ok"]) >= HOSTS
    changed = [e["event_data"] for e in run.events if e["event"] == "runner_on_ok" and e["event_data"].get("res", {}).get("changed")]
    assert not stats["changed"], [(event["host"], event["task"]) for event in changed]
    assert started_at() == before


@pytest.mark.parametrize("verb", ["install", "configure", "service"])
def test_a_verbs_tag_is_safe_alone(verb: str) -> None:
    """What a task of another tag would have registered is missing; those of one verb, of all roles, do not need each other."""
    tags = ",".join(f"{path.name}_{verb}" for path in sorted((PROJECT / "roles").iterdir()))
    command = [
        "ansible-playbook",
        "-i",
        str(PROJECT / "inventories/lab"),
        "playbooks/site.yml",
        "--check",
        "--diff",
        ONE_OF_EACH_LIMIT,
        f"--tags={tags}",
    ]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
    counts = changed(run)
    assert set(counts) >= set(ONE_OF_EACH)
    assert set(counts.values()) == {0}, run.stdout[-5000:]


def test_the_smoke_tests_report_is_for_machines_too() -> None:
    report = json.loads((PROJECT / "inventories/lab/.state/reports/smoke.json").read_text())
    assert report["ok"] is True
    assert {probe["name"].split(":")[0] for probe in report["probes"]} == {"hq-gw1", "hq-gw2", "edge-gw1"}
    assert any(probe["expect"] == 404 for probe in report["probes"])


def test_no_secret_lies_in_the_open() -> None:
    """Keys of clients are on no host in clear, and nothing that is generated is tracked by git."""
    keys = [path.read_text().strip() for path in (PROJECT / "inventories/lab/.state/secrets/model_gateway").iterdir()]
    assert keys
    for host in sorted(HOSTS):
        # All at once: hosts of Dify hold gigabytes of images.
        search = "grep -rlFf - /etc /var/lib /var/log; [ $? -le 2 ] && echo searched"
        command = ["docker", "exec", "--interactive", f"lab-{host}", "sh", "-c", search]
        found = subprocess.run(command, input="\n".join(keys), capture_output=True, text=True, check=False)
        # The last word says that somebody looked: a host that is away has no file with a key, either.
        assert found.stdout == "searched\n", (host, found.stdout, found.stderr)
    tracked = subprocess.run(["git", "ls-files", "inventories/*/.state"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert tracked.stdout == ""
