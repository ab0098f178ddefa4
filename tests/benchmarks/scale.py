# SPDX-License-Identifier: GPL-3.0-or-later
"""What a large platform costs the controller: ``python tests/benchmarks/scale.py [--hosts 50 100 200]``.

Runs all of ``playbooks/site.yml --check`` over inventories of several sizes, whose hosts are a connection that answers each module at once, as
hosts on which everything is as it is wanted (``canned/connection``). What is measured is Ansible on the controller, with the inventory, roles,
templates and plugins; what SSH, modules and hosts take is not. 25 hosts are a site: two gateways, three of the data tier, two of Dify, 18 with GPUs.
A larger platform is more of the same, but that gateways meet those of more sites in the VPN. One site alone has none, which is why 25 hosts are no
size to compare others with.

Two things differ from a run over real hosts of a converged platform. Each role asks once more for its packages, ports and firewall rules, which the
look at the beginning of a run (``host_info``) spares it there. And what check mode leaves out is left out: most tasks that verify.

Fails if a run fails, or if what each further host costs, in processor time or memory, is more than 1.3 times as much beyond the middle size as up to
it.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "collections")]

from ansible_collections.sovereign.dify.plugins.module_utils.cluster.load import load  # noqa: E402
from ansible_collections.sovereign.dify.plugins.module_utils.state_directory import make_identity  # noqa: E402

from tests.benchmarks.canned.connection.canned import public_key  # noqa: E402
from tests.benchmarks.inventory import cluster  # noqa: E402

CANNED = PROJECT / "tests/benchmarks/canned"
PER_SITE = 25
TOLERATED = 1.3


@dataclass
class Run:
    """One run.

    Attributes:
        hosts: How many hosts there are.
        tasks: Tasks times hosts that ran, or were skipped.
        seconds: Wall time.
        cpu: Seconds of processor time, Ansible's workers included.
        memory: The most that Ansible's main process had, in MB.
        roles: Wall time by role.
    """

    hosts: int
    tasks: int
    seconds: float
    cpu: float
    memory: float
    roles: dict[str, float]


def issue(state: Path, nodes: list[dict[str, Any]], names: dict[str, str], domain: str, platform: str) -> str:
    """Make the authorities of all sites, and a certificate for each host, as role pki issues them, and find no reason to issue again.

    Args:
        state: The state directory.
        nodes: The hosts' part of the contract.
        names: The name of each site's entry.
        domain: The platform's domain.
        platform: The platform's name.

    Returns:
        The digest of the public key, which all hosts share, as a host is asked for it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())

    def sign(subject: x509.Name, issuer: x509.Name, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=397))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    issuers = {site: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{platform} internal authority, {site}")]) for site in names}
    for site, issuer in issuers.items():
        place = state / "pki/sites" / site / "ca.crt"
        place.parent.mkdir(parents=True)
        place.write_bytes(sign(issuer, issuer, (x509.BasicConstraints(True, 0), True), (identifier, False)))
    (state / "pki/hosts").mkdir()
    for node in nodes:
        site = node["site"]
        subject = x509.Name(
            [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, site), x509.NameAttribute(x509.NameOID.COMMON_NAME, node["fqdn"])]
        )
        services = [f"{name.replace('_', '-')}.{site}.{domain}" for name in node["groups"] if name not in ("baseline", "firewall", "pki")]
        known = [node["fqdn"], "localhost", *services, *([names[site]] if "nginx" in node["groups"] else [])]
        addresses = [address for address in (node["address"], node["wan_address"], node["vpn_address"], "127.0.0.1", "::1") if address]
        alternatives = x509.SubjectAlternativeName([*map(x509.DNSName, known), *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses)])
        extensions = ((alternatives, False), (usage, True), (purposes, False), (authority, False))
        (state / "pki/hosts" / f"{node['fqdn']}.crt").write_bytes(sign(subject, issuers[site], *extensions))
    encoded = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(encoded).hexdigest()


