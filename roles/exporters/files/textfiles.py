# Ansible managed
"""Run the programs that print metrics, and put what they print where the node exporter finds it.

``textfiles.py <list of programs (JSON)> <directory of the programs> <directory of the text files>``

The programs run one after the other, each in a process forked from this one, so that Python starts once. What it prints replaces its file only if
it ended well and in time; otherwise the file goes, so that nobody takes former figures for present ones, and ``sovereign_textfile_success`` says so.
What a program has printed is left as it is for as long as its declaration says (``every``), unless the program or the list has changed since.
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
EARLY_S = 10.0
"""Seconds by which a program may be run before its time: the timer is not exact."""


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
        ready = select.select([reads], [], [], max(0.0, deadline - time.monotonic()))[0]
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
    status = os.waitpid(child, 0)[1]
    if not whole:
        print(f"{program.name}: not at its end after {LIMIT_S:.0f} s, or more than {LARGEST} bytes", file=sys.stderr)
    return said if whole and status == 0 else None


def put(path: Path, content: bytes) -> None:
    """Write a file at one stroke."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.chmod(0o644)
    draft.replace(path)


def good(file: Path, seconds: float, *sources: Path) -> bool:
    """Tell whether what was printed into a file is still good.

    Args:
        file: The file.
        seconds: For how long it is.
        *sources: What must not be newer.
    """
    try:
        written = file.stat().st_mtime
        return 0 <= time.time() - written < seconds - EARLY_S and all(source.stat().st_mtime < written for source in sources)
    except FileNotFoundError:
        return False


def main(programs: str, directory: str, target: str) -> None:
    """Run all programs."""
    told = []
    known = json.loads(Path(programs).read_text(encoding="utf-8"))
    report = Path(target, "sovereign_textfiles.prom")
    before = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    for one in known:
        started = time.monotonic()
        program, file = Path(directory, f"{one['name']}.py"), Path(target, f"{one['name']}.prom")
        if good(file, one["every"], program, Path(programs)):
            told += [line for line in before if f'{{textfile="{one["name"]}"}}' in line]
            continue
        said = run(program, one["arguments"])
        if said is None:
            file.unlink(missing_ok=True)
        else:
            put(file, said)
        label = f'{{textfile="{one["name"]}"}}'
        told += [f"sovereign_textfile_success{label} {int(said is not None)}", f"sovereign_textfile_seconds{label} {time.monotonic() - started:.3f}"]
    told.append(f"sovereign_textfiles_time_seconds {time.time():.0f}")
    put(report, "".join(f"{line}\n" for line in told).encode())
    # Those of roles that are gone. Others that write here, such as the distribution's collectors, have names of their own.
    record = Path(target, ".sovereign")
    kept = record.read_text(encoding="utf-8").split() if record.exists() else []
    for name in set(kept) - {one["name"] for one in known}:
        Path(target, f"{name}.prom").unlink(missing_ok=True)
    put(record, "\n".join(one["name"] for one in known).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
