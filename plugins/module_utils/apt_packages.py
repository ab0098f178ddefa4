# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages are installed and held, by dpkg's own records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = "--showformat=${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\\n"
"""The option of ``dpkg-query --show`` whose answer ``parse_packages`` reads."""


@dataclass(frozen=True)
class Wanting:
    """What is to be done for packages.

    Attributes:
        missing: Names of packages that are not installed, or not in the version that is asked for.
        loose: Names of packages that are not held and are to be.
    """

    missing: list[str]
    loose: list[str]


def lists_are_old(made_of: Iterable[Path] = (), etc: Path = Path("/etc/apt"), lists: Path = Path("/var/lib/apt/lists")) -> bool:
    """Tell whether the repositories' lists are older than what says which repositories there are, or have never been read.

    A run that was cut after it had written a source leaves such lists.

    Args:
        made_of: Further files that lists are made of, such as the index of a repository on this host.
        etc: Where sources are declared.
        lists: Where their lists are kept.
    """
    sources = [etc / "sources.list", etc / "sources.list.d", *(etc / "sources.list.d").glob("*"), *made_of]
    # apt puts a new list in its place only if it differs, but it always works in this directory.
    read = max((_changed(path) for path in (lists, lists / "partial")), default=0)
    return any(_changed(path) > read for path in sources)


def _changed(path: Path) -> float:
    """Give the moment of a file's last change, in seconds since 1970; 0 where it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0


def parse_packages(text: str) -> dict[str, tuple[str, str]]:
    """Read what ``dpkg-query`` prints.

    Args:
        text: Its output, by ``SHOWN``.

    Returns:
        Version, and what dpkg is told to do with it (``install``, ``hold``), of each package that is installed.
    """
    rows = [line.split() for line in text.splitlines() if line.endswith(" installed")]
    return {name: (version, wanted) for name, version, wanted, dummy in rows}


def versions(names: Sequence[str]) -> dict[str, str]:
    """Give the version that is asked for of each package; empty where any does.

    Args:
        names: Packages, each by itself or as ``<name>=<version>``.
    """
    return {name.partition("=")[0]: name.partition("=")[2] for name in names}


def wanting(names: Sequence[str], hold: Sequence[str] | None, present: Mapping[str, tuple[str, str]]) -> Wanting:
    """Compare packages with those that are there.

    Args:
        names: Packages that are to be installed, each by itself or as ``<name>=<version>``.
        hold: Names of those that are to be held; all of them where it is ``None``.
        present: What ``parse_packages`` gives.
    """
    asked = versions(names)
    return Wanting(
        missing=[name for name, version in asked.items() if name not in present or version not in {"", present[name][0]}],
        loose=[name for name in (asked if hold is None else hold) if name not in present or present[name][1] != "hold"],
    )
