"""The configuration that Patroni's members share, against a Patroni that answers from a dictionary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sovereign.dify.plugins.module_utils.patroni import Cluster, Config, PatroniError, difference, merged, undeclared

PROJECT = Path(__file__).resolve().parents[2]
ROLE = PROJECT / "roles/patroni"

FOUND: Config = {
    "ttl": 20,
    "standby_cluster": None,
    "postgresql": {"use_slots": True, "parameters": {"max_connections": "300", "work_mem": "8MB", "jit": "off"}},
}


class Patroni:
    """Three members; ``a`` leads from the second look on, and a change of PostgreSQL's parameters needs a restart two looks later."""

    def __init__(self) -> None:
        """Start without a leader."""
        self.config: Config = dict(FOUND)
        self.looks = 0
        self.patched: list[Config] = []
        self.due = 10**6
        self.conflicts = 0
        self.now = 0.0

    def ask(self, method: str, path: str, body: Config | None) -> tuple[int, Any]:
        """Answer as Patroni 4.0 does."""
        if path == "/cluster":
            self.looks += 1
            if self.looks == 1:
                raise OSError("connection refused")
            pending = {"pending_restart": True, "pending_restart_reason": {"max_connections": {"old_value": "300", "new_value": "310"}}}
            return 200, {
                "members": [
                    {
                        "name": name,
                        "role": "leader" if name == "a" and self.looks > 2 else "replica",
                        "state": "running",
                        **(pending if self.looks > self.due else {}),
                    }
                    for name in ("c", "a", "b")
                ]
            }
        if method == "PATCH":
            if self.conflicts:
                self.conflicts -= 1
                return 409, "conflict"
            assert body is not None
            self.patched.append(body)
            self.config = merged(self.config, body)
            self.due = self.looks + 2
        return 200, self.config

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def cluster(self) -> Cluster:
        """Give the cluster as the module sees it."""
        return Cluster(self.ask, self.sleep, lambda: self.now)


def test_only_what_differs_is_said_and_what_is_not_declared_is_left() -> None:
    declared = {"ttl": 20, "loop_wait": 5, "postgresql": {"use_slots": True, "parameters": {"max_connections": 310, "work_mem": None, "gone": None}}}
    patch = difference(declared, FOUND)
    assert patch == {"loop_wait": 5, "postgresql": {"parameters": {"max_connections": 310, "work_mem": None}}}
    after = merged(FOUND, patch)
    assert after["postgresql"]["parameters"] == {"max_connections": 310, "jit": "off"}
    assert difference(declared, after) == {}
    assert undeclared(declared, FOUND) == ["postgresql.parameters.jit", "standby_cluster"]


@pytest.mark.parametrize(("one", "other"), [(300, "300"), (True, "on"), ("off", False), (1.1, "1.1"), ("4GB", "4gb"), ([1], [1])])
def test_values_that_mean_the_same_are_no_difference(one: object, other: object) -> None:
    assert difference({"key": one}, {"key": other}) == {}


@pytest.mark.parametrize(("one", "other"), [(300, 310), (True, "off"), (True, "quorum"), ([1], [2]), ("on", None), ({"a": 1}, "a")])
def test_values_that_mean_something_else_are_one(one: object, other: object) -> None:
    assert difference({"key": one}, {"key": other}) == {"key": one}


def test_a_leader_is_waited_for() -> None:
    patroni = Patroni()
    assert patroni.cluster().wait_for_leader(10) == "a"
    assert patroni.looks == 3


def test_nobody_leads_is_said_with_what_was_seen() -> None:
    with pytest.raises(PatroniError, match="nobody leads after 1 s: a replica running, b replica running"):
        Patroni().cluster().wait_for_leader(1)


def test_a_change_is_waited_for_until_every_member_has_seen_it() -> None:
    patroni = Patroni()
    cluster = patroni.cluster()
    cluster.wait_for_leader(10)
    before = cluster.members()
    cluster.patch({"postgresql": {"parameters": {"max_connections": 310}}})
    after = cluster.settle(before, 10)
    assert [(member.name, member.pending_restart) for member in after] == [("a", True), ("b", True), ("c", True)]
    assert after[0].reasons == {"max_connections": {"old_value": "300", "new_value": "310"}}
    assert patroni.now < 8
    # One that needs no restart is waited for as long as the members may take.
    begun = patroni.now
    cluster.settle(after, 10)
    assert patroni.now == begun + 10


def test_who_changes_it_at_the_same_time_is_waited_for_and_not_for_ever() -> None:
    patroni = Patroni()
    patroni.conflicts = 2
    patroni.cluster().patch({"ttl": 30})
    assert patroni.patched == [{"ttl": 30}]
    patroni.conflicts = 5
    with pytest.raises(PatroniError, match="PATCH /config answers 409: conflict"):
        patroni.cluster().patch({"ttl": 40})


def test_an_answer_that_is_none_is_an_error() -> None:
    with pytest.raises(PatroniError, match="GET /config answers 503: no config"):
        Cluster(lambda *dummy: (503, "no config")).config()


def preflight_of_data(directory: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Run the role's look at data of PostgreSQL on this machine."""
    names = {"Look for data of PostgreSQL, and for Patroni's configuration", "Refuse data that Patroni has not made"}
    tasks = [task for task in yaml.safe_load((ROLE / "tasks/preflight.yml").read_text(encoding="utf-8")) if task["name"] in names]
    assert len(tasks) == len(names)
    variables = {"__patroni_data_directory": str(directory), "__patroni_config_file": str(config), "__patroni_version": "17"}
    play = directory.parent / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    command = ["ansible-playbook", "--inventory=localhost,", f"--extra-vars=ansible_python_interpreter={sys.executable}", str(play)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("data", "ours", "refused"), [(False, False, False), (True, True, False), (False, True, False), (True, False, True)])
def test_data_of_a_cluster_that_patroni_has_not_made_are_refused(tmp_path: Path, data: bool, ours: bool, refused: bool) -> None:
    """Fresh, converged, cut before the first start, and somebody else's."""
    directory, config = tmp_path / "main", tmp_path / "config.yml"
    directory.mkdir()
    if data:
        (directory / "PG_VERSION").write_text("17\n")
    if ours:
        config.write_text("scope: lab-hq\n")
    run = preflight_of_data(directory, config)
    assert (run.returncode != 0) is refused, run.stdout
    if refused:
        said = " ".join(run.stdout.split())
        assert f"{directory} holds a database cluster that this role has not made" in said
        assert "pg_dropcluster --stop 17 main" in said
