"""Count what ``site.yml`` costs over the lab as it is: tasks and seconds by role, and the controller's CPU.

``python tests/benchmarks/site.py [--runs N]``. Tasks are counted once for each host, as in the sum of ``ok=`` in the recap; a role's seconds are
the wall time of its tasks on all hosts. The last of several runs is shown by role, since all of them are of the same converged platform; totals are
shown of each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = ["ansible-playbook", "-i", "inventories/lab", "playbooks/site.yml"]


@dataclass
class Run:
    """One run.

    Attributes:
        seconds: Wall time.
        cpu: Seconds of CPU that the controller took, its workers included.
        costs: Results (``ok``, ``changed``, ``skipped``) and ``seconds``, by role.
        code: Exit code.
    """

    seconds: float
    cpu: float
    costs: dict[str, dict[str, float]]
    code: int

    def total(self, what: str) -> float:
        """Give the sum over all roles."""
        return sum(cost[what] for cost in self.costs.values())


def measure() -> Run:
    """Run the playbook once."""
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "costs.json"
        environment = {
            **os.environ,
            "LAB_COST": str(written),
            "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "lab/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "lab_cost",
        }
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(COMMAND, cwd=PROJECT, env=environment, check=False, stdout=subprocess.DEVNULL)
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Run(seconds, cpu, json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}, done.returncode)


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="how often to run it")
    runs = [measure() for _ in range(parser.parse_args().runs)]
    print(f"{'role':28} {'ok':>6} {'changed':>8} {'skipped':>8} {'seconds':>8}")
    for name, cost in sorted(runs[-1].costs.items(), key=lambda item: -item[1]["seconds"]):
        print(f"{name:28} {cost['ok']:6.0f} {cost['changed']:8.0f} {cost['skipped']:8.0f} {cost['seconds']:8.1f}")
    print(f"\n{'run':28} {'ok':>6} {'changed':>8} {'skipped':>8} {'seconds':>8} {'CPU s':>6} {'exit':>5}")
    for number, run in enumerate(runs, start=1):
        counts = f"{run.total('ok'):6.0f} {run.total('changed'):8.0f} {run.total('skipped'):8.0f}"
        print(f"{number:<28} {counts} {run.seconds:8.1f} {run.cpu:6.1f} {run.code:5d}")
    return max(run.code for run in runs)


if __name__ == "__main__":
    sys.exit(main())
