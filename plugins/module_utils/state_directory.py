# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory on the controller that holds a platform's authority and secrets, and how it is told from another platform's. No Ansible in it.

The directory has an identity, an identifier that is made once and is no secret. Each host carries the identity of the directory that its secrets come
from (its mark), as a local fact of Ansible. A controller whose directory differs must not configure the host: it would replace passwords that
running services know.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FACT = "sovereign"
"""Name of the local fact that carries the mark: ``{"state": <identity>}``."""
ADOPT = "cluster_adopt_state"
"""Variable by which an operator says that hosts take over another directory's secrets."""
REMEDY = (
    "The state directory holds the platform's authority and secrets. The first run makes it, it belongs to the platform, and every run needs it: "
    "restore {directory} from its backup, or let state_dir in cluster.yml name the place where it lives, which all checkouts and jobs share. To have "
    f"these hosts use {{directory}} from now on, with all passwords and certificates that it holds or that will be made: -e {ADOPT}=true."
)


def keep(path: Path, text: str) -> None:
    """Keep a text unless another process has kept one meanwhile.

    The file appears whole or not at all, and an existing one is never replaced: the first process wins, the others read what it wrote.

    Args:
        path: Where to keep it. Missing directories are made for the owner alone.
        text: What to keep.
    """
    missing = [directory for directory in (path.parent, *path.parent.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
        except OSError:
            # The file system knows no hard links (vFAT, some network shares).
            _keep_by_lock(path, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _keep_by_lock(path: Path, temporary: Path) -> None:
    """Move a file to where none is. A lock makes looking and moving one step for all processes."""
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not path.exists():
            temporary.rename(path)
        # A process that waits for this lock, or makes another one, finds the file in place.
        lock.unlink(missing_ok=True)


def identity(directory: Path) -> str:
    """Give the identity of a state directory; an empty text if it has none yet."""
    try:
        return (directory / "id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def make_identity(directory: Path) -> str:
    """Give a state directory an identity, unless it has one, and return it."""
    keep(directory / "id", str(uuid.uuid4()))
    return identity(directory)


def in_use(directory: Path) -> bool:
    """Tell whether a state directory has served a run: also one from before there were identities."""
    return any((directory / name).exists() for name in ("id", "secrets", "pki/ca.crt"))


def mark(facts: Mapping[str, Any]) -> str | None:
    """Give the mark of a host.

    Args:
        facts: The host's ``ansible_facts``.

    Returns:
        The identity of the state directory that the host was configured from, an empty text if it carries none, None if local facts are not known.
    """
    local = facts.get("ansible_local")
    if not isinstance(local, Mapping):
        return None
    fact = local.get(FACT)
    return str(fact.get("state", "")) if isinstance(fact, Mapping) else ""


def problem(directory: Path, marks: Mapping[str, str | None], hosts: Sequence[str]) -> str:
    """Say why a run must not go on with a state directory.

    Args:
        directory: The state directory.
        marks: The marks of the hosts of this run, and of others as far as known.
        hosts: All hosts of the platform.

    Returns:
        The reason and what to do, for an operator; empty if the run may go on.
    """
    own = identity(directory)
    other = {host: found for host, found in marks.items() if found and found != own}
    remedy = REMEDY.format(directory=directory)
    if other:
        listed = ", ".join(f"{host} ({found})" for host, found in sorted(other.items()))
        present = f"{directory} is another one ({own})" if own else f"{directory} has no identity yet"
        return f"Nothing has been changed. These hosts were configured from another state directory: {listed}. {present}. {remedy}"
    unknown = sorted({host for host in hosts if marks.get(host) is None})
    if unknown and not in_use(directory):
        return (
            f"Nothing has been changed. {directory} has never been used, and this run does not see whether other hosts of the platform were "
            f"configured from another state directory: {', '.join(unknown)}. If the platform is new, run once without a limit, or say so by "
            f"-e {ADOPT}=true. If it is not: {remedy}"
        )
    return ""
