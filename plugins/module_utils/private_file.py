# SPDX-License-Identifier: GPL-3.0-or-later
"""Files for root's eyes. Ansible's own ``atomic_move`` gives a new file the permissions of the umask, for a moment or for good."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace a file at a stroke by one that only its owner may read, and that never was anything else."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def is_private(path: Path) -> bool:
    """Tell whether a file belongs to this user and nobody else may read it."""
    status = path.stat()
    return status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o600


def make_private(path: Path) -> None:
    """Take a file away from everybody else."""
    os.chown(path, os.geteuid(), os.getegid())
    path.chmod(0o600)
