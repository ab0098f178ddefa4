"""Time the lab: from nothing to a green smoke test, and again; with the machine's peak memory. ``python tests/benchmarks/lab.py [--fresh]``.

Prints a table. Memory is what the machine has less of than before (MemAvailable), sampled every second.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def available_gb() -> float:
    """Memory that could be given to programs now, in GB."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    if not match:
        msg = "no MemAvailable in /proc/meminfo"
        raise RuntimeError(msg)
    return int(match[1]) * 1024 / 1e9


@dataclass
class Measurement:
    """One command.

    Attributes:
        name: What was done.
        seconds: Wall time.
        peak_gb: Memory in use at most, above what was in use before the lab, in GB.
        changed: Sum of ``changed=`` in Ansible's recaps.
        code: Exit code.
    """

    name: str
    seconds: float
    peak_gb: float
    changed: int
    code: int


def measure(name: str, command: list[str], before_gb: float) -> Measurement:
    """Run a command, its output passed on, and measure it."""
    lowest = [available_gb()]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(1.0):
            lowest[0] = min(lowest[0], available_gb())

    sampler = threading.Thread(target=sample)
    sampler.start()
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    changed = 0
    for line in process.stdout or ():
        sys.stdout.write(line)
        changed += sum(int(count) for count in re.findall(r" changed=(\d+) ", line))
    code = process.wait()
    done.set()
    sampler.join()
    return Measurement(name, time.monotonic() - started, before_gb - lowest[0], changed, code)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="take the lab down first, so that the first row starts from nothing")
    if parser.parse_args().fresh:
        subprocess.run(["make", "lab-down"], cwd=PROJECT, check=False)
    before = available_gb()
    rows = [measure("make lab", ["make", "lab"], before), measure("make lab again", ["make", "lab"], before)]
    print(f"\n{'command':16} {'seconds':>8} {'peak GB':>8} {'changed':>8} {'exit':>5}")
    for row in rows:
        print(f"{row.name:16} {row.seconds:8.0f} {row.peak_gb:8.1f} {row.changed:8d} {row.code:5d}")
    return max(row.code for row in rows)


if __name__ == "__main__":
    sys.exit(main())
