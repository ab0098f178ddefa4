# Ansible managed
"""Refuse a configuration of pgBackRest that it would not run with, or by which the repository cannot be read, before it is in place."""

from __future__ import annotations

import subprocess
import sys

from pgbackrest import PgbackrestError, read, reason

OPTIONS = (31, 32, 37)
"""pgBackRest's exit codes for options that are not known, not valid, and missing."""


def main(path: str, stanza: str) -> None:
    """Have the options read, and ask the repository."""

    def pgbackrest(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["pgbackrest", f"--config={path}", f"--stanza={stanza}", *words]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)

    # Options are read before anything else; there is no such file to push.
    push = pgbackrest("--no-archive-async", "archive-push", "/nowhere/000000010000000000000000")
    if push.returncode in OPTIONS:
        sys.exit(reason(push.stderr or push.stdout))
    info = pgbackrest("--output=json", "info")
    if info.returncode:
        sys.exit(reason(info.stderr or info.stdout))
    try:
        read(info.stdout, stanza)
    except PgbackrestError as error:
        sys.exit(f"the repository cannot be used: {error}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
