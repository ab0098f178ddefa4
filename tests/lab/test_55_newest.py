"""The platform under the newest release of Ansible: what the pinned one has set up is as that one wants it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testing import recap
from tests import newest
from tests.lab import ONE_OF_EACH, ONE_OF_EACH_LIMIT


def test_site_changes_nothing_and_warns_of_nothing(tmp_path: Path) -> None:
    found = newest.newer_python()
    if not found:
        pytest.skip("no Python here that Ansible's newest release runs under")
    environment = newest.made(newest.releases()[-1], *found, ())
    run = newest.under(environment, tmp_path / "run", "ansible-playbook", "-i", "inventories/lab", "playbooks/site.yml", ONE_OF_EACH_LIMIT)
    assert run.code == 0, run.output[-5000:] + run.errors
    counts = recap(run.output)
    assert set(counts) >= set(ONE_OF_EACH)
    assert set(counts.values()) == {0}, run.output[-5000:]
    assert newest.ours(run.warnings) == []
    print(f"\nansible-core {environment.core}: {run.seconds:.0f} s")
