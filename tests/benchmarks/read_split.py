#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Pgpool-II takes off the primary, and what it costs: pgbench with it and without it, at as many clients.

Needs the hosts of the scenario `pgpool` (a primary, a replica and a client's host in containers):

    molecule converge --scenario-name pgpool && python tests/benchmarks/read_split.py; molecule destroy --scenario-name pgpool

Whose SELECTs were answered where is what each PostgreSQL counts itself (pg_stat_statements).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SCENARIO = PROJECT / "molecule/pgpool"
MEMBERS = ("db1", "db2")
MIXES = {
    "select-only": "-b select-only",
    "TPC-B-like": "-b tpcb-like",
    "8 select-only : 2 TPC-B-like": "-b select-only@8 -b tpcb-like@2",
    "the same, a connection each": "-b select-only@8 -b tpcb-like@2 --connect",
}


def call(*command: str, **environment: str) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, cwd=PROJECT, env={**os.environ, **environment}).stdout


def inside(host: str, sql: str) -> str:
    """Ask a member as its administrator does."""
    identity = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return call("docker", "exec", f"mol-pgpool-{host}", *identity, "psql", "--no-psqlrc", "-qAtc", sql).strip()


def bench(port: int, options: str) -> str:
    """Run pgbench on the client's host."""
    password = (SCENARIO / "inventory/.state/secrets/patroni/app").read_text().strip()
    command = ["docker", "exec", "--env", "PGPASSWORD", "mol-pgpool-client", "pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "app"]
    return call(*command, *options.split(), "app", PGPASSWORD=password)


def measure(port: int, options: str, follower: str) -> dict[str, float]:
    """Run one mix through one port: transactions a second, milliseconds of each, and the share of reads that the replica answered."""
    for host in MEMBERS:
        inside(host, "SELECT pg_stat_statements_reset()")
    printed = bench(port, options)
    counted = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE 'SELECT abalance%'"
    reads = {host: int(inside(host, counted)) for host in MEMBERS}
    figures = {name: float(re.search(rf"{name} = ([\d.]+)", printed)[1]) for name in ("tps", "latency average")}  # type: ignore[index]
    return {"tps": figures["tps"], "milliseconds": figures["latency average"], "replica": reads[follower] / max(sum(reads.values()), 1)}


def configure(after_write: str) -> None:
    """Have the role set where a session reads after it has written."""
    inventory = [f"--inventory={SCENARIO}/inventory", f"--inventory={PROJECT}/molecule/shared/substrate.yml"]
    variables = json.dumps({"pgpool_after_write": after_write})
    call("ansible-playbook", *inventory, f"{SCENARIO}/converge.yml", "--limit=client", "--tags=pgpool", f"--extra-vars={variables}")


def main() -> None:
    """Measure, print a table, write JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--protocols", nargs="+", default=["simple", "prepared"])
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()

    recovery = {inside(host, "SELECT pg_is_in_recovery()"): host for host in MEMBERS}
    follower, leader = recovery["t"], recovery["f"]
    inside(leader, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    bench(5432, "-i -s 5 -q")
    rows = []
    print(f"{os.cpu_count()} cores for client, Pgpool-II and both servers; load before: {os.getloadavg()[0]:.1f}; {arguments.clients} clients")
    print(f"{'mix':<30} {'protocol':<9} {'path':<32} {'tps':>7} {'ms':>7} {'reads on the replica':>21}", flush=True)
    for after_write in ("always", "transaction"):
        configure(after_write)
        paths = {f"Pgpool-II, after_write {after_write}": 5434} | ({"direct": 5432} if after_write == "always" else {})
        for mix, options in MIXES.items():
            for protocol in arguments.protocols:
                for path, port in paths.items():
                    common = f"--no-vacuum --client={arguments.clients} --jobs=2 --time={arguments.seconds} --protocol={protocol}"
                    row = measure(port, f"{common} {options}", follower)
                    rows.append({"mix": mix, "protocol": protocol, "path": path, **row})
                    print(f"{mix:<30} {protocol:<9} {path:<32} {row['tps']:>7.0f} {row['milliseconds']:>7.2f} {row['replica']:>21.1%}", flush=True)
    configure("always")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
