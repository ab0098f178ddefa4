"""Compare a model's files with their manifest before a vLLM instance is started: what was tampered with, or has rotted, is not served.

Every byte is read, at every start: times and inodes, by which a rerun of Ansible tells quickly that nothing has changed, can be forged, and say
nothing of a disk that returns other bytes. What was read stays in the page cache, from which the server then loads it.

Run by ``ExecStartPre=``; the standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 8 * 1024 * 1024
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
WORKERS = 8


def differences(directory: Path, manifest: str, complete: bool = True) -> list[str]:
    """Compare a directory with a manifest.

    Args:
        directory: The model's files.
        manifest: Lines as ``sha256sum`` writes them, with paths relative to the directory.
        complete: Whether the directory may hold nothing else.

    Returns:
        What differs, in words; empty if nothing does.
    """
    wanted = {}
    for line in manifest.splitlines():
        if not (match := LINE.fullmatch(line)):
            return [f"its manifest has a line that is none: {line!r}"]
        wanted[match[2]] = match[1]
    if not wanted:
        return ["its manifest names no file"]
    reasons = []
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        for path, found in zip(wanted, pool.map(lambda path: digest(directory / path), wanted), strict=True):
            if found != wanted[path]:
                reasons.append(f"{path} {'is not what the manifest says' if len(found) == len(wanted[path]) else found}")
    if complete:
        present = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
        reasons += [f"{path} is not in the manifest" for path in sorted(present - set(wanted))]
    return reasons


def digest(path: Path) -> str:
    """Give the SHA-256 of a file, or why it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                found.update(chunk)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return found.hexdigest()


def main(arguments: list[str]) -> int:
    """Read the arguments, compare, say what differs.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description="Compare a model's files with their manifest.")
    parser.add_argument("--directory", type=Path, required=True, help="the model's files")
    parser.add_argument("--manifest", type=Path, required=True, help="file of lines as sha256sum writes them")
    parser.add_argument("--sha256", required=True, help="SHA-256 that the manifest itself must have")
    parser.add_argument("--partial", action="store_true", help="the directory may hold more than the manifest names")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        manifest = options.manifest.read_bytes()
    except OSError as error:
        reasons = [f"its manifest {options.manifest} cannot be read: {error.strerror}"]
    else:
        if hashlib.sha256(manifest).hexdigest() == options.sha256:
            reasons = differences(options.directory, manifest.decode(), complete=not options.partial)
        else:
            reasons = [f"its manifest {options.manifest} is not the one that it was configured with (SHA-256 {options.sha256})"]
    if reasons:
        remedy = "Remove that directory and run the role vllm again, which makes it anew; if it is served in place, bring the right files back"
        print(f"{options.directory} is not served: {'; '.join(reasons)}. {remedy}", file=sys.stderr, flush=True)
        return 1
    print(f"{options.directory} is what its manifest says, read in {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
