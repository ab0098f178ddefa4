"""What must hold of every role: on a converged host, check mode finds nothing to change."""

from __future__ import annotations

from lab.testing import changed, rerun


def test_check_mode_finds_nothing_on_a_converged_host() -> None:
    run = rerun("--check", "--diff")
    assert set(changed(run).values()) == {0}, run.stdout
