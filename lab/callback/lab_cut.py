"""Callback: ends a run as a switched-off controller would, by SIGKILL, after one of its tasks; and notes which tasks changed something."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Protocol

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: lab_cut
type: aggregate
short_description: End a run after one of its tasks
description:
  - Counts the tasks of a run, and kills it, with all of its workers, when the first one begins that comes after LAB_CUT_AT tasks and straight after
    one that has changed something. A number of 0 lets it run to its end.
  - Writes a line for each task that has changed something into the file LAB_CUT_LOG, its number and name.
requirements: [the environment variables LAB_CUT_AT and LAB_CUT_LOG, and a process group of the run's own]
"""


class Task(Protocol):
    """What is asked of one of Ansible's tasks."""

    def get_name(self) -> str:
        """Give its name."""


class Result(Protocol):
    """What is asked of one of Ansible's results."""

    def is_changed(self) -> bool:
        """Tell whether it changed something."""


class CallbackModule(CallbackBase):
    """Counts, and kills."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lab_cut"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Read where to cut."""
        super().__init__()
        self.at, self.log = int(os.environ["LAB_CUT_AT"]), Path(os.environ["LAB_CUT_LOG"])
        self.number, self.name, self.changed = 0, "", False

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """End the run before this task, if it is time."""
        if self.changed:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{self.number} {self.name}\n")
            if self.at and self.number >= self.at:
                os.killpg(0, signal.SIGKILL)
        self.number, self.name, self.changed = self.number + 1, task.get_name(), False

    def v2_runner_on_ok(self, result: Result) -> None:
        """Remember whether the task has changed something."""
        self.changed = self.changed or result.is_changed()
