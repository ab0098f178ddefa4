"""What must hold of every role: on a converged host, check mode finds nothing to change."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path


def test_check_mode_finds_nothing_on_a_converged_host() -> None:
    scenario = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
    project = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
    run = subprocess.run(
        [
            "ansible-playbook",
            "--check",
            "--diff",
            f"--inventory={scenario / 'inventory'}",
            f"--inventory={project / 'molecule/shared/substrate.yml'}",
            str(scenario / "converge.yml"),
        ],
        cwd=project,
        # Molecule forces colours, which would hide the recap from the expression below.
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    changed = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", run.stdout, flags=re.MULTILINE)
    assert changed, run.stdout
    assert all(count == "0" for _, count in changed), run.stdout
