"""Measure what a model server gains by working on many requests at once: ``python tests/benchmarks/batching.py [--rounds 3] [--many 16]``.

Runs over the lab as ``make lab`` leaves it, by the playbook that operators have for it (``playbooks/ops/bench_models.yml``). Prints the tokens per
second of one request at a time and of many, and the ratio of the two, for each round and in the median. How large it is depends on the machine: it is
for whoever reads it to judge.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


def measure(model: str, host: str, **variables: object) -> list[dict[str, Any]]:
    """Run the playbook once.

    Args:
        model: Name of the model.
        host: The host whose instance is asked.
        **variables: Those of the playbook that say what is asked.

    Returns:
        A row for each number of requests at a time.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "bench.json"
        given = json.dumps({"model": model, "bench_report": str(report), **variables})
        command = ["ansible-playbook", "-i", "inventories/lab", "playbooks/ops/bench_models.yml", f"--limit={host}", f"--extra-vars={given}"]
        run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(run.stdout + run.stderr)
        rows: list[dict[str, Any]] = json.loads(report.read_text())["rows"]
        return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assistant")
    parser.add_argument("--host", default="hq-gpu1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=16, help="requests at a time")
    parser.add_argument("--requests", type=int, default=8, help="requests for each of those at a time")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {options.model} on {options.host}; tokens a second")
    print(f"{'':8} {'1 at a time':>12} {f'{options.many} at a time':>14} {'ratio':>7}", flush=True)
    ratios = []
    for number in range(1, options.rounds + 1):
        # Answers longer than prompts: what is written together is what is gained.
        asked = {"bench_requests": options.requests, "bench_input_tokens": 32, "bench_output_tokens": 128}
        one, many = measure(options.model, options.host, bench_concurrency=[1, options.many], **asked)
        ratios.append(many["tokens_per_s"] / one["tokens_per_s"])
        print(f"round {number:<2} {one['tokens_per_s']:12.1f} {many['tokens_per_s']:14.1f} {ratios[-1]:7.1f}", flush=True)
    print(f"{options.many} at a time give {statistics.median(ratios):.1f} times the tokens per second of one at a time, in the median")


if __name__ == "__main__":
    main()
