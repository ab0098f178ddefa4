"""Time the data tier: ``python tests/benchmarks/data_tier.py [--image sovereign-dify-lab:trixie] [--only postgresql] [--drills 5] ...``.

Makes four containers (three members of everything, one client), runs site.yml over them twice, and prints for each run the wall time, the tasks that
ran and were skipped, and the controller's CPU. ``--image`` names a host image, with the packages baked in or bare; ``--only postgresql``
leaves the other services and the client out. ``--drills`` then strikes each leader so many times and prints recovery times and what was lost.
``--partitions`` cuts each host off from the others for a minute, with writers on every service, and tells whether two hosts ever took writes at once.
``--disks`` gives each service's data a small file system in memory and fills the leader's. ``--reuse`` takes the containers as an earlier run with
``--keep`` has left them.
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
BARS = {"postgresql": 19.0, "redis": 4.0, "rabbitmq": 1.5}
# Where services keep their data, and how many megabytes a file system of its own gets for --disks.
DISKS = {"postgresql": ("/var/lib/postgresql", 1500), "redis": ("/var/lib/redis", 200), "rabbitmq": ("/var/lib/rabbitmq", 400)}
MEMBERS = ["db1", "db2", "db3"]


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


def timed(name: str, *options: str, **variables: object) -> Run:
    """Run site.yml and measure it."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    printed = play(PROJECT / "playbooks/site.yml", *options, **variables)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    recap = re.findall(r"^\S+\s+: ok=(\d+)\s+changed=(\d+).*?skipped=(\d+)", printed, flags=re.MULTILINE)
    ok, changed, skipped = (sum(int(row[column]) for row in recap) for column in range(3))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(name, wall, cpu, ok, changed, skipped)


WATCH = r"""
import subprocess, sys, time
from pathlib import Path
asked = "psql -AtX -c 'select case when pg_is_in_recovery() then 0 else 1 end'"
while not Path("/run/watch.stop").exists():
    began = time.time()
    row = subprocess.run(["su", "-s", "/bin/sh", "postgres", "-c", asked], capture_output=True, text=True)
    key = subprocess.run(["redis-admin", "set", "drill:watch", "1", "px", "5000"], capture_output=True, text=True)
    print(began, int(row.stdout.strip() == "1"), int(key.stdout.strip() == "OK"), flush=True)
    time.sleep(0.1)
"""
"""Runs on each member, whatever becomes of its network: every few tenths of a second, whether PostgreSQL leads here and Redis takes a write here."""


def overlap(watches: dict[str, list[tuple[float, bool]]]) -> float:
    """Give the longest time, in seconds, for which two hosts took writes at once.

    Args:
        watches: Of each host the times at which it was asked, and whether it took writes.
    """
    spans = []
    for host, seen in watches.items():
        since = None
        for moment, takes in [*seen, (float("inf"), False)]:
            if takes:
                since, last = (moment if since is None else since), moment
            elif since is not None:
                spans.append((since, last, host))
                since = None
    found = [min(end, other_end) - max(begin, other) for begin, end, host in spans for other, other_end, name in spans if host < name]
    return max([0.0, *found])


def container(name: str) -> str:
    """Name of a host's container."""
    return f"bench-data-{name}"


def own_file_systems() -> None:
    """Give each service's data on each member a small file system; what the image has there is kept. A container that is started anew loses them."""
    for name in MEMBERS:
        for directory, megabytes in DISKS.values():
            steps = (
                f"mount -t tmpfs -o size={megabytes}m tmpfs /mnt",
                f"cp --archive {directory}/. /mnt/",
                f"mount --bind /mnt {directory}",
                "umount /mnt",
            )
            script = " && ".join(steps)
            subprocess.run(["docker", "exec", container(name), "sh", "-c", script], check=True)


def drill(service: str, fault: str, runs: int, hold: int, bar: float) -> None:
    """Strike the leader so many times, and print what it cost."""
    play(PROJECT / "playbooks/drills/failover.yml", drill_service=service, drill_fault=fault, drill_runs=runs, drill_hold=hold)
    report = json.loads((HERE / f".state/reports/drill-{service}-{fault}.json").read_text())
    rto, rpo = report["rto_s"], report["rpo"]
    print(
        f"{service:14} {fault}, {runs} runs: gap {rto['minimum']} / {rto['median']} / {rto['maximum']} s"
        f"{f' (bar {bar:g} in the median)' if bar else ''}, {rpo['lost']} of {rpo['acknowledged']} acknowledged writes lost, {rpo['repeated']} twice",
        flush=True,
    )