def prepare(directory: Path, hosts: int) -> dict[str, str]:
    """Write the inventory, and what the state directory of a converged platform holds.

    Args:
        directory: Where; the inventory is below it.
        hosts: How many hosts to have.

    Returns:
        What Ansible has to be told in its environment.
    """
    inventory = directory / "large"
    shutil.copytree(CANNED / "group_vars", inventory / "group_vars")
    text = cluster(hosts, hosts // PER_SITE, whole=True)
    (inventory / "cluster.yml").write_text(text, encoding="utf-8")
    contract = load(text, str(inventory / "cluster.yml"))
    nodes: list[dict[str, Any]] = [dict(node) for node in contract.nodes.values()]
    state = inventory / ".state"
    (state / "wireguard").mkdir(parents=True)
    for node in nodes:
        if node["vpn_address"]:
            (state / "wireguard" / f"{node['name']}.pub").write_text(f"{public_key(node['name'])}\n", encoding="ascii")
    entries = {name: site["entry"]["name"] for name, site in contract.sites.items()}
    return {
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(directory / "facts"),
        "ANSIBLE_CALLBACKS_ENABLED": "lab_cost,canned_loaded",
        "ANSIBLE_CALLBACK_PLUGINS": f"{PROJECT / 'lab/callback'}:{CANNED / 'callback'}",
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_CONNECTION_PLUGINS": str(CANNED / "connection"),
        "CANNED_KEY": issue(state, nodes, entries, contract.cluster["domain"], contract.cluster["name"]),
        "CANNED_STATE": make_identity(state),
        "LAB_COST": str(directory / "costs.json"),
    }


def measure(hosts: int) -> Run:
    """Run the playbook over a platform of a size.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        environment = {**os.environ, **prepare(directory, hosts)}
        command = ["ansible-playbook", "-i", str(directory / "large"), "playbooks/site.yml", "--check"]
        memory = 0
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        with (directory / "output").open("w") as output:
            process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            # The kernel's own account of a process that has ended (ru_maxrss) does not tell it from its workers.
            while process.poll() is None:
                memory = max(memory, resident(process.pid))
                time.sleep(0.2)
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            raise RuntimeError((directory / "output").read_text(encoding="utf-8")[-20_000:])
        costs = json.loads((directory / "costs.json").read_text(encoding="utf-8"))
        tasks = round(sum(cost["ok"] + cost["skipped"] for cost in costs.values()))
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Run(hosts, tasks, seconds, cpu, memory / 1e3, {role: cost["seconds"] for role, cost in costs.items()})


def resident(process: int) -> int:
    """Give the most memory that a process has had, in kB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def growth(sizes: list[int], values: list[float]) -> tuple[float, float]:
    """Give what each further host costs, up to the middle size and beyond it.

    Not what one costs on average: what there is to pay once for any number of hosts would hide what grows.
    """
    middle = len(sizes) // 2
    below, beyond = ((values[last] - values[first]) / (sizes[last] - sizes[first]) for first, last in ((0, middle), (middle, -1)))
    return below, beyond


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[50, 100, 200], help=f"sizes, multiples of {PER_SITE}, three at least")
    sizes = sorted(set(parser.parse_args().hosts))
    if len(sizes) < 3 or any(size < PER_SITE or size % PER_SITE for size in sizes):
        parser.error(f"--hosts takes three or more multiples of {PER_SITE}")
    print(f"site.yml --check, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"{'hosts':>5} {'tasks':>7} {'seconds':>8} {'CPU s':>7} {'MB':>6}   each host: {'tasks':>6} {'seconds':>8} {'CPU s':>7} {'MB':>6}")
    runs = []
    for size in sizes:
        run = measure(size)
        runs.append(run)
        each = f"{run.tasks / size:6.0f} {run.seconds / size:8.2f} {run.cpu / size:7.2f} {run.memory / size:6.2f}"
        print(f"{size:5} {run.tasks:7} {run.seconds:8.1f} {run.cpu:7.1f} {run.memory:6.0f} {'':13} {each}", flush=True)
    failed = False
    for what, values in (("CPU seconds", [run.cpu for run in runs]), ("MB", [run.memory for run in runs])):
        below, beyond = growth(sizes, values)
        faster = beyond > TOLERATED * below
        failed = failed or faster
        verdict = ": grows faster than linearly" if faster else ""
        print(f"each further host: {below:.2f} {what} up to {sizes[len(sizes) // 2]} hosts, {beyond:.2f} beyond{verdict}")
    print(f"\n{'role':24} {'seconds':>8} with {sizes[0]} hosts, a host {'':>6} and with {sizes[-1]}")
    for role, seconds in sorted(runs[-1].roles.items(), key=lambda item: -item[1]):
        print(f"{role:24} {runs[0].roles[role] / sizes[0]:8.3f} {seconds / sizes[-1]:8.3f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
