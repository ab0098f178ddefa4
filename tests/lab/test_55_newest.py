"""The platform as users have it: set up by the installed artefact, on hosts whose Python nobody hastens, under the newest release of Ansible."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.testing import PROJECT, recap
from tests import newest
from tests.artefact.conftest import installed as installed
from tests.lab import ONE_OF_EACH, ONE_OF_EACH_LIMIT


def test_site_of_the_installed_artefact_changes_nothing_and_warns_of_nothing(installed: dict[str, str], tmp_path: Path) -> None:
    """What the pinned release has set up out of this tree is as the newest one wants it; where that cannot be had, as the pinned one does."""
    found = newest.newer_python()
    environment = newest.made(newest.releases()[-1], *found, ()) if found else newest.Environment(newest.venv_release(), Path(sys.executable).parent)
    # Lab hosts have an interpreter that begins modules faster.
    python = tmp_path / "python.yml"
    python.write_text("all: {vars: {ansible_python_interpreter: /usr/bin/python3}}\n")
    # Nothing of this tree's configuration. By Ansible's own default each module is copied to the host before it runs: five times the work.
    settings = tmp_path / "ansible.cfg"
    settings.write_text("[defaults]\n[connection]\npipelining = true\n")
    command = ["ansible-playbook", "-i", str(PROJECT / "inventories/lab"), "-i", str(python), "sovereign.dify.site", ONE_OF_EACH_LIMIT]
    places = {"ANSIBLE_CONFIG": str(settings), "ANSIBLE_COLLECTIONS_PATH": installed["ANSIBLE_COLLECTIONS_PATH"]}
    run = newest.under(environment, tmp_path / "run", *command, **places)
    assert run.code == 0, run.output[-5000:] + run.errors
    counts = recap(run.output)
    assert set(counts) >= set(ONE_OF_EACH)
    assert set(counts.values()) == {0}, run.output[-5000:]
    assert newest.ours(run.warnings) == []
    print(f"\nansible-core {environment.core}: {run.seconds:.0f} s")