def partition(host: str, members: list[str], hold: int) -> None:
    """Cut one host off while clients write, and say what came of it."""
    for name in members:
        subprocess.run(["docker", "exec", container(name), "rm", "-f", "/run/watch.stop"], check=True)
    watchers = {
        name: subprocess.Popen(["docker", "exec", container(name), "python3", "-c", WATCH], stdout=subprocess.PIPE, text=True) for name in members
    }
    programs = {}
    for service, secret in (("redis", "redis"), ("rabbitmq", "rabbitmq")):
        password = f"/root/{service}.password"
        subprocess.run(
            ["docker", "exec", "-i", container("app1"), "sh", "-c", f"umask 077; cat > {password}"],
            input=(HERE / f".state/secrets/{secret}/drill").read_text(),
            text=True,
            check=True,
        )
        program = ["python3", "/var/lib/sovereign/drill/ledger_load.py", "--service", service, "--user", "drill", "--database", "drill"]
        command = ["docker", "exec", container("app1"), *program, "--password-file", password, "--seconds", str(hold + 60)]
        programs[service] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    play(
        PROJECT / "playbooks/drills/failover.yml",
        drill_service="postgresql",
        drill_fault="partition",
        drill_runs=1,
        drill_hold=hold,
        drill_target=host,
    )
    reports = {"postgresql": json.loads((HERE / ".state/reports/drill-postgresql-partition.json").read_text())["runs"][0]}
    reports.update({service: json.loads(program.communicate(timeout=300)[0]) for service, program in programs.items()})
    for service in reports:
        play(PROJECT / "tests/benchmarks/data_tier/strength.yml", drill_service=service)
    for name in members:
        subprocess.run(["docker", "exec", container(name), "touch", "/run/watch.stop"], check=True)
    rows = {name: [line.split() for line in watcher.communicate(timeout=30)[0].splitlines()] for name, watcher in watchers.items()}
    for column, service in ((1, "postgresql"), (2, "redis")):
        seconds = overlap({name: [(float(row[0]), row[column] == "1") for row in seen] for name, seen in rows.items()})
        print(f"{host} cut off for {hold} s: two writers of {service} for {seconds:.1f} s", end="; ")
    print(
        ", ".join(
            f"{service} gap {report['longest_gap_s']:.1f} s, {report['lost']} of {report['acknowledged']} lost" for service, report in reports.items()
        )
    )


def main() -> None:
    """Make the containers, measure, print, remove them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="sovereign-dify-lab:trixie-data")
    parser.add_argument("--only", choices=["postgresql"])
    parser.add_argument("--drills", type=int, default=0)
    parser.add_argument("--partitions", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--disks", type=int, default=0, metavar="RUNS")
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the containers")
    arguments = parser.parse_args()
    if arguments.disks and (arguments.drills or arguments.reuse or arguments.only):
        parser.error("--disks needs fresh hosts, and hosts that are killed lose what --disks keeps in memory: run it by itself")
    # What every host gets first (time, certificates, firewall) is counted, too.
    options = ["--limit=etcd", "--tags=baseline,pki,firewall,etcd,patroni"] if arguments.only else []
    variables: dict[str, object] = {}
    try:
        if not arguments.reuse:
            play(PROJECT / "molecule/shared/create.yml", substrate_image=arguments.image)
        if arguments.disks:
            own_file_systems()
            variables["rabbitmq_disk_free_limit_mb"] = 50
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {arguments.image}{', PostgreSQL and etcd alone' if arguments.only else ''}")
        print(f"{'run':8}{'wall s':>8}{'CPU s':>8}{'ok':>6}{'changed':>9}{'skipped':>9}   (tasks over all hosts, CPU of the controller)")
        for name in ("first", "second")[arguments.reuse :]:
            run = timed(name, *options, **variables)
            print(f"{run.name:8}{run.wall:8.0f}{run.cpu:8.0f}{run.ok:6}{run.changed:9}{run.skipped:9}", flush=True)
        for service, bar in {**BARS, "object_storage": 0.0}.items() if arguments.drills else ():
            # A host stays away for longer than the fail-over takes.
            drill(service, "kill", arguments.drills, 40 if service == "postgresql" else 20, bar)
        for service in DISKS if arguments.disks else ():
            drill(service, "disk", arguments.disks, 40, 0)
        if arguments.partitions:
            play(PROJECT / "playbooks/drills/failover.yml", drill_service="redis", drill_fault="stop", drill_runs=1, drill_hold=5)
            for service in BARS:
                play(PROJECT / "tests/benchmarks/data_tier/strength.yml", drill_service=service)
        for host in MEMBERS if arguments.partitions else ():
            partition(host, MEMBERS, arguments.partitions)
    finally:
        if not arguments.keep:
            play(PROJECT / "molecule/shared/destroy.yml")


if __name__ == "__main__":
    main()
