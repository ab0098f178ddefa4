# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages are installed and held, by dpkg's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
