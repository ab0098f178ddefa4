"""What has passed is run again as soon as anything that it consists of is another."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests import remembered


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project of two roles, of which one calls the other, and a scenario of the first."""
    files = {
        "molecule/web/converge.yml": "roles: [sovereign.dify.web]",
        "molecule/shared/create.yml": "create",
        "roles/web/tasks/main.yml": "name: sovereign.dify.pki",
        "roles/web/README.md": "words",
        "roles/pki/tasks/main.yml": "issue",
        "roles/other/tasks/main.yml": "other",
        "plugins/modules/one.py": "one",
        "playbooks/site.yml": "site",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(remembered, "PROJECT", tmp_path)
    monkeypatch.delenv("TEST_AGAIN", raising=False)
    return tmp_path


@pytest.fixture
def passed(project: Path) -> remembered.Passed:
    found = remembered.Passed(project / "passed")
    found.note("web", remembered.fingerprint("web"))
    return found


def test_what_has_passed_as_it_is_is_remembered(passed: remembered.Passed) -> None:
    assert passed.when("web").startswith("20")
    assert passed.when("unknown") == ""


@pytest.mark.parametrize("name", ["molecule/web/converge.yml", "molecule/shared/create.yml", "roles/web/tasks/main.yml", "roles/pki/tasks/main.yml"])
def test_any_of_its_files_makes_it_run_again(project: Path, passed: remembered.Passed, name: str) -> None:
    (project / name).write_text("changed sovereign.dify.web sovereign.dify.pki")
    assert passed.when("web") == ""


def test_a_new_plugin_makes_it_run_again(project: Path, passed: remembered.Passed) -> None:
    (project / "plugins/modules/two.py").write_text("two")
    assert passed.when("web") == ""


def test_what_is_not_of_it_does_not(project: Path, passed: remembered.Passed) -> None:
    for name in ("roles/other/tasks/main.yml", "roles/web/README.md", "playbooks/site.yml"):
        (project / name).write_text("changed")
    assert passed.when("web")


def test_a_scenario_that_runs_playbooks_consists_of_them_too(project: Path, passed: remembered.Passed) -> None:
    (project / "molecule/web/tests").mkdir()
    (project / "molecule/web/tests/test_web.py").write_text('run("playbooks/site.yml")')
    passed.note("web", remembered.fingerprint("web"))
    (project / "playbooks/site.yml").write_text("changed")
    assert passed.when("web") == ""


def test_a_change_while_it_ran_is_not_remembered(project: Path, passed: remembered.Passed) -> None:
    before = remembered.fingerprint("web")
    (project / "roles/web/tasks/main.yml").write_text("changed")
    passed.note("web", before)
    assert passed.when("web") == ""


def test_after_a_week_or_on_request_it_runs_again(passed: remembered.Passed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_AGAIN", "1")
    assert passed.when("web") == ""
    monkeypatch.delenv("TEST_AGAIN")
    assert passed.when("web")
    long_ago = time.time() - remembered.KEPT_SECONDS - 60
    os.utime(passed.directory / "web", (long_ago, long_ago))
    assert passed.when("web") == ""
