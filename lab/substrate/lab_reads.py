"""Notes which files of the project are read, for who has to know what a test consists of: imported by every Python of `.venv`, by a `.pth` beside it.

Without the variable LAB_READS nothing is noted. With it, this process, and each that it starts with this Python, adds a line to the file LAB_READS
for each file or directory below LAB_READS_BELOW that it opens, imports, lists or names to a program: its path from there, a directory with a slash
at its end. Nothing is noted of who else reads, such as a shell; what such a one is told to read, it is told by name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

COMPILED = re.compile(r"__pycache__/([^/]+)\.[^./]+\.pyc$")


class Reads:
    """Hears what Python does, and notes each file once."""

    def __init__(self, record: str, below: str) -> None:
        """Remember where to note, and what."""
        self.record, self.below = record, os.path.realpath(below) + "/"
        self.seen: set[Any] = set()
        # Packages and caches are most of what is opened, and nothing of the project.
        self.others = tuple(f"{self.below}{name}/" for name in (".venv", ".cache", ".git"))
        self.writing = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Hear of an event; see Python's table of audit events."""
        if self.writing:
            return
        if event in ("open", "os.listdir", "os.scandir"):
            self.note([arguments[0]], listed=event != "open")
        elif event == "subprocess.Popen" and isinstance(arguments[1], list | tuple):
            self.note([part for part in arguments[1] if isinstance(part, str) and "/" in part])

    def note(self, paths: Iterable[Any], listed: bool = False) -> None:
        """Write down those that are of the project, and have not been yet."""
        lines = []
        for path in paths:
            if not isinstance(path, str | bytes | os.PathLike) or (path, listed) in self.seen:
                continue
            self.seen.add((path, listed))
            # Not by pathlib: this is asked for each file that Python opens.
            name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
            if name.startswith(self.others):
                continue
            name = COMPILED.sub(r"\1.py", os.path.realpath(name))
            if name.startswith(self.below) and not name.startswith(self.others):
                directory = listed or os.path.isdir(name)  # noqa: PTH112
                lines.append(f"{name.removeprefix(self.below)}{'/' if directory else ''}\n")
        if lines:
            self.writing = True
            try:
                descriptor = os.open(self.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(descriptor, "".join(lines).encode())
                os.close(descriptor)
            finally:
                self.writing = False


noted: Reads | None = None
if os.environ.get("LAB_READS"):
    noted = Reads(os.environ["LAB_READS"], os.environ["LAB_READS_BELOW"])
    sys.addaudithook(noted)


def note(paths: Iterable[Any]) -> None:
    """Note files that are used without being read, since what they make is kept."""
    if noted:
        noted.note(paths)
