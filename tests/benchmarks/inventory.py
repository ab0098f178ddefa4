# SPDX-License-Identifier: GPL-3.0-or-later
"""Time the inventory of a large platform: ``python tests/benchmarks/inventory.py [--hosts 500] [--sites 10]``.

Prints a table: the model alone, and Ansible's command line around it. Best of three, because other programs only ever add.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "collections"))

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load  # noqa: E402

DATA = "etcd, patroni, pgbouncer, redis, rabbitmq, object_storage, service_proxy, pgbackrest"
DIGEST = f"sha256:{'0' * 64}"
IMAGES = ", ".join(
    f'{name}: {{name: registry.large.internal/{name}, digest: "{DIGEST}"}}' for name in ("api", "web", "plugin_daemon", "sandbox", "ssrf_proxy")
)


def cluster(hosts: int, sites: int, whole: bool = False) -> str:
    """Write a cluster file: two gateways a site, the rest GPU hosts with one model for every five of them, and five clients a site.

    Args:
        hosts: How many there are in all.
        sites: Over how many sites they are spread.
        whole: Whether each site has the data tier on three of its hosts, and Dify on two of them, as well.
    """
    lines = ["plugin: sovereign.dify.cluster", "name: large", "domain: large.internal", "vpn: {cidr: 10.255.0.0/16}", "sites:"]
    models: list[str] = []
    clients: list[str] = []
    for site in range(sites):
        level = ("restricted", "internal", "public")[site % 3]
        lines += [f"  s{site}:", f"    clearance: {level}", f"    networks: [10.{site}.0.0/16]", f"    admin_networks: [10.{site}.0.0/16]"]
        if whole:
            lines += [f"    entry: {{address: 10.{site}.255.1}}", f"    dify: {{release: 1.16.0, images: {{{IMAGES}}}}}"]
        lines.append("    hosts:")
        for number in range(hosts // sites):
            address = f"address: 10.{site}.{number // 250}.{number % 250 + 1}"
            if number < 2:
                outside = f"wan_address: 203.0.{site}.{number + 1}, vpn_address: 10.255.{site}.{number + 1}"
                groups = f"wireguard, model_gateway, nginx{', keepalived' if whole else ''}"
                lines.append(f"      s{site}-gw{number}: {{{address}, {outside}, groups: [{groups}]}}")
                continue
            if whole and number < 7:
                name, groups = (f"db{number - 2}", DATA) if number < 5 else (f"app{number - 5}", "service_proxy, pgpool, container_engine, dify")
                lines.append(f"      s{site}-{name}: {{{address}, groups: [{groups}]}}")
                continue
            lines.append(f"      s{site}-gpu{number}: {{{address}, gpus: 8, groups: [vllm]}}")
            if number % 5 == 2:
                name = f"m-{site}-{number}"
                models.append(f"  {name}: {{classification: {level}, source: /srv/models/{name}, tensor_parallel: 4, hosts: [s{site}-gpu{number}]}}")
        clients += [f"  c{site}-{number}: {{sites: [s{site}], models: [m-{site}-{7 if whole else 2}]}}" for number in range(5)]
    return "\n".join([*lines, "models:", *models, "clients:", *clients, ""])


def best(action: Callable[[], object]) -> float:
    """Shortest of three runs, in seconds."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--sites", type=int, default=10)
    wanted = parser.parse_args()
    text = cluster(wanted.hosts, wanted.sites)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cluster.yml"
        path.write_text(text, encoding="utf-8")
        environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}

        def run(*arguments: str) -> str:
            command = ["ansible-inventory", "-i", str(path), *arguments]
            return subprocess.run(command, cwd=PROJECT, env=environment, check=True, capture_output=True, text=True).stdout

        listed = run("--list")
        rows = [
            ("the model alone, without Ansible", best(lambda: load(text, str(path)))),
            ("ansible-inventory --host (one host)", best(lambda: run("--host", "s0-gw0"))),
            ("ansible-inventory --graph", best(lambda: run("--graph"))),
            ("ansible-inventory --list --export (shared variables once)", best(lambda: run("--list", "--export"))),
            ("ansible-inventory --list --yaml (shared variables by reference)", best(lambda: run("--list", "--yaml"))),
            ("ansible-inventory --list (shared variables again for each host)", best(lambda: run("--list"))),
        ]
    print(f"{len(json.loads(listed)['_meta']['hostvars'])} hosts, {wanted.sites} sites, {text.count('tensor_parallel')} models; ", end="")
    print(f"cluster.yml {len(text) / 1e3:.0f} kB, --list prints {len(listed) / 1e6:.1f} MB; {os.cpu_count()} CPUs")
    for name, seconds in rows:
        print(f"{seconds:7.2f} s  {name}")


if __name__ == "__main__":
    main()
