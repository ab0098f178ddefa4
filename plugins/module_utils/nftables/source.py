# SPDX-License-Identifier: GPL-3.0-or-later
"""Files into one ruleset that replaces a table at a stroke, and nft's complaints back to file and line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "sovereign"
"""The table, of the family inet."""
DIRECTORY = Path("/etc/sovereign/firewall")
"""Where its parts are on a host: ``base.nft``, ``rules.d/<owner>.nft``, and ``ruleset.nft``, which was confirmed last."""
_HEADING = "# --- "
# nft reads the ruleset from its standard input.
_POSITION = re.compile(r"/dev/stdin:(\d+):(\d+)(?:-\d+)?")


@dataclass(frozen=True)
class Source:
    """A ruleset made of files: its text, and of which file and line each of its lines is (None for our own)."""

    text: str
    origins: tuple[tuple[str, int] | None, ...]

    def locate(self, complaint: str) -> str:
        """Put the file and line in front of what nft complains about, where nft says only a line of its input."""

        def place(match: re.Match[str]) -> str:
            number = int(match[1]) - 1
            origin = self.origins[number] if number < len(self.origins) else None
            if origin is None:
                # Only the end of the last file can surprise nft after the end of that file.
                last = next((known for known in reversed(self.origins) if known), None)
                return f"after {last[0]}:{last[1]}" if last else match[0]
            return f"{origin[0]}:{origin[1]}:{match[2]}"

        return _POSITION.sub(place, complaint)


def replacing(table: str, body: str) -> str:
    """Text that puts ``body`` in the place of a table in one transaction.

    The first line makes sure that there is a table to delete. Connections live in conntrack, not in the table: they go on.
    """
    return f"table {table} {{}}\ndelete table {table}\n{body}"


def files_of(sources: Sequence[str]) -> list[Path]:
    """Files named by ``sources``, in order; a directory stands for its ``*.nft`` files, sorted by name.

    Raises:
        FileNotFoundError: a source is not there.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files.extend(sorted(path.glob("*.nft")))
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(source)
    return files


def join(table: str, files: Sequence[Path]) -> Source:
    """Join files into a ruleset that replaces a table."""
    lines = ["# Joined from the files named below; edit those, this one is overwritten.", *replacing(table, "").splitlines()]
    origins: list[tuple[str, int] | None] = [None] * len(lines)
    for file in files:
        lines.append(_heading(file))
        origins.append(None)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            lines.append(line)
            origins.append((str(file), number))
    return Source("\n".join(lines) + "\n", tuple(origins))


def holds(ruleset: str, file: Path, content: str) -> bool:
    """Tell whether a joined ruleset holds a file with this content."""
    part = "\n".join(["", _heading(file), *content.splitlines(), ""])
    start = ruleset.find(part)
    rest = ruleset[start + len(part) :]
    return start >= 0 and (not rest or rest.startswith(_HEADING))


def in_force(directory: Path = DIRECTORY) -> dict[str, str]:
    """Give the digests of those rules that the ruleset confirmed last holds as they are written.

    Args:
        directory: Where the table's parts are.

    Returns:
        SHA-256 of each owner's file, by owner.
    """
    try:
        ruleset = (directory / "ruleset.nft").read_text(encoding="utf-8")
        texts = {file: file.read_text(encoding="utf-8") for file in (directory / "rules.d").glob("*.nft")}
    except OSError:
        return {}
    return {file.stem: digest(text) for file, text in texts.items() if holds(ruleset, file, text)}


def digest(content: str) -> str:
    """Give the SHA-256 of an owner's rules."""
    return hashlib.sha256(content.encode()).hexdigest()


def _heading(file: Path) -> str:
    """Line that stands before a file's own lines."""
    return f"{_HEADING}{file}"
