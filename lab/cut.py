"""Cut a run of a playbook as a switched-off controller would: ``python -m lab.cut PLAYBOOK ANSIBLE-OPTIONS…``.

What it leaves behind has to be finished by the next run. Where it is cut is drawn by chance, after a task that has changed something; by the variable
LAB_CUT_SEED, so that a place can be had again, which is the week's number where it is not given. LAB_CUT_AT gives a number of tasks instead.
Exit code 0 if the run was cut, or came to a good end before its place.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cut:
    """What came of a run.

    Attributes:
        code: Its exit code; that of the signal, below zero, if it was cut.
        changing: Numbers and names of the tasks that changed something, in their order; the last one is that after which it was cut.
        said: What it printed.
    """

    code: int
    changing: tuple[tuple[int, str], ...]
    said: str


def cut(command: list[str], at: int, environment: dict[str, str] | None = None) -> Cut:
    """Run a playbook, and end it.

    Args:
        command: ``ansible-playbook`` with its options.
        at: After how many tasks; 0 lets it run to its end.
        environment: Variables beside those of this process.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        variables = {
            **os.environ,
            **(environment or {}),
            "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "lab/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "lab_cut",
            "LAB_CUT_AT": str(at),
            "LAB_CUT_LOG": str(log),
        }
        # A group of its own, so that no worker outlives it and goes on with what it was told.
        run = subprocess.run(
            command, cwd=PROJECT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, check=False
        )
        noted = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Cut(run.returncode, tuple((int(line.partition(" ")[0]), line.partition(" ")[2]) for line in noted), run.stdout)


def length(command: list[str]) -> int:
    """Count the tasks that a playbook lists."""
    listed = subprocess.run([*command, "--list-tasks"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"\bTAGS: ", listed)) - len(re.findall(r"^\s+play #", listed, re.MULTILINE))


def main() -> int:
    """Draw a place, cut the run there, say so."""
    command = ["ansible-playbook", *sys.argv[1:]]
    seed = os.environ.get("LAB_CUT_SEED") or time.strftime("%G-%V")
    at = int(os.environ.get("LAB_CUT_AT") or random.Random(f"{seed} {sys.argv[1]}").randint(1, length(command)))  # noqa: S311 - no secret
    done = cut(command, at)
    if done.code not in (0, -signal.SIGKILL):
        print(done.said)
        print(f"The run ended by itself, with exit code {done.code}, before it was cut.")
        return 1
    where = f"after its task {done.changing[-1][0]}, {done.changing[-1][1]}" if done.code and done.changing else "nowhere: it was at its end"
    print(f"Cut {where} (seed {seed}, from task {at} on).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
