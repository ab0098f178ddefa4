"""Which of Molecule's scenarios have passed on this machine with the very files that they consist of.

Such a one would only pass again: it is not run for a week, unless ``TEST_AGAIN=1`` says so. What a scenario consists of is counted generously: its
directory, what all scenarios share, every plugin, how hosts are made, and each role that it or one of its roles names.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SHARED = ("molecule/shared", ".config/molecule", "plugins", "lab", "ansible.cfg", "requirements-dev.txt")
KEPT_SECONDS = 7 * 24 * 3600
"""Distributions move on: what passed longer ago is run again."""
NAMED = re.compile(r"\bsovereign\.dify\.([a-z_]+)")
IGNORED = ("__pycache__", ".state", ".cache")


def _files(root: Path) -> Iterator[Path]:
    """Give the files below a path that decide how something runs, in order."""
    found = [root] if root.is_file() else root.rglob("*")
    for path in sorted(found):
        if path.is_file() and path.suffix not in (".md", ".pyc") and not set(path.relative_to(PROJECT).parts) & set(IGNORED):
            yield path


def consists_of(scenario: str) -> list[Path]:
    """Give the files that a scenario consists of, in order.

    Args:
        scenario: Its name.
    """
    roots = [PROJECT / "molecule" / scenario]
    for root in roots:
        for path in _files(root):
            text = path.read_text(encoding="utf-8", errors="replace")
            named = {PROJECT / "roles" / name for name in NAMED.findall(text)}
            # The collection's playbooks take any role.
            named |= {PROJECT / "playbooks"} if "playbooks/" in text else set()
            roots += sorted(directory for directory in named if directory.is_dir() and directory not in roots)
    return sorted({path for root in [*roots, *(PROJECT / name for name in SHARED)] for path in _files(root)})


def fingerprint(scenario: str) -> str:
    """Give a hash of all that a scenario consists of.

    Args:
        scenario: Its name.
    """
    total = hashlib.sha256()
    for path in consists_of(scenario):
        total.update(f"{path.relative_to(PROJECT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


class Passed:
    """What has passed, remembered beside the lab's other caches."""

    def __init__(self, directory: Path | None = None) -> None:
        """Remember in a directory."""
        cache = os.environ.get("SOVEREIGN_LAB_CACHE") or "~/.cache/sovereign-dify-lab"
        self.directory = directory or Path(cache).expanduser() / "passed"

    def when(self, scenario: str) -> str:
        """Give the day on which a scenario has passed as it is now; nothing if it has to be run.

        Args:
            scenario: Its name.
        """
        file = self.directory / scenario
        if os.environ.get("TEST_AGAIN") == "1" or not file.is_file():
            return ""
        passed = file.stat().st_mtime
        if time.time() - passed > KEPT_SECONDS or file.read_text() != fingerprint(scenario):
            return ""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(passed))

    def note(self, scenario: str, before: str) -> None:
        """Remember that a scenario has passed, unless its files have changed meanwhile.

        Args:
            scenario: Its name.
            before: Its fingerprint of before it was run.
        """
        if fingerprint(scenario) == before:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / scenario).write_text(before)
