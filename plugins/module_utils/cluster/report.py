# SPDX-License-Identifier: GPL-3.0-or-later
"""Mistakes in a cluster file: where, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"
"""Where something stands in the file: keys and list positions from the top."""

_PLAIN_KEY = re.compile(r"^[A-Za-z0-9_/-]+$")


def show(path: Path) -> str:
    """Write a path as people do: ``sites.edge.hosts.edge-gw1.groups[3]``; a key that holds a dot is quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        name = step if _PLAIN_KEY.match(step) else f'"{step}"'
        text += f".{name}" if text else name
    return text or "(top)"


def suggest(word: str, known: Collection[str], otherwise: str) -> str:
    """Name the known word nearest to a mistyped one, or say what holds otherwise."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else otherwise


def listing(words: Collection[str]) -> str:
    """Join names for a sentence; nothing at all reads as ``none``."""
    return ", ".join(words) if words else "none"


@dataclass(frozen=True)
class Mistake:
    """One cause, told once."""

    path: Path
    problem: str
    remedy: str
    line: int

    def __str__(self) -> str:
        """Render without the file and line, which the report puts in front."""
        return f"{show(self.path)}: {self.problem}; {self.remedy}"


class RefusedError(Exception):
    """The cluster file holds mistakes; the text lists all of them."""

    def __init__(self, report: Report) -> None:
        """Keep the report, so that callers can look at single mistakes."""
        self.report = report
        super().__init__(report.render())


class Report:
    """Collects mistakes, knows the line of every path, and which parts of the file could not be read.

    A rule that builds on a part of the file asks ``clean`` first: a part that already has a mistake accuses nobody else.
    """

    def __init__(self, filename: str) -> None:
        """Start an empty report for a file; the name is only for display."""
        self.filename = filename
        self._mistakes: list[Mistake] = []
        self._lines: dict[Path, int] = {(): 1}
        self._touched: set[Path] = set()
        self._unread: set[Path] = set()

    def place(self, path: Path, line: int) -> None:
        """Remember on which line a path stands."""
        self._lines[path] = line

    def line(self, path: Path) -> int:
        """Line of a path, or of the nearest thing around it that is in the file."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def add(self, path: Path, problem: str, remedy: str, line: int | None = None) -> None:
        """Note a mistake."""
        mistake = Mistake(path, problem, remedy, self.line(path) if line is None else line)
        if mistake in self._mistakes:
            return
        self._mistakes.append(mistake)
        self._touched.update(path[:length] for length in range(len(path) + 1))

    def unread(self, path: Path) -> None:
        """Mark a path whose value is not known because something in it was wrong."""
        self._unread.add(path)

    def readable(self, path: Path) -> bool:
        """Tell whether the value at a path is what the file says."""
        return not any(path[:length] in self._unread for length in range(len(path) + 1))

    def clean(self, *paths: Path) -> bool:
        """Tell whether all paths are readable and nothing at or below them is wrong."""
        return all(path not in self._touched and self.readable(path) for path in paths)

    @property
    def mistakes(self) -> list[Mistake]:
        """All mistakes in the order of the file."""
        return sorted(self._mistakes, key=lambda mistake: (mistake.line, show(mistake.path)))

    def headline(self) -> str:
        """Say how many mistakes there are."""
        count = len(self._mistakes)
        return f"{self.filename}: {count} mistake{'s' if count != 1 else ''}; nothing was loaded"

    def details(self) -> str:
        """List the mistakes, one a line."""
        short = self.filename.rpartition("/")[2]
        return "\n".join(f"  {short}:{mistake.line}: {mistake}" for mistake in self.mistakes)

    def render(self) -> str:
        """Write the whole report."""
        return f"{self.headline()}\n{self.details()}"
