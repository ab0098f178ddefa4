"""Pytest fixtures over the hosts of a lab inventory: the same for Molecule's verifiers and for the tests of the whole lab.

The inventory is that of the Molecule scenario being verified, or the one named by ``LAB_INVENTORY`` (default ``inventories/lab``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import testinfra

PROJECT = Path(__file__).resolve().parent.parent

Contract = dict[str, Any]

# Options for OpenSSL's client: what the platform accepts, by version; and suites of TLS 1.2 in CBC mode or without forward secrecy, some of which the
# client offers only at level 0.
GOOD_SUITES = {"TLSv1.2": "-tls1_2 -cipher ECDHE+AESGCM:ECDHE+CHACHA20", "TLSv1.3": "-tls1_3"}
BAD_SUITES = "-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:ECDHE+SHA1:AES256-GCM-SHA384:AES128-SHA256:@SECLEVEL=0"
REFUSALS = ("handshake failure", "insufficient security", "protocol version")


@cache
def inventory_sources() -> tuple[Path, ...]:
    """Inventory sources that the hosts under test came from."""
    scenario = os.environ.get("MOLECULE_SCENARIO_DIRECTORY")
    if scenario and Path(scenario).name != "lab":
        return (Path(scenario) / "inventory", PROJECT / "molecule/shared/substrate.yml")
    return (Path(os.environ.get("LAB_INVENTORY", PROJECT / "inventories/lab")),)


@cache
def host_variables() -> dict[str, Contract]:
    """Variables of every host as Ansible's inventory gives them (not templated): ``{host: {cluster, site, node, ...}}``."""
    command = ["ansible-inventory", "--list", *(f"--inventory={source}" for source in inventory_sources())]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60)
    hostvars: dict[str, Contract] = json.loads(run.stdout)["_meta"]["hostvars"]
    return {name: variables for name, variables in hostvars.items() if "node" in variables}


def rerun(
    *options: str, playbook: str = "converge.yml", sources: tuple[Path, ...] | None = None, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the Molecule scenario that is being verified once more, over its hosts.

    Args:
        *options: For ``ansible-playbook``: tags, a limit, check mode.
        playbook: Its name in the scenario's directory, or a path from there.
        sources: Other inventory sources than the scenario's own.
        **variables: Extra variables.

    Returns:
        What it printed, without colours, and its exit code.
    """
    scenario = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
    inventory = [f"--inventory={source}" for source in sources or inventory_sources()]
    command = ["ansible-playbook", *inventory, f"--extra-vars={json.dumps(variables)}"]
    # Molecule forces colours upon its children; what is looked for in the output must come without.
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [*command, *options, str(scenario / playbook)], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def handshake(host: Any, endpoint: str, options: str) -> str:  # noqa: ANN401 - testinfra is untyped
    """Begin TLS with a server, showing the certificate of the host that asks.

    Args:
        host: The testinfra host that asks.
        endpoint: Address and port.
        options: For ``openssl s_client``.

    Returns:
        Version and cipher suite, such as ``TLSv1.3 TLS_AES_256_GCM_SHA384``; the alert of a server that refuses; else all that was printed.
    """
    certificate = "-cert /etc/sovereign/pki/host.crt -key /etc/sovereign/pki/host.key"
    printed: str = host.run(f"timeout 10 openssl s_client -connect {endpoint} {certificate} {options} </dev/null 2>&1").stdout
    if agreed := re.search(r"^New, (TLS\S+), Cipher is (\S+)$", printed, flags=re.MULTILINE):
        return " ".join(agreed.groups())
    alert = re.search(rf"alert ({'|'.join(REFUSALS)}):", printed)
    return alert[1] if alert else printed


def tls_faults(host: Any, endpoint: str, versions: Iterable[str] = GOOD_SUITES, options: str = "") -> list[str]:  # noqa: ANN401
    """Find out whether a server speaks TLS with forward secrecy and authenticated encryption (AEAD), and refuses a client that has only others.

    Args:
        host: The testinfra host that asks.
        endpoint: Address and port.
        versions: Versions that the server must accept.
        options: More of them for ``openssl s_client``.

    Returns:
        What is not so, with the server's answers.
    """
    answers = {version: handshake(host, endpoint, f"{GOOD_SUITES[version]} {options}") for version in versions}
    faults = [f"{version} is not accepted: {answer}" for version, answer in answers.items() if not answer.startswith(version)]
    refusal = handshake(host, endpoint, f"{BAD_SUITES} {options}")
    return faults if refusal in REFUSALS else [*faults, f"old suites are not refused: {refusal}"]


@contextmanager
def without_state(*names: str) -> Iterator[Path]:
    """Take parts of the scenario's state directory away, as a fresh clone lacks them. What is made meanwhile is removed afterwards.

    Args:
        *names: Files and directories in the state directory.

    Yields:
        The state directory.
    """
    state = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory/.state"
    aside = {state / name: state / f"{name}.aside" for name in names}
    for there, kept in aside.items():
        there.rename(kept)
    try:
        yield state
    finally:
        for there, kept in aside.items():
            subprocess.run(["rm", "-rf", str(there)], check=True)
            kept.rename(there)


def docker(action: str, container: str) -> None:
    """Kill, start, pause or unpause a host's container, or fail with what Docker says.

    On a busy machine a container may start processes faster than Docker freezes them; it then takes its pause back, and can be asked again.
    """
    for attempt in range(5):
        run = subprocess.run(["docker", action, container], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return
        if "unable to freeze" not in run.stderr:
            break
        time.sleep(attempt)
    pytest.fail(run.stderr)


def changed(run: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Count changed tasks by host; the run must have succeeded."""
    if run.returncode:
        pytest.fail(run.stdout + run.stderr)
    return recap(run.stdout) or pytest.fail(run.stdout)


def recap(output: str) -> dict[str, int]:
    """Read from what ``ansible-playbook`` has printed how many tasks have changed something, by host."""
    return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, flags=re.MULTILINE)}


@cache
def connected(name: str) -> Any:  # noqa: ANN401 - testinfra is untyped
    """Reach a host, by its inventory name, through Docker: independent of the SSH that Ansible uses."""
    return testinfra.get_host(f"docker://{host_variables()[name]['cluster']['name']}-{name}")


def vllm_metric(host: str, model: str, name: str) -> float:
    """Give one of the numbers that a model's vLLM instance reports of itself, summed over its labels.

    Args:
        host: Where the instance is.
        model: The model's name.
        name: The number's, without vLLM's prefix.
    """
    node, pki = host_variables()[host]["node"], "/etc/sovereign/pki"
    (port,) = [instance["port"] for instance in node["models"] if instance["name"] == model]
    curl = f"curl --silent --fail --cert {pki}/host.crt --key {pki}/host.key --cacert {pki}/ca.crt"
    metrics = connected(host).check_output(f"{curl} https://{node['address']}:{port}/metrics")
    return sum(float(value) for value in re.findall(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", metrics, flags=re.MULTILINE))


@pytest.fixture(scope="session")
def contract() -> Callable[[str], Contract]:
    """Give the contract (``cluster``, ``site``, ``node``) of a host by its name."""
    return lambda name: host_variables()[name]


@pytest.fixture(scope="session")
def on() -> Callable[[str], Any]:
    """Give a testinfra host by its inventory name."""
    return connected
