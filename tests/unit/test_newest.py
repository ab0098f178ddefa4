"""One of Molecule's scenarios runs under the newest release of Ansible, too: what is run under which release, and what counts as passed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tests.__main__ as main
from tests import newest
from tests.newest import Check, Done, Environment

WARNING = "[WARNING]: something is odd"
DEPRECATED = "[DEPRECATION WARNING]: something will be gone"
NOT_OURS = "[WARNING]: Deprecation warnings can be disabled by setting deprecation_warnings=False"


class Programs:
    """Stands in for programs that run under a release: notes them, and ends as it is told."""

    def __init__(self) -> None:
        """Have all of them succeed."""
        self.run: list[tuple[str, str]] = []
        self.done: dict[str, Done] = {}

    def under(self, environment: Environment, work: Path, *command: str, **variables: str) -> Done:
        """Note which action of Molecule runs under which release."""
        assert command[0] == "molecule"
        assert command[2:] == ("--scenario-name", "pgbouncer")
        self.run.append((environment.core, command[1]))
        return self.done.get(command[1], Done(0, "", "", (), 1))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Have releases of which nothing is installed, or run."""
    found = Programs()
    monkeypatch.setattr(newest, "under", found.under)
    monkeypatch.setattr(newest, "newer_python", lambda: (Path("python3.13"), "3.13.5"))
    monkeypatch.setattr(newest, "made", lambda release, *_: Environment(release.core, Path("bin")))
    return found


def test_hosts_are_made_under_the_pinned_release_and_all_else_under_the_newest(programs: Programs) -> None:
    last = newest.releases()[-1].core
    check = newest.scenario("pgbouncer")
    assert programs.run == [(newest.venv_release(), "create"), *((last, action) for action in ("converge", "idempotence", "verify"))]
    assert (check.name, check.faults, check.left_out) == (f"ansible-core {last}", (), False)


@pytest.mark.parametrize(
    ("action", "done", "faults"),
    [
        ("create", Done(1, "no such image", "", (), 1), ["exit code 1", "no such image"]),
        ("converge", Done(2, "[ERROR]: wrong\nOrigin: here", "", (), 1), ["exit code 2", "[ERROR]: wrong", "Origin: here"]),
        ("converge", Done(0, "", "", (NOT_OURS, WARNING), 1), [WARNING]),
        ("idempotence", Done(0, "", "", (DEPRECATED,), 1), [DEPRECATED]),
        ("verify", Done(1, "FAILED test_one.py::test_two - no", "", (WARNING,), 1), ["FAILED test_one.py::test_two - no"]),
        ("verify", Done(0, "", "", (WARNING, DEPRECATED), 1), [DEPRECATED]),
    ],
)
def test_it_ends_with_what_failed_or_was_warned_of(programs: Programs, action: str, done: Done, faults: list[str]) -> None:
    programs.done[action] = done
    check = newest.scenario("pgbouncer")
    assert list(check.faults) == faults
    assert programs.run[-1][1] == action


def test_where_no_newer_python_is_it_is_left_out(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "newer_python", lambda: None)
    check = newest.scenario("pgbouncer")
    assert check.left_out
    assert "LEFT OUT: no Python from 3.12 to 3.14" in check.name
    assert programs.run == []


@pytest.mark.parametrize(
    ("check", "summary", "remembered"),
    [
        (Check("ansible-core 2.21.5"), "pgbouncer under ansible-core 2.21.5", True),
        (Check("ansible-core 2.21.5", 1, ("wrong",)), "pgbouncer under ansible-core 2.21.5", False),
        (Check("newer releases LEFT OUT: no Python", left_out=True), "pgbouncer under newer releases LEFT OUT: no Python", False),
    ],
)
def test_what_has_passed_under_both_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check, summary: str, remembered: bool
) -> None:
    noted: list[str] = []
    passed = SimpleNamespace(when=lambda name: "", note=lambda name, record, began: noted.append(name))
    actions: list[str] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        actions.append(command[1])
        return subprocess.CompletedProcess(command, 0)

    def scenario(name: str) -> Check:
        actions.append(f"{name} under the newest")
        return check

    monkeypatch.setattr(main, "CACHE", tmp_path)
    monkeypatch.setattr(main, "Passed", lambda: passed)
    monkeypatch.setattr(main, "scenarios", lambda: ["pgbouncer", "pki"])
    monkeypatch.setattr(main, "left_over", lambda name: False)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(newest, "scenario", scenario)
    monkeypatch.setenv("MOLECULE_WORKERS", "1")
    outcomes = main.molecule()
    assert [outcome.name for outcome in outcomes] == [f"molecule: {name}" for name in ("pgbouncer", summary, "pki")]
    assert [outcome.passed for outcome in outcomes] == [True, not check.faults, True]
    assert actions == ["test", "destroy", "pgbouncer under the newest", "destroy", "test", "destroy"]
    assert noted == (["pgbouncer", "pki"] if remembered else ["pki"])
