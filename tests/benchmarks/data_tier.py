"""Time the data tier: ``python tests/benchmarks/data_tier.py [--image sovereign-dify-lab:trixie] [--only postgresql] [--drills 5] [--keep]``.

Makes four containers (three members of everything, one client), runs site.yml over them twice, and prints for each run the wall time, the tasks that
ran and were skipped, and the controller's CPU. ``--image`` names a host image, with the packages baked in or bare; ``--only postgresql``
leaves Redis, RabbitMQ and the client out. ``--drills`` then strikes each leader so many times and prints recovery times and what was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "data_tier"
INVENTORY = [f"--inventory={HERE / 'cluster.yml'}", f"--inventory={PROJECT / 'molecule/shared/substrate.yml'}"]
# Median seconds of the longest gap: what is still good enough.
BARS = {"postgresql": 22.0, "redis": 8.0, "rabbitmq": 3.0}


@dataclass
class Run:
    """One run of a playbook: wall time and controller's CPU in seconds, tasks by outcome over all hosts."""

    name: str
    wall: float
    cpu: float
    ok: int
    changed: int
    skipped: int


def play(playbook: Path, *options: str, **variables: object) -> str:
    """Run a playbook over the benchmark's containers; give what it printed."""
    command = ["ansible-playbook", *INVENTORY, f"--extra-vars={json.dumps(variables)}", *options, str(playbook)]
    environment = {**os.environ, "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(PROJECT / ".cache/facts-bench-data"), "ANSIBLE_NOCOLOR": "1"}
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    return run.stdout


def timed(name: str, *options: str) -> Run:
    """Run site.yml and measure it."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    printed = play(PROJECT / "playbooks/site.yml", *options)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    recap = re.findall(r"^\S+\s+: ok=(\d+)\s+changed=(\d+).*?skipped=(\d+)", printed, flags=re.MULTILINE)
    ok, changed, skipped = (sum(int(row[column]) for row in recap) for column in range(3))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(name, wall, cpu, ok, changed, skipped)


def main() -> None:
    """Make the containers, measure, print, remove them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="sovereign-dify-lab:trixie-data")
    parser.add_argument("--only", choices=["postgresql"])
    parser.add_argument("--drills", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="leave the containers")
    arguments = parser.parse_args()
    # What every host gets first (time, certificates, firewall) is counted, too.
    options = ["--limit=etcd", "--tags=baseline,pki,firewall,etcd,patroni"] if arguments.only else []
    try:
        play(PROJECT / "molecule/shared/create.yml", substrate_image=arguments.image)
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {arguments.image}{', PostgreSQL and etcd alone' if arguments.only else ''}")
        print(f"{'run':8}{'wall s':>8}{'CPU s':>8}{'ok':>6}{'changed':>9}{'skipped':>9}   (tasks over all hosts, CPU of the controller)")
        for name in ("first", "second"):
            run = timed(name, *options)
            print(f"{run.name:8}{run.wall:8.0f}{run.cpu:8.0f}{run.ok:6}{run.changed:9}{run.skipped:9}", flush=True)
        for service, bar in BARS.items() if arguments.drills else ():
            play(PROJECT / "playbooks/drills/failover.yml", drill_service=service, drill_runs=arguments.drills, drill_hold=40)
            report = json.loads((HERE / f".state/reports/drill-{service}-kill.json").read_text())
            rto, rpo = report["rto_s"], report["rpo"]
            print(
                f"{service:11} leader's host killed, {arguments.drills} runs: gap {rto['minimum']} / {rto['median']} / {rto['maximum']} s"
                f" (bar {bar:g} in the median), {rpo['lost']} of {rpo['acknowledged']} acknowledged writes lost, {rpo['repeated']} twice",
                flush=True,
            )
    finally:
        if not arguments.keep:
            play(PROJECT / "molecule/shared/destroy.yml")


if __name__ == "__main__":
    main()
