# Ansible managed
"""Run the programs that print metrics, and put what they print where the node exporter finds it.

``textfiles.py <list of programs (JSON)> <directory of the programs> <directory of the text files>``

The programs run one after the other, each in a process forked from this one, so that Python starts once. What it prints replaces its file only if
it ended well and in time; otherwise the file goes, so that nobody takes former figures for present ones, and ``sovereign_textfile_success`` says so.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import sys
import time
from pathlib import Path

LIMIT_S = 10.0
"""Seconds that a program may take."""
LARGEST = 1 << 20
"""Bytes that it may print."""


def run(program: Path, arguments: list[str]) -> bytes | None:
    """Run a program.

    Args:
        program: A Python program.
        arguments: Its arguments.

    Returns:
        What it printed, or nothing if it failed, printed too much, or took too long.
    """
    reads, writes = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.dup2(writes, 1)
            os.close(reads)
            os.close(writes)
            sys.argv = [str(program), *arguments]
            runpy.run_path(str(program), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException as error:  # Whatever it is: the others go on.
            print(f"{program.name}: {error!r}", file=sys.stderr)
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writes)
    said, deadline = b"", time.monotonic() + LIMIT_S
    whole = False
    while len(said) <= LARGEST:
        ready, _, _ = select.select([reads], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        if not (part := os.read(reads, 65536)):
            whole = True
            break
        said += part
    os.close(reads)
    if not whole:
        # With whatever it has started itself.
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not whole:
        print(f"{program.name}: not at its end after {LIMIT_S:.0f} s, or more than {LARGEST} bytes", file=sys.stderr)
    return said if whole and status == 0 else None


def put(path: Path, content: bytes) -> None:
    """Write a file at one stroke."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.chmod(0o644)
    draft.replace(path)


def main(programs: str, directory: str, target: str) -> None:
    """Run all programs."""
    told = []
    known = json.loads(Path(programs).read_text(encoding="utf-8"))
    for one in known:
        started = time.monotonic()
        said = run(Path(directory, f"{one['name']}.py"), one["arguments"])
        file = Path(target, f"{one['name']}.prom")
        if said is None:
            file.unlink(missing_ok=True)
        else:
            put(file, said)
        label = f'{{textfile="{one["name"]}"}}'
        told += [f"sovereign_textfile_success{label} {int(said is not None)}", f"sovereign_textfile_seconds{label} {time.monotonic() - started:.3f}"]
    told.append(f"sovereign_textfiles_time_seconds {time.time():.0f}")
    put(Path(target, "sovereign_textfiles.prom"), "".join(f"{line}\n" for line in told).encode())
    # Those of roles that are gone. Others that write here, such as the distribution's collectors, have names of their own.
    record = Path(target, ".sovereign")
    before = record.read_text(encoding="utf-8").split() if record.exists() else []
    for name in set(before) - {one["name"] for one in known}:
        Path(target, f"{name}.prom").unlink(missing_ok=True)
    put(record, "\n".join(one["name"] for one in known).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
