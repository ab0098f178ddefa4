"""Print what the node exporter does not know of a host: whether it waits for a restart, and whether its clock is its own.

``host.py [--own-clock]``
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

# Written by packages that want a restart, such as the kernel's with unattended-upgrades.
REQUIRED = Path("/run/reboot-required")
CONTAINER = Path("/run/systemd/container")
BOOT = Path("/boot")
IMAGE = re.compile(r"vmlinuz-(\d[^-]*(?:-\d[^-]*)*)-(.+)")


def order(version: str) -> list[tuple[int, str]]:
    """Give what versions of kernels are compared by: numbers as numbers, all else as text."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", version)]


def newest(running: str, images: list[str]) -> str:
    """Give the newest kernel that is installed, of those of the running one's flavour.

    Args:
        running: Release of the running kernel.
        images: Names of files in ``/boot``.

    Returns:
        Its release; that of the running one where none is installed.
    """
    if not (own := IMAGE.fullmatch(f"vmlinuz-{running}")):
        return running
    versions = [found[1] for image in images if (found := IMAGE.fullmatch(image)) and found[2] == own[2]]
    return f"{max(versions, key=order)}-{own[2]}" if versions else running


def report(running: str, images: list[str], required: bool, own_clock: bool) -> list[str]:
    """Give the metrics as lines of Prometheus' text format."""
    return [
        "# HELP sovereign_restart_required Whether the host waits for a restart, by reason.",
        "# TYPE sovereign_restart_required gauge",
        f'sovereign_restart_required{{reason="packages"}} {int(required)}',
        f'sovereign_restart_required{{reason="kernel"}} {int(newest(running, images) != running)}',
        "# HELP sovereign_own_clock Whether the host sets its clock itself. A container has that of its host.",
        "# TYPE sovereign_own_clock gauge",
        f"sovereign_own_clock {int(own_clock)}",
    ]


def main() -> None:
    """Look, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--own-clock", action="store_true", help="the host sets its clock")
    given = parser.parse_args()
    # In a container the running kernel is that of the machine around it.
    images = [] if CONTAINER.exists() else [path.name for path in BOOT.glob("vmlinuz-*")]
    print("\n".join(report(os.uname().release, images, REQUIRED.exists(), given.own_clock)))


if __name__ == "__main__":
    main()
