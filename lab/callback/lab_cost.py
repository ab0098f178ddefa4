"""Callback: what each role of a run costs, in tasks and seconds, written to a file for a benchmark."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: lab_cost
type: aggregate
short_description: Count tasks and seconds by role
description:
  - Writes into the file LAB_COST, as JSON, for each role, or play outside of roles, how many results were ok, changed or skipped, and the wall time
    of its tasks in seconds.
requirements: [the environment variable LAB_COST]
"""


class Task(Protocol):
    """What is asked of one of Ansible's tasks."""

    _role: object


class Result(Protocol):
    """What is asked of one of Ansible's results."""

    def is_changed(self) -> bool:
        """Tell whether it changed something."""


class CallbackModule(CallbackBase):
    """Counts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lab_cost"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.costs: dict[str, dict[str, float]] = defaultdict(lambda: {"ok": 0, "changed": 0, "skipped": 0, "seconds": 0})
        self.role, self.began = "", 0.0

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """End the task before, and begin this one."""
        self._end()
        self.role = str(task._role).rpartition(".")[2] if task._role else "playbooks"
        self.began = time.monotonic()

    def v2_runner_on_ok(self, result: Result) -> None:
        """Count a result."""
        self.costs[self.role]["ok"] += 1
        self.costs[self.role]["changed"] += result.is_changed()

    def v2_runner_on_skipped(self, result: object) -> None:
        """Count a task that a host did not need."""
        self.costs[self.role]["skipped"] += 1

    def v2_playbook_on_stats(self, stats: object) -> None:
        """Write what was counted."""
        self._end()
        Path(os.environ["LAB_COST"]).write_text(json.dumps(self.costs), encoding="utf-8")

    def _end(self) -> None:
        if self.role:
            self.costs[self.role]["seconds"] += time.monotonic() - self.began
