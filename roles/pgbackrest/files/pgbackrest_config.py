# Ansible managed
"""Refuse a configuration of pgBackRest with which the repository cannot be read, before it takes the place of one that can."""

from __future__ import annotations

import subprocess
import sys

from pgbackrest import PgbackrestError, read, reason


def main(path: str, stanza: str) -> None:
    """Ask the repository, with this configuration."""
    command = ["pgbackrest", f"--config={path}", f"--stanza={stanza}", "--output=json", "info"]
    info = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if info.returncode:
        sys.exit(reason(info.stderr or info.stdout))
    try:
        read(info.stdout, stanza)
    except PgbackrestError as error:
        sys.exit(f"the repository cannot be used: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
