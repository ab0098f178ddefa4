# Copyright (c) 2026, The sovereign.dify maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the services that Dify needs let it in, and whether its host has room: asked before anything is changed.

Dify itself says little: its workers try a broker that refuses them for ever, and its api answers ``/health`` without a database.
Runs on managed hosts. What speaks to a service is given, so that this needs no library by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1024 * 1024


class RefusedError(Exception):
    """A service answered, and does not let this client in: waiting does not help."""


class UnreachableError(Exception):
    """A service gave no answer, or one that says that it cannot work now."""


@dataclass(frozen=True)
class Dependency:
    """A service that Dify needs.

    Attributes:
        name: Its name, with address, and user: as it is shown.
        try_it: Logs in and asks something small; raises ``RefusedError`` or ``UnreachableError``.
        role: Role that configures the service, where it is this platform's.
    """

    name: str
    try_it: Callable[[], None]
    role: str


def faults(dependencies: Sequence[Dependency], patience: float, pause: float = 2.0, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Ask all services, and those that do not answer again until patience ends: one may be between two leaders.

    Args:
        dependencies: The services.
        patience: Seconds to wait for those that are unreachable.
        pause: Seconds between two attempts.
        sleep: Waits some seconds.

    Returns:
        A sentence for each that does not serve, with what to do.
    """
    deadline = time.monotonic() + patience
    found: dict[str, str] = {}
    waiting = list(dependencies)
    while True:
        late = []
        for dependency in waiting:
            try:
                dependency.try_it()
                found.pop(dependency.name, None)
            except RefusedError as error:
                found[dependency.name] = (
                    f"{dependency.name} refuses Dify: {_sentence(error)} The secret, or the name, that Dify has is not the one the service knows. "
                    f"Where the service is this platform's, --tags={dependency.role} makes them the same; of others', ask for the right ones."
                )
            except UnreachableError as error:
                late.append(dependency)
                found[dependency.name] = (
                    f"{dependency.name} does not answer: {_sentence(error)} Where the service is this platform's, see how it is on its own hosts "
                    f"(playbooks/site.yml --tags={dependency.role}), and mend that first."
                )
        waiting = late
        if not waiting or time.monotonic() >= deadline:
            return [found[dependency.name] for dependency in dependencies if dependency.name in found]
        sleep(pause)


def shortages(wanted: Mapping[str, int], free: Callable[[Path], int] | None = None) -> list[str]:
    """Compare free space with what is wanted.

    Args:
        wanted: Megabytes by directory. One that is not there yet stands for the first above it that is.
        free: Gives the free bytes of a directory that exists.

    Returns:
        A sentence for each directory without the room, with what to do.
    """
    measure = free or _free
    found = []
    for name, megabytes in wanted.items():
        path = next(path for path in (Path(name), *Path(name).parents) if path.is_dir())
        left = measure(path) // MEGABYTE
        if left < megabytes:
            found.append(
                f"{name} has {left} MB free, and {megabytes} are wanted before anything starts. Make room (`df -h {path}`, `podman image prune`, "
                "`journalctl --vacuum-size=1G`), and run again."
            )
    return found


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _sentence(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if words.endswith(".") else f"{words}."
